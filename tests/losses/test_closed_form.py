"""The closed form against autograd through the same formula written out, in value and gradient."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import kdlab as kd
from kdlab.losses import closed_form

V = 97  # above closed_form's shortest row


def kl(log_p, log_q):
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def mixture(a, b, share):
    return (share * a.exp() + (1 - share) * b.exp()).log()


# each from log p (teacher) and log q (student), as in its paper
WRITTEN = {
    "forward_kl": lambda p, q: kl(p, q),
    "reverse_kl": lambda p, q: kl(q, p),
    "jsd": lambda p, q, beta: (
        beta * kl(p, mixture(p, q, beta)) + (1 - beta) * kl(q, mixture(p, q, beta))
    ),
    "skew_forward_kl": lambda p, q, skew: kl(p, mixture(p, q, skew)),
    "skew_reverse_kl": lambda p, q, skew: kl(q, mixture(q, p, skew)),
    "tvd": lambda p, q: 0.5 * (p.exp() - q.exp()).abs().sum(-1),
}
OPTIONS = {"jsd": {"beta": 0.3}, "skew_forward_kl": {"skew": 0.2}, "skew_reverse_kl": {"skew": 0.2}}
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2}
each_divergence = pytest.mark.parametrize("name", WRITTEN)


def example(seed, rows=7, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    both = torch.randn(2, rows, V, dtype=torch.float64, generator=draw).mul(3).to(dtype)
    return both[0].requires_grad_(), both[1], torch.randint(V, (rows,), generator=draw)


def written_out(name, student, teacher, T):
    """The rows' values and the gradient of their weighted sum, in float64 by autograd."""
    z = student.detach().double().requires_grad_()
    p, q = ((x.double() / T).log_softmax(-1) for x in (teacher, z))
    rows = WRITTEN[name](p, q, **OPTIONS.get(name, {}))
    weights = torch.arange(1.0, len(rows) + 1, dtype=torch.double)
    return rows.detach(), torch.autograd.grad((weights * rows).sum(), z)[0], weights


@each_divergence
@given(
    seed=st.integers(0, 99),
    T=st.sampled_from([0.5, 1.0, 4.0]),
    dtype=st.sampled_from(list(TOLERANCE)),
    at_once=st.sampled_from([1, 2 * V, 10**6]),
)
def test_value_and_gradient_are_those_of_the_formula(name, seed, T, dtype, at_once):
    student, teacher, _ = example(seed, dtype=dtype)
    rows, slope, weights = written_out(name, student, teacher, T)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(closed_form.AT_ONCE, "cpu", at_once)
        found = getattr(kd, name)(
            student, teacher, temperature=T, reduction="rows", **OPTIONS.get(name, {})
        )
    found.backward(weights.to(found.dtype))
    scale = 1 + slope.abs().max()
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(found.double(), rows, rtol=1e-5, atol=TOLERANCE[dtype])
    assert student.grad.dtype == dtype
    assert (student.grad.double() - slope).abs().max() < 10 * TOLERANCE[dtype] * scale


@each_divergence
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), float("-inf"), 1e30])
def test_a_masked_row_may_hold_anything(name, junk):
    student, teacher, _ = example(0)
    mask = torch.tensor([1, 0, 1, 1, 0, 1, 1]).bool()
    spoilt = student.detach().clone()
    spoilt[1], spoilt[4] = junk, -junk
    spoilt.requires_grad_()
    options = OPTIONS.get(name, {})
    found = getattr(kd, name)(spoilt, teacher, mask=mask, **options)
    found.backward()
    expected = getattr(kd, name)(student[mask], teacher[mask], **options)
    expected.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(spoilt.grad, student.grad)
    assert not spoilt.grad[~mask].any()


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_or_none_that_counts_is_zero_without_gradient(rows):
    z = torch.zeros(rows, V, requires_grad=True)
    mask = torch.zeros(rows, dtype=torch.bool)
    loss = kd.forward_kl(z, torch.ones(rows, V), mask=mask)
    loss.backward()
    assert loss.item() == 0 and not z.grad.any()


@each_divergence
def test_classes_that_both_rule_out_change_nothing(name):
    student, teacher, _ = example(1)
    wider = [F.pad(z.detach(), (0, 5), value=float("-inf")) for z in (student, teacher)]
    wide, options = wider[0].requires_grad_(), OPTIONS.get(name, {})
    found = getattr(kd, name)(wide, wider[1], **options)
    expected = getattr(kd, name)(student, teacher, **options)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(wide.grad[:, :-5], student.grad)
    assert not wide.grad[:, -5:].any()


@pytest.mark.parametrize(
    "bad, words", [("nan", "1 NaN or"), ("inf", "1 NaN or"), ("-inf", "rules")]
)
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_no_distribution_is_named(bad, words, side):
    both = [z.detach().clone() for z in example(2)[:2]]
    both[side][3, slice(None) if bad == "-inf" else 5] = float(bad)
    name = ("student_logits", "teacher_logits")[side]
    with pytest.raises(ValueError, match=f"^forward_kl: {name} .*{words}"):
        kd.forward_kl(*both)


def test_cross_entropy_is_torch_s_and_leaves_out_what_has_no_label():
    student, _, labels = example(3)
    labels[2] = -100
    with torch.no_grad():
        student[2] = float("nan")
    found = kd.HardLabels()(student, None, labels)
    found.backward()
    clean = student.detach().nan_to_num().requires_grad_()
    expected = F.cross_entropy(clean, labels)
    expected.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(student.grad, clean.grad)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("make", [kd.KDLoss, kd.TokenLoss])
def test_the_losses_on_it_are_torch_s(make, alpha):
    student, teacher, labels = example(4)
    loss = make(temperature=2.0, alpha=alpha)(student, teacher, labels)
    (slope,) = torch.autograd.grad(loss, student)
    z = student.detach().requires_grad_()
    p, q = ((x / 2).log_softmax(-1) for x in (teacher, z))
    soft = F.kl_div(q, p, log_target=True, reduction="batchmean")
    expected = alpha * 4 * soft + (1 - alpha) * F.cross_entropy(z, labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(slope, torch.autograd.grad(expected, z)[0])


def test_where_it_cannot_be_taken_autograd_is():
    student, teacher, _ = example(5)
    z = student.detach()
    by_func = grad(lambda z: kd.forward_kl(z, teacher))(z)
    (by_hand,) = torch.autograd.grad(kd.forward_kl(student, teacher), student)
    torch.testing.assert_close(by_func, by_hand)
    T = torch.linspace(1, 3, 7, dtype=torch.double)[:, None]  # a temperature a row
    rows = kd.forward_kl(z, teacher, temperature=T, reduction="rows")
    each = [kd.forward_kl(z[[i]], teacher[[i]], temperature=T[i].item()) for i in range(7)]
    torch.testing.assert_close(rows, torch.stack(each))
    taught = teacher.clone().requires_grad_()  # a teacher that learns
    kd.forward_kl(z, taught).backward()
    assert taught.grad.abs().sum() > 0


def test_it_is_not_differentiated_again_in_silence():
    student, teacher, _ = example(6)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        torch.autograd.grad(kd.forward_kl(student, teacher), student, create_graph=True)


def test_leading_axes_of_any_kind_and_layout():
    draw = torch.Generator().manual_seed(7)
    z, t = torch.randn(2, V, 3, 2, dtype=torch.double, generator=draw)
    z = z.requires_grad_()
    found = kd.forward_kl(z.permute(1, 2, 0), t.permute(1, 2, 0), reduction="rows")
    assert found.shape == (3, 2)
    found.sum().backward()
    flat = z.detach().permute(1, 2, 0).reshape(6, V).requires_grad_()
    kd.forward_kl(flat, t.permute(1, 2, 0).reshape(6, V), reduction="rows").sum().backward()
    torch.testing.assert_close(z.grad.permute(1, 2, 0).reshape(6, V), flat.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_nothing_but_its_own_rounding(dtype):
    student, teacher, _ = example(8, rows=1000, dtype=dtype)
    scale = 2.0**14  # a gradient scaler's: small slopes in float16 live by it
    (found,) = torch.autograd.grad(scale * kd.forward_kl(student, teacher), student)
    wide = student.detach().float().requires_grad_()
    (exact,) = torch.autograd.grad(scale * kd.forward_kl(wide, teacher.float()), wide)
    kept = exact.abs() > torch.finfo(dtype).tiny
    ratio = found.double()[kept] / exact.double()[kept]
    assert (ratio - 1).abs().max() < 2.5 * torch.finfo(dtype).eps
    assert (ratio.mean() - 1).abs() < 1e-4  # the mean's 1 / 1000 is not rounded to half precision
    assert (found[~kept].abs() <= torch.finfo(dtype).tiny).all()


@pytest.mark.parametrize(
    "dtypes", [(torch.float32, torch.float64), (torch.float64, torch.bfloat16)]
)
@each_divergence
def test_the_two_sides_may_differ_in_precision(name, dtypes):
    student, teacher, _ = example(9)
    both = student.detach().to(dtypes[0]).requires_grad_(), teacher.to(dtypes[1])
    options = OPTIONS.get(name, {})
    found = getattr(kd, name)(*both, **options)
    found.backward()
    expected = getattr(kd, name)(both[0].detach().double(), both[1].double(), **options)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert both[0].grad.dtype == dtypes[0]


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_in_the_backward_pass_it_has_the_same_gradient(reentrant):
    student, teacher, _ = example(10)
    (expected,) = torch.autograd.grad(kd.forward_kl(student, teacher), student)
    checkpoint(kd.forward_kl, student, teacher, use_reentrant=reentrant).backward()
    assert torch.equal(student.grad, expected)


def test_within_a_compiled_function_it_has_the_same_gradient():
    student, teacher, _ = example(11)
    (expected,) = torch.autograd.grad(kd.forward_kl(student, teacher), student)
    loss = torch.compile(lambda z, t: kd.forward_kl(z, t), backend="aot_eager")(student, teacher)
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], expected)
