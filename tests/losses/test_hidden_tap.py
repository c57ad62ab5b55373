"""Taps that leave nothing behind, projectors, and the errors that offer them."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from kdlab.losses.features import (
    attention_transfer,
    cka,
    fitnets,
    projector,
    rkd_angle,
    rkd_distance,
    similarity,
)
from kdlab.losses.hidden import tap
from kdlab.training.replicas import Replicas


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    "of, s, t, words",
    [
        (
            fitnets,
            (8, 16),
            (8, 32),
            (
                "fitnets: student (8, 16) and teacher (8, 32) must have one shape; "
                "bring the student to it with projector((16,), (32,))"
            ),
        ),
        (fitnets, (8, 4, 6, 6), (8, 8, 3, 3), "projector((4, 6, 6), (8, 3, 3))"),
        (fitnets, (8, 5, 16), (8, 5, 32), "projector((16,), (32,))"),
        (
            fitnets,
            (8, 6),
            (8, 2, 2, 3),
            "flatten both (nn.Flatten) and bring the student to it with projector((6,), (12,))",
        ),
        (fitnets, (8, 5, 16), (8, 4, 16), "flatten both (nn.Flatten)"),
        (
            attention_transfer,
            (8, 4, 6, 6),
            (8, 8, 3, 3),
            "must have one h and w; bring the student to it with projector((4, 6, 6), (8, 3, 3))",
        ),
        (attention_transfer, (8, 4), (8, 4), "must be maps (B, C, h, w)"),
        (fitnets, (8,), (8,), "student must be a layer (B, ...), got (8,)"),
        (cka, (8,), (8, 1), "x must be a layer (B, ...), got (8,)"),
        *[
            (
                of,
                (8, 2, 2, 2),
                (7, 2, 2, 2),
                "(8, 2, 2, 2) and " + key + " (7, 2, 2, 2) must have one batch size",
            )
            for of, key in [
                (fitnets, "teacher"),
                (attention_transfer, "teacher"),
                (similarity, "teacher"),
                (rkd_distance, "teacher"),
                (rkd_angle, "teacher"),
                (cka, "y"),
            ]
        ],
    ],
)
def test_shapes_that_do_not_fit(of, s, t, words):
    with pytest.raises(ValueError) as error:
        of(torch.zeros(s), torch.zeros(t))
    assert words in str(error.value) and str(error.value).startswith(of.__name__ + ": ")


def test_the_offered_projector_mends_it():
    for s, t in [((8, 16), (8, 32)), ((8, 4, 6, 6), (8, 8, 3, 3)), ((8, 5, 16), (8, 5, 32))]:
        with pytest.raises(ValueError) as error:
            fitnets(torch.zeros(s), torch.ones(t))
        offered = eval(str(error.value).split("with ")[1], {"projector": projector})
        assert fitnets(offered(torch.zeros(s)), torch.ones(t)).isfinite()


@pytest.mark.parametrize(
    "s, t",
    [
        ((16,), (32,)),
        ((4, 6, 6), (8, 6, 6)),
        ((4, 7, 5), (2, 3, 4)),
        ((4, 3, 3), (8, 6, 6)),
        ((4, 8, 2), (8, 4, 4)),
        (torch.Size([3]), [5]),
    ],
)
def test_projector_reaches_the_shape_and_learns(s, t):
    module, x = projector(s, t), normal(2, *s, dtype=torch.float32).requires_grad_()
    out = module(x)
    assert out.shape == (2, *t)
    out.square().sum().backward()
    assert x.grad.abs().sum() > 0 and all(p.grad.abs().sum() > 0 for p in module.parameters())


def test_projector_by_hand():
    mixed = projector((2, 2, 2), (1, 1, 1))
    nn.init.constant_(mixed[1].weight, 2.0)
    nn.init.constant_(mixed[1].bias, 1.0)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 4.0]]]])
    assert mixed(x).item() == 2 * (3 + 1) + 1  # the means of the two channels
    repeated = projector((1, 1, 2), (1, 2, 4))
    nn.init.constant_(repeated[0].weight, 1.0)
    nn.init.constant_(repeated[0].bias, 0.0)
    assert repeated(torch.tensor([[[[1.0, 5.0]]]])).tolist() == [[[[1, 1, 5, 5], [1, 1, 5, 5]]]]
    sequence = projector((3,), (4,))
    assert sequence(torch.zeros(2, 7, 3)).shape == (2, 7, 4)
    assert isinstance(projector((4, 6, 6), (8, 6, 6)), nn.Conv2d)  # nothing to resize


@pytest.mark.parametrize(
    "s, t", [((4, 8), (4, 9)), ((4,), (4, 2, 2)), ((), ()), ((0,), (3,)), ((4.0,), (3,))]
)
def test_projector_refuses_other_shapes(s, t):
    with pytest.raises(ValueError) as error:
        projector(s, t)
    assert f"projector: student_shape {s} and teacher_shape {t} must both be vectors (D,)" in str(
        error.value
    )


def network(seed=0):
    torch.manual_seed(seed)
    inner = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), inner, nn.Linear(5, 2)).double()


def hooks(model):
    return sum(len(m._forward_hooks) for m in model.modules())


def test_tap_collects_what_the_layers_give():
    model, x = network(), normal(6, 3)
    with tap(model, ["1", "2", "2.0"]) as layers:
        assert layers == {}
        model(x)
    hidden = (x @ model[0].weight.T + model[0].bias).clamp_min(0)
    inner = hidden @ model[2][0].weight.T + model[2][0].bias
    for name, expected in {"1": hidden, "2.0": inner, "2": inner.tanh()}.items():
        torch.testing.assert_close(layers[name], expected)
    assert set(layers) == {"1", "2", "2.0"}
    layers["1"].sum().backward()  # not detached
    assert model[0].weight.grad.abs().sum() > 0
    with tap(model, "0") as one:
        model(x)
        model(2 * x)  # each pass fills it anew
    torch.testing.assert_close(one["0"], 2 * x @ model[0].weight.T + model[0].bias)


def test_hooks_are_gone_in_every_case():
    model, x = network(), normal(6, 3)
    with tap(model, ["0", "1"]) as layers:
        assert hooks(model) == 2
        model(x)
    assert hooks(model) == 0
    before = layers["0"]
    model(x + 1)
    assert layers["0"] is before  # a later pass fills nothing
    with pytest.raises(KeyError, match="mine"), tap(model, "0"):
        raise KeyError("mine")
    assert hooks(model) == 0
    with pytest.raises(RuntimeError), tap(model, ["0", "3"]) as layers:
        model(normal(6, 4))  # the forward pass itself fails
    assert hooks(model) == 0 and layers == {}
    with pytest.raises(ValueError), tap(model, ["0", "nothing"]):
        pass
    assert hooks(model) == 0


def test_taps_nest_and_leave_other_hooks_alone():
    model, x, seen = network(), normal(6, 3), []
    handle = model[0].register_forward_hook(lambda *_: seen.append(1))
    with tap(model, ["0", "1"]) as outer:
        with tap(model, "1") as inner:
            model(x)
        assert hooks(model) == 3
        first = inner["1"]
        model(x + 1)
    assert inner["1"] is first and not torch.equal(outer["1"], first)
    assert set(outer) == {"0", "1"} and set(inner) == {"1"}
    assert hooks(model) == 1 and len(seen) == 2
    handle.remove()


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(ValueError) as error, tap(network(), ["0", "2.7", "relu"]):
        pass
    assert (
        str(error.value) == "tap: names ['2.7', 'relu'] are not in the model; "
        "expected names from ['0', '1', '2', '2.0', '2.1', '3']"
    )


class Pair(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.inner, self.give = nn.Identity(), give
        self.inner.forward = lambda x: self.give(x)

    def forward(self, x):
        self.inner(x)
        return x


@pytest.mark.parametrize(
    "give",
    [
        lambda x: (x + 1, x),
        lambda x: [x + 1],
        lambda x: {"a": x + 1, "b": x},
        lambda x: (None, x + 1, x),
    ],
)
def test_the_first_tensor_of_several(give):
    model, x = Pair(give), normal(2, 3)
    with tap(model, "inner") as layers:
        model(x)
    torch.testing.assert_close(layers["inner"], x + 1)


@pytest.mark.parametrize("give", [lambda x: None, lambda x: (), lambda x: "text"])
def test_a_layer_without_a_tensor_is_an_error(give):
    model = Pair(give)
    with (
        pytest.raises(TypeError, match="'inner' must give a tensor or a tuple with one, got"),
        tap(model, "inner"),
    ):
        model(normal(2, 3))
    assert hooks(model) == 0


def test_transformers_blocks():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    ).eval()
    tokens = torch.tensor([[1, 2, 3, 4]])
    with (
        torch.no_grad(),
        tap(model, ["transformer.h.0", "transformer.h.0.attn", "transformer"]) as layers,
    ):
        hidden = model(tokens, output_hidden_states=True).hidden_states
    torch.testing.assert_close(layers["transformer.h.0"], hidden[1])
    torch.testing.assert_close(layers["transformer"], hidden[2])  # its output is a dictionary
    assert layers["transformer.h.0.attn"].shape == (1, 4, 8)  # and this one's a tuple


def test_replicas_under_vmap_agree_with_each_model_alone():
    models = [network(seed) for seed in range(3)]
    stack, x = Replicas(models, seeds=range(3)), normal(3, 6, 3)

    def one(parameters, buffers, x):
        with tap(stack.base, ["1", "2.0"]) as layers:
            return functional_call(stack.base, (parameters, buffers), (x,)), dict(layers)

    leaves = {k: v.clone().requires_grad_() for k, v in stack.parameters.items()}
    logits, layers = vmap(one)(leaves, stack.buffers, x)
    assert hooks(stack.base) == 0
    torch.testing.assert_close(logits, stack.forward(x))
    teacher = normal(6, 7)
    loss = vmap(rkd_distance, in_dims=(0, None))(layers["2.0"], teacher)
    grads = dict(
        zip(
            leaves,
            torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True),
            strict=True,
        )
    )
    for r, model in enumerate(models):
        with tap(model, ["1", "2.0"]) as alone:
            model(x[r])
        for name in alone:
            torch.testing.assert_close(layers[name][r], alone[name])
        rkd_distance(alone["2.0"], teacher).backward()
        torch.testing.assert_close(grads["0.weight"][r], model[0].weight.grad)
    assert grads["3.weight"] is None  # behind the tap


@pytest.mark.parametrize("names", [[None], [["0"]], [0], "9", ["0", torch.zeros(2)]])
def test_a_name_that_is_none_is_named(names):
    with (
        pytest.raises(ValueError, match="^tap: names .* are not in the model"),
        tap(network(), names),
    ):
        pass
