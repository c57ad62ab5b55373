"""The chunked loss from hidden states, against `TokenLoss` on full logits and torch's own
gradients."""

import math
import shutil
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import kdlab as kd
from kdlab.losses import closed_form
from kdlab.losses.fused import linear_divergence
from kdlab.losses.kd import TokenLoss

SIX = (kd.forward_kl, kd.reverse_kl, kd.jsd, kd.skew_forward_kl, kd.skew_reverse_kl, kd.tvd)
LOSSES = [partial(TokenLoss, divergence) for divergence in SIX]
LOSSES += [partial(TokenLoss, kd.jsd, beta=beta) for beta in (0, 0.1, 1.0)]
LOSSES += [
    partial(TokenLoss, d, skew=skew)
    for d in (kd.skew_forward_kl, kd.skew_reverse_kl)
    for skew in (0, 0.75)
]
each = pytest.mark.parametrize(
    "make", LOSSES, ids=lambda m: f"{m.args[0].__name__}-{[*m.keywords.values()]}"
)


def example(*rows, V=11, H=(4, 3), bias=(True, True), dtype=torch.float64, seed=0, size=2.0):
    """[hidden, head, hidden, head, labels], with a third of the labels −100."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return (size * torch.randn(*shape, generator=g, dtype=torch.float64)).to(dtype)

    sides = []
    for width, biased in zip(H, bias, strict=True):
        head = nn.Linear(width, V, bias=biased, dtype=dtype)
        for p in head.parameters():
            p.data = normal(*p.shape)
        sides += [normal(*rows, width), head]
    labels = torch.randint(V, rows, generator=g)
    return [*sides, labels.masked_fill(torch.rand(rows, generator=g) < 1 / 3, -100)]


def full(
    student_hidden, student_head, teacher_hidden, teacher_head, labels, loss, reduction="mean"
):
    with torch.no_grad():
        z = teacher_head(teacher_hidden)
    mean = loss(student_head(student_hidden), z, labels)
    return mean * (labels >= 0).sum() if reduction == "sum" else mean


def value_and_grads(of, arguments, *more, **options):
    arguments = [arguments[0].detach().clone().requires_grad_(), *arguments[1:]]
    wanted = [arguments[0], *arguments[1].parameters()]
    value = of(*arguments, *more, **options)
    return [value.detach(), *torch.autograd.grad(value, wanted)]


TOLERANCE = {
    torch.float64: (1e-9, 1e-11),
    torch.float32: (1e-4, 1e-5),
    torch.bfloat16: (3e-2, 3e-2),
}


@each
@settings(max_examples=25)
@given(st.data())
def test_value_and_gradients_are_those_of_full_logits(make, data):
    draw = data.draw
    rows = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    dtype, reduction = (
        draw(st.sampled_from(list(TOLERANCE))),
        draw(st.sampled_from(["mean", "sum"])),
    )
    case = example(
        *rows,
        V=draw(st.sampled_from([2, 7, 70])),
        H=draw(st.tuples(*[st.integers(1, 5)] * 2)),
        bias=draw(st.tuples(st.booleans(), st.booleans())),
        dtype=dtype,
        seed=draw(st.integers(0, 99)),
        size=(
            draw(st.sampled_from([0.3, 1.0]))
            if dtype == torch.bfloat16
            else draw(st.floats(0.1, 3))
        ),
    )
    loss = make(
        alpha=draw(st.sampled_from([0, 0.3, 1.0])),
        temperature=draw(st.floats(0.5, 5)),
        scale=draw(st.sampled_from(["T2", "none"])),
    )
    expected = value_and_grads(full, case, loss, reduction=reduction)
    for i in (0, 2):  # the full path can't take NaN there
        case[i] = case[i].masked_fill((case[4] < 0)[..., None], math.nan)
    chunk = draw(st.integers(1, math.prod(rows) + 2))
    with pytest.MonkeyPatch.context() as patch:  # a part of a chunk, or all of it at once
        patch.setitem(closed_form.AT_ONCE, "cpu", draw(st.sampled_from([1, 140, 10**6])))
        found = value_and_grads(linear_divergence, case, loss, chunk, reduction)
    assert [x.dtype for x in found] == [x.dtype for x in expected]
    rtol, atol = TOLERANCE[dtype]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol * max(1.0, b.abs().max().item()))


@each
@pytest.mark.parametrize("T, alpha", [(1.0, 1.0), (2.5, 0.4)])
def test_gradcheck(make, T, alpha):
    hidden, head, *rest = example(2, 3, V=5, size=1.0)
    loss = make(temperature=T, alpha=alpha)
    inputs = (
        hidden.requires_grad_(),
        *head.parameters(),
    )  # changed in place by gradcheck, so also inside the head
    assert torch.autograd.gradcheck(
        lambda *_: linear_divergence(hidden, head, *rest, loss, 2), inputs
    )


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_a_class_ruled_out_by_its_bias_is_as_if_it_were_not_there(make, dtype):
    loss, case = make(temperature=2.0, alpha=0.6), example(12, V=8, dtype=dtype, size=0.7)
    with torch.no_grad():
        case[1].bias[5:] = case[3].bias[5:] = -math.inf
    case[4] = case[4].clamp_max(4)
    cut = [x if torch.is_tensor(x) else nn.Linear(x.in_features, 5, dtype=dtype) for x in case]
    for mine, whole in zip(cut[1:4:2], case[1:4:2], strict=True):
        mine.weight.data, mine.bias.data = whole.weight.data[:5], whole.bias.data[:5]
    value, of_hidden, of_weight, of_bias = value_and_grads(linear_divergence, case, loss, 5)
    expected = value_and_grads(full, cut, loss)
    rtol, atol = (
        (1e-9, 1e-9)
        if dtype == torch.float64
        else (1e-2, 5e-3)
        if dtype == torch.float16
        else (1e-4, 1e-5)
    )
    torch.testing.assert_close(
        [value, of_hidden, of_weight[:5], of_bias[:5]], expected, rtol=rtol, atol=atol
    )
    assert not of_weight[5:].any() and not of_bias[5:].any()


@each
def test_far_apart_answers_stay_finite(make):
    case, loss = (
        example(9, size=40.0, dtype=torch.float32),
        make(alpha=0.5),
    )  # probabilities that underflow to 0
    expected = value_and_grads(full, case, loss)
    for a, b in zip(value_and_grads(linear_divergence, case, loss), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


@each
def test_where_none_counts_it_is_0(make):
    case = [*example(2, 3)[:4], torch.full((2, 3), -100)]
    case[0] = case[0] * math.nan
    for reduction in ("mean", "sum"):
        assert not any(
            x.any()
            for x in value_and_grads(linear_divergence, case, make(alpha=0.5), reduction=reduction)
        )


@each
def test_it_is_0_at_equality_and_never_below(make):
    case = example(40, V=70, dtype=torch.float32)
    case[2:4] = case[:2]
    value, *grads = value_and_grads(linear_divergence, case, make())
    assert 0 <= value < 1e-6 and all(g.abs().max() < 1e-5 for g in grads)


def test_an_embedding_tied_to_the_head_gets_both_gradients():
    _, head, teacher_hidden, teacher_head, labels = example(4, 6, bias=(False, True))
    embedding, tokens = (
        nn.Embedding(11, 4),
        torch.randint(11, (4, 6), generator=torch.Generator().manual_seed(1)),
    )
    embedding.weight = head.weight
    grads = []
    for of in (linear_divergence, full):
        loss = of(
            embedding(tokens).tanh(),
            head,
            teacher_hidden,
            teacher_head,
            labels,
            TokenLoss(kd.jsd, alpha=0.5),
        )
        grads += torch.autograd.grad(loss, list(embedding.parameters()))
    torch.testing.assert_close(*grads)


class Watch(TorchDispatchMode):
    """How many matrix products there were, and the most numbers that any tensor held."""

    products = numbers = 0

    def __torch_dispatch__(self, of, types, args=(), kwargs=None):
        out = of(*args, **kwargs or {})
        self.products += of.overloadpacket.__name__ in ("mm", "addmm", "addmm_")
        for x in out if isinstance(out, (tuple, list)) else [out]:
            self.numbers = max(self.numbers, x.numel() if torch.is_tensor(x) else 0)
        return out


def watched(case, *more, **options):
    with Watch() as seen:
        loss = linear_divergence(*case, *more, **options)
        if loss.requires_grad:
            loss.backward()
    return seen


@each
def test_the_logits_of_all_tokens_never_stand_there(make):
    case = example(4, 16, V=100)
    case[0].requires_grad_()
    loss, counted = make(alpha=0.5), (case[4] >= 0).sum()
    assert watched(case, loss, chunk=6).numbers == 6 * 100
    assert watched(case, loss, chunk=100).numbers == counted * 100  # and no row that does not count


def test_only_what_is_asked_for_is_computed():
    case = example(5, 6, V=50)
    case[0].requires_grad_()
    assert watched(case).products == 4 and all(p.grad is None for p in case[3].parameters())
    case[1].requires_grad_(False)
    case[2].requires_grad_()  # the teacher stays a constant
    assert watched(case).products == 3 and case[2].grad is None
    with torch.no_grad():
        assert watched(case).products == 2
    case[0].requires_grad_(False)
    case[1].bias.requires_grad_()
    assert watched(case).products == 2 and case[1].bias.grad.any()


def test_many_tokens_add_up_in_float32():
    one = [*example(1, V=4, dtype=torch.bfloat16, size=1.0)[:4], torch.tensor([0])]
    case = [
        x.expand(600, *x.shape[1:]) if torch.is_tensor(x) else x for x in one
    ]  # a token 600 times over
    value, _, *grads = value_and_grads(linear_divergence, case, chunk=1)
    expected, _, *of_one = value_and_grads(full, one, TokenLoss())
    assert value.dtype == torch.float32 and value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(
        grads, of_one, rtol=1e-2, atol=0
    )  # a sum in bfloat16 stops growing at 256


@pytest.mark.parametrize("inside", [torch.bfloat16, torch.float16])
def test_under_autocast_as_full_logits(inside):
    case, loss = (
        example(6, 5, V=70, dtype=torch.float32, size=0.7),
        TokenLoss(kd.jsd, alpha=0.5, temperature=2.0),
    )
    plain = value_and_grads(full, case, loss)
    with torch.autocast("cpu", inside):
        expected = value_and_grads(full, case, loss)
        found = value_and_grads(linear_divergence, case, loss, chunk=4)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=1e-3)
    assert abs(expected[0] - plain[0]) > 1e-6 and found[0].item() == pytest.approx(
        expected[0].item(), abs=1e-6
    )


def test_hidden_states_in_another_dtype_than_their_head():
    case = example(6, 5, dtype=torch.float32)
    found = value_and_grads(
        linear_divergence, [case[0].double(), case[1], case[2].double(), *case[3:]]
    )
    expected = [
        x.to(y.dtype) for x, y in zip(value_and_grads(full, case, TokenLoss()), found, strict=True)
    ]
    assert found[1].dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_gradients_follow_what_comes_after_and_can_be_taken_twice():
    case = example(7)
    case[0].requires_grad_()
    loss = linear_divergence(*case)
    first, again = (torch.autograd.grad(k * loss, case[0], retain_graph=True)[0] for k in (3, 1))
    torch.testing.assert_close(first, 3 * again, rtol=1e-12, atol=0)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(loss, case[0], create_graph=True)


SCALED = type(
    "Scaled", (nn.Linear,), {"forward": lambda self, x: 2 * x}
)  # logits that are not its weight's alone
NAN, FEW = torch.full((2, 3, 4), math.nan).double(), torch.zeros(2, 3, 5)


@pytest.mark.parametrize(
    "changed, error, words",
    [
        (
            {0: FEW},
            ValueError,
            r"student_hidden must be \(\.\.\., 4\) to fit student_head, got \(2, 3, 5\)",
        ),
        (
            {2: FEW},
            ValueError,
            r"teacher_hidden must be \(\.\.\., 3\) to fit teacher_head, got \(2, 3, 5\)",
        ),
        (
            {2: FEW[:1, :, :3]},
            ValueError,
            r"student_hidden \(2, 3, 4\) and teacher_hidden \(1, 3, 3\) must have the same",
        ),
        ({0: [[1.0]]}, TypeError, "student_hidden must be a floating-point tensor .*, got list"),
        (
            {2: FEW.long()},
            TypeError,
            "teacher_hidden must be a floating-point tensor .*, got torch.int64",
        ),
        (
            {3: nn.Linear(3, 12)},
            ValueError,
            "student_head and teacher_head must share .* 11 and 12 .*see kdlab.losses.uld",
        ),
        ({1: torch.zeros(11, 4)}, TypeError, "student_head must be a plain nn.Linear, got Tensor"),
        ({3: SCALED(3, 11)}, TypeError, "teacher_head must be a plain nn.Linear, got Scaled"),
        (
            {4: FEW.long()},
            ValueError,
            r"labels must have the shape of the rows \(2, 3\), got \(2, 3, 5\)",
        ),
        ({4: torch.full((2, 3), 11)}, ValueError, r"labels must lie in \[0, 11\)"),
        ({"chunk": 0}, ValueError, "chunk must be a whole number of at least 1, got 0"),
        (
            {"objective": TokenLoss(kd.jsd, beta=2)},
            ValueError,
            r"beta must be a number in \[0, 1\], got 2",
        ),
        (
            {"reduction": "rows"},
            ValueError,
            r"reduction must be one of \['mean', 'sum'\], got 'rows'",
        ),
        (
            {"objective": kd.KDLoss()},
            TypeError,
            r"objective must be a kdlab.TokenLoss, got KDLoss\(",
        ),
        (
            {"objective": TokenLoss(math.dist)},
            ValueError,
            r"objective must have .* of \['forward_kl', .*, got <built-in",
        ),
        ({0: NAN}, ValueError, "the logits of a token that counts hold NaN or"),
        ({2: NAN[..., :3]}, ValueError, "the logits of a token that counts hold NaN or"),
        (
            {0: NAN.nan_to_num(math.inf)},
            ValueError,
            "the logits of a token that counts hold NaN or",
        ),
    ],
    ids=range(18),
)
def test_what_does_not_fit_is_told(changed, error, words):
    case = [changed.get(i, x) for i, x in enumerate(example(2, 3))]
    with pytest.raises(error, match=f"^(linear_divergence|jsd): {words}"):
        linear_divergence(*case, **{k: v for k, v in changed.items() if isinstance(k, str)})


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++")
@pytest.mark.parametrize(
    "objective",
    [TokenLoss(kd.jsd, beta=0.3, alpha=0.5, temperature=2.0), TokenLoss()],
    ids=repr,
)
def test_compiled_it_gives_the_same(objective, monkeypatch):
    draw = torch.Generator().manual_seed(11)
    student, teacher = nn.Linear(6, 300), nn.Linear(9, 300, bias=False)
    h, h_teacher = (torch.randn(20, n, generator=draw) for n in (6, 9))
    labels = torch.randint(300, (20,), generator=draw)
    found = []
    for asked in "01":
        monkeypatch.setenv("KDLAB_COMPILE", asked)
        hidden = h.clone().requires_grad_()
        # two whole chunks and a short one, which is not compiled
        loss = linear_divergence(hidden, student, h_teacher, teacher, labels, objective, chunk=8)
        grads = torch.autograd.grad(loss, [hidden, *student.parameters()])
        found.append([loss.detach(), *grads])
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)
