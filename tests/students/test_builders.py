"""Builders against layers written out by hand; dropout by its definition."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdlab import convnet, load, mlp
from kdlab.data.tasks import relabel
from kdlab.students.builders import Dropout


@pytest.fixture(scope="module")
def task():
    return load("digits")


def test_mlp_is_matrix_products_and_relu(task):
    model, x = mlp(32, 16)(task), task.train.x[:5]
    w1, b1, w2, b2, w3, b3 = model.parameters()
    hidden = ((x.flatten(1) @ w1.T + b1).clamp_min(0) @ w2.T + b2).clamp_min(0)
    torch.testing.assert_close(model(x), hidden @ w3.T + b3)


def test_mlp_without_widths_is_a_linear_classifier(task):
    w, b = mlp()(task).parameters()
    assert w.shape == (10, 64) and b.shape == (10,)
    a, c = (mlp()(task) for _ in range(2))
    assert not torch.equal(a[-1].weight, c[-1].weight)  # each call builds a fresh model


def test_convnet_is_convolutions_that_halve_the_image(task):
    model, x = convnet(4, 8)(task), task.train.x[:5]
    w1, b1, w2, b2, w3, b3 = model.parameters()
    hidden = F.conv2d(F.conv2d(x, w1, b1, padding=1).relu(), w2, b2, stride=2, padding=1).relu()
    torch.testing.assert_close(model(x), hidden.flatten(1) @ w3.T + b3)


@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 28, 28), (3, 5, 12)])
@pytest.mark.parametrize("build", [mlp(8), convnet(4), convnet(2, 3, 4)], ids=lambda b: b.__name__)
def test_any_image_shape_and_number_of_classes(task, shape, build):
    x = torch.rand(2, *shape)
    data = type(task.train)(x, task.train.y[:2], task.train.y[:2])
    assert build(relabel(task, train=data, classes=["a", "b", "c"]))(x).shape == (2, 3)


def test_builders_carry_a_name():
    assert [b.__name__ for b in (mlp(64, 32), mlp(8, dropout=0.5), convnet(8, 16))] == [
        "mlp 64-32",
        "mlp 8 dropout 0.5",
        "convnet 8-16",
    ]


def test_dropout_drops_a_share_p_and_scales_the_rest():
    torch.manual_seed(0)
    x = torch.rand(400, 500) + 1
    y = Dropout(0.3)(x)
    kept = y != 0
    assert 1 - kept.float().mean().item() == pytest.approx(0.3, abs=0.005)  # sd 0.001
    torch.testing.assert_close(y[kept], x[kept] / 0.7)
    assert not torch.equal(Dropout(0.3)(x) != 0, kept)  # a fresh mask each time


def test_dropout_does_nothing_in_eval_mode_or_at_p_0():
    x = torch.randn(20, 30)
    assert torch.equal(Dropout(0.9).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


def test_dropout_takes_the_noise_it_is_given():
    layer, x = Dropout(0.5), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    layer.noise = torch.tensor([[0.1, 0.5, 0.49, 0.9]])
    assert layer(x).tolist() == [[0.0, 4.0, 0.0, 8.0]]
    assert "noise" not in layer.state_dict()


def test_mlp_places_dropout_after_each_hidden_layer(task):
    kinds = [type(layer).__name__ for layer in mlp(8, 4, dropout=0.2)(task)]
    assert kinds == ["Flatten", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: mlp(0), "mlp: hidden must be a whole number of at least 1, got 0"),
        (lambda: mlp(8, 2.5), "mlp: hidden must be a whole number of at least 1, got 2.5"),
        (lambda: mlp(True), "mlp: hidden must be a whole number of at least 1, got True"),
        (lambda: convnet(), "convnet: channels must be whole numbers of at least 1, got none"),
        (lambda: convnet(-4), "convnet: channels must be a whole number of at least 1, got -4"),
        (
            lambda: Dropout(1.0),
            "Dropout: p must be a finite number at least 0 and below 1, got 1.0",
        ),
        (
            lambda: Dropout(-0.1),
            "Dropout: p must be a finite number at least 0 and below 1, got -0.1",
        ),
        (lambda: mlp(8, dropout=1.5), "mlp: dropout must be a finite number .* below 1, got 1.5"),
        (
            lambda: convnet(8, dropout=1.5),
            "convnet: dropout must be a finite number .* below 1, got 1.5",
        ),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        make()


def test_whole_numbers_of_numpy_are_widths(task):
    assert (
        torch.nn.utils.parameters_to_vector(mlp(np.int64(3))(task).parameters()).numel()
        == 65 * 3 + 4 * 10
    )
    assert convnet(np.int64(3))(task)[0].out_channels == 3
