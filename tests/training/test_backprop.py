"""The step by hand equals the step by `vmap` in value and gradient; other architectures are left to
`vmap`."""

import pytest
import torch
from torch import nn

import kdlab as kd
from kdlab.losses.kd import HardLabels, KDLoss
from kdlab.losses.slopes import with_slope
from kdlab.students.builders import Dropout
from kdlab.students.patchnet import PatchNet
from kdlab.training.backprop import layers
from kdlab.training.replicas import Replicas
from kdlab.training.stepper import Stepper

R, B, INPUTS, CLASSES = 3, 7, 12, 4
NETS = {
    "linear": lambda: nn.Sequential(nn.Flatten(1), nn.Linear(INPUTS, CLASSES)),
    "one hidden": lambda: nn.Sequential(
        nn.Flatten(1), nn.Linear(INPUTS, 6), nn.ReLU(), nn.Linear(6, CLASSES)
    ),
    "deep, dropout": lambda: nn.Sequential(
        nn.Flatten(1),
        nn.Linear(INPUTS, 6),
        nn.ReLU(),
        Dropout(0.5),
        nn.Linear(6, 5),
        nn.ReLU(),
        Dropout(0.2),
        nn.Linear(5, CLASSES),
    ),
    "patches": lambda: PatchNet(INPUTS // 3, CLASSES, 2),
    "dropout on the input": lambda: nn.Sequential(
        nn.Flatten(1), Dropout(0.3), nn.Linear(INPUTS, CLASSES)
    ),
}
IMAGES = {
    "the course's": lambda: kd.convnet(5, 6, 3, dropout=0.5)(kd.load("digits")),
    "one layer": lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(1), nn.Linear(72, CLASSES)),
    "odd kernels": lambda: nn.Sequential(
        nn.Conv2d(2, 3, (3, 2), stride=(1, 3), padding=(2, 1)),
        nn.Conv2d(3, 4, (1, 4), stride=(3, 1), padding=3),
        nn.ReLU(),
        nn.Conv2d(4, 2, 3, stride=4),
        nn.Flatten(1),
        nn.ReLU(),
        Dropout(0.2),
        nn.Linear(2, CLASSES),
    ),
    "no linear layer": lambda: nn.Sequential(nn.Conv2d(2, CLASSES, (5, 7)), nn.Flatten(1)),
}
SHAPES = {"the course's": (1, 8, 8), "one layer": (2, 7, 5), "odd kernels": (2, 7, 5)}


def stepper(make):
    torch.manual_seed(0)
    replicas = Replicas([make().double() for _ in range(R)], seeds=range(R))
    replicas.base.train()
    return Stepper(replicas, [0.1, 0.1, 0.01], steps=10, optimiser="sgd")


@pytest.mark.parametrize("name", NETS | IMAGES)
def test_by_hand_equals_by_vmap(name):
    net = (NETS | IMAGES)[name]
    shape = SHAPES.get(name, (2, 5, 7)) if name in IMAGES else (3, 4)
    x = torch.randn(R, B, *shape, dtype=torch.float64)
    if name == "odd kernels":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)  # of no usual order in memory
    classes = net().double().eval()(x[0]).shape[-1]
    hand, auto = stepper(net), stepper(net)
    teacher, labels = (
        torch.randn(R, B, classes, dtype=torch.float64),
        torch.randint(0, classes, (R, B)),
    )
    loss = KDLoss(torch.tensor([1.0, 2.0, 8.0])[:, None, None], 0.7)
    assert hand.chain
    auto.chain = None
    for _ in range(
        3
    ):  # several steps, so that the generators of the dropout masks must agree as well
        terms = [s.step(x, lambda logits: loss.rows(logits, teacher, labels)) for s in (hand, auto)]
        torch.testing.assert_close(terms[0]["loss"], terms[1]["loss"], atol=1e-12, rtol=0)
        for key, grad in hand.grads.items():
            torch.testing.assert_close(grad, auto.grads[key], atol=1e-12, rtol=0)
            assert grad.abs().max() > 0
        for key, weight in hand.replicas.parameters.items():
            torch.testing.assert_close(weight, auto.replicas.parameters[key], atol=1e-12, rtol=0)


@pytest.mark.parametrize("loss", [KDLoss(4, 0.9), HardLabels()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_slope_in_closed_form_takes_the_same_step_in_every_precision(loss, dtype):
    x, z = torch.randn(R, B, 3, 4, dtype=dtype), torch.randn(R, B, CLASSES)
    labels = torch.randint(0, CLASSES, (R, B))
    grads = []
    for compare in (with_slope(loss), loss.rows):
        torch.manual_seed(0)
        replicas = Replicas([NETS["one hidden"]().to(dtype) for _ in range(R)], seeds=range(R))
        one = Stepper(replicas, [0.1] * R, steps=10, optimiser="sgd")
        one.step(x, lambda logits, compare=compare: compare(logits, z, labels))
        grads.append(one.grads)
    near = 2e-2 if dtype == torch.bfloat16 else 1e-5
    for name, grad in grads[0].items():
        assert grad.dtype == dtype and grad.abs().max() > 0
        torch.testing.assert_close(grad, grads[1][name], atol=near, rtol=near)


def test_weights_of_two_precisions_keep_their_own():
    net = nn.Sequential(nn.Flatten(1), nn.Linear(3, 2), nn.Linear(2, 2).double())
    kinds = [p.dtype for p in Replicas([net], [0]).parameters.values()]
    assert kinds == [torch.float32] * 2 + [torch.float64] * 2


@pytest.mark.parametrize("shape", [(1, 5, 7), (4, 5, 7), (2, 2, 1)], ids=str)
def test_images_that_a_convolution_cannot_take_are_an_error(shape):
    one = stepper(IMAGES["no linear layer"])
    with pytest.raises(RuntimeError):
        one.step(torch.zeros(R, B, *shape, dtype=torch.float64), lambda z: {"loss": z.sum(-1)})


@pytest.mark.parametrize("student", [kd.mlp(6), kd.convnet(3, 4)], ids=lambda b: b.__name__)
def test_autocast_is_left_to_torch_and_differs_from_full_precision(student):
    task, found = kd.load("digits", sizes=(80, 40, 40)), {}
    for enabled in (False, True):
        with torch.autocast("cpu", enabled=enabled):
            runs = kd.train(student, task, epochs=2)
        found[enabled] = runs.frame["nll"].iloc[0]
    assert found[True] == pytest.approx(found[False], abs=0.05) and found[True] != found[False]


def test_convolutions_on_large_images_are_torch_s():
    net, flat = IMAGES["the course's"](), NETS["linear"]()
    assert layers(net, 256) and not layers(net, 257) and layers(flat, 10**6)


def frozen():
    net = nn.Sequential(nn.Linear(3, 2))
    net[0].weight.requires_grad_(False)
    return net


def frozen_patches():
    net = PatchNet(3, 2, 2)
    net.weight.requires_grad_(False)
    return net


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(3, 2),
        nn.Sequential(nn.Linear(3, 2), nn.Tanh()),
        nn.Sequential(nn.Linear(3, 2, bias=False)),
        nn.Sequential(nn.Flatten(0), nn.Linear(3, 2)),
        nn.Sequential(nn.Conv2d(1, 2, 3)),
        nn.Sequential(nn.Flatten(1), nn.Conv2d(1, 2, 3)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(1), nn.Flatten(1)),
        nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Flatten(1)),
        nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2), nn.Flatten(1)),
        nn.Sequential(nn.Conv2d(1, 2, 3, padding="same"), nn.Flatten(1)),
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.Flatten(1)),
        nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(1)),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Flatten(1)),
        nn.Sequential(Dropout(0.5), nn.Flatten(1), nn.Linear(3, 2)),
        frozen(),
        frozen_patches(),
        type("Mine", (PatchNet,), {})(3, 2, 2),
        type("Mine", (nn.Sequential,), {})(nn.Linear(3, 2)),
    ],
    ids=str,
)
def test_what_it_does_not_know_is_left_to_vmap(module):
    assert layers(module) is None
