"""Divergences against scipy and torch, by finite differences, and by the properties that make them
divergences."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from torch.autograd import gradcheck
from values import logits, value_and_grad

import kdlab as kd

# a reference for each, from probabilities (B, V), student q, teacher p; its value by hand for p =
# (¾, ¼), q = (½, ½)
SIX = {
    "forward_kl": (lambda q, p: entropy(p, q, axis=-1), 0.130812),
    "reverse_kl": (lambda q, p: entropy(q, p, axis=-1), 0.143841),
    "jsd": (lambda q, p: jensenshannon(p, q, axis=-1) ** 2, 0.033822),
    "skew_forward_kl": (lambda q, p: special.rel_entr(p, 0.1 * p + 0.9 * q).sum(-1), 0.107043),
    "skew_reverse_kl": (lambda q, p: special.rel_entr(q, 0.1 * q + 0.9 * p).sum(-1), 0.113137),
    "tvd": (lambda q, p: np.clip(p - q, 0, None).sum(-1), 0.25),
}
six = pytest.mark.parametrize("name", SIX)
quick = settings(max_examples=40)


@st.composite
def pairs(draw, size=20):
    """Student and teacher logits (B, V) in float64."""
    shape = draw(st.tuples(st.integers(2, 6), st.integers(2, 7)))
    values = arrays(np.float64, shape, elements=st.floats(-size, size, width=32))
    return torch.from_numpy(draw(values)), torch.from_numpy(draw(values))


@six
def test_two_classes_by_hand(name):
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])
    assert getattr(kd, name)(student, teacher).item() == pytest.approx(SIX[name][1], abs=1e-6)


@six
@pytest.mark.parametrize("T", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("V", [5, 100])
def test_scipy_agrees(name, T, V):
    s, t = logits(7, V, seed=1), logits(7, V, seed=2)
    q, p = special.softmax(s.numpy() / T, -1), special.softmax(t.numpy() / T, -1)
    rows = getattr(kd, name)(s, t, temperature=T, reduction="rows")
    np.testing.assert_allclose(rows.numpy(), SIX[name][0](q, p), rtol=1e-9)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl"])
@pytest.mark.parametrize("V", [5, 100])
def test_torch_kl_div_agrees_in_value_and_gradient(name, V):
    s, t, T = logits(7, V, seed=1), logits(7, V, seed=2), 2.5

    def reference(s):
        a, b = F.log_softmax(s / T, -1), F.log_softmax(t / T, -1)
        return F.kl_div(
            *((a, b) if name == "forward_kl" else (b, a)), reduction="batchmean", log_target=True
        )

    ours = value_and_grad(getattr(kd, name), s, t, temperature=T)
    torch.testing.assert_close(ours, value_and_grad(reference, s), rtol=1e-10, atol=1e-14)


@six
def test_gradcheck(name):
    s, t = logits(3, 4, seed=1).requires_grad_(), logits(3, 4, seed=2).requires_grad_()
    mask = torch.tensor([True, False, True])
    assert gradcheck(lambda s, t: getattr(kd, name)(s, t, temperature=1.7, mask=mask), (s, t))


@six
@quick
@given(pairs())
def test_zero_at_equality_and_never_negative(name, pair):
    (s, t), of = pair, getattr(kd, name)
    assert of(t, t).item() == pytest.approx(0, abs=1e-12)
    for student in (s, t + 1e-4 * s):  # also nearly equal, in float32, where rounding is largest
        assert of(student, t, reduction="rows").min() >= 0
        assert of(student.float(), t.float(), reduction="rows").min() >= 0
    if (special.softmax(s.numpy(), -1) - special.softmax(t.numpy(), -1)).std() > 0.01:
        assert of(s, t) > 1e-5


@six
@quick
@given(pairs(), st.randoms(use_true_random=False), st.floats(-50, 50))
def test_order_of_classes_and_a_shift_change_nothing(name, pair, random, shift):
    (s, t), of = pair, getattr(kd, name)
    order = random.sample(range(s.shape[-1]), s.shape[-1])
    expected = pytest.approx(of(s, t).item(), rel=1e-7, abs=1e-9)
    assert of(s[:, order], t[:, order]).item() == expected
    assert of(s + shift, t).item() == expected
    assert of(s, t - shift).item() == expected


@six
@quick
@given(pairs(), st.integers(1, 4), st.sampled_from([math.nan, math.inf, -math.inf, 1e30]))
def test_masked_rows_and_padded_vocabulary_change_nothing(name, pair, extra, anything):
    (s, t), of, (B, V) = pair, getattr(kd, name), pair[0].shape
    value, grad = value_and_grad(of, s, t)
    junk = torch.full((extra, V), anything, dtype=s.dtype)
    mask = torch.arange(B + extra) < B
    padded = value_and_grad(of, torch.cat([s, junk]), torch.cat([t, junk]), mask=mask)
    torch.testing.assert_close(padded, (value, torch.cat([grad, torch.zeros_like(junk)])))
    off = torch.full((B, extra), -math.inf, dtype=s.dtype)
    padded = value_and_grad(of, torch.cat([s, off], 1), torch.cat([t, off], 1))
    torch.testing.assert_close(padded, (value, torch.cat([grad, torch.zeros_like(off)], 1)))


@six
@quick
@given(pairs(), st.data())
def test_parts_averaged_by_their_counts_are_the_whole(name, pair, data):
    (s, t), of, B = pair, getattr(kd, name), len(pair[0])
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=B, max_size=B)))
    cut = data.draw(st.integers(1, B - 1))
    parts = [
        of(s[i], t[i], mask=mask[i]).item() * mask[i].sum().item()
        for i in (slice(cut), slice(cut, None))
    ]
    assert of(s, t, mask=mask).item() * mask.sum().item() == pytest.approx(
        sum(parts), rel=1e-9, abs=1e-12
    )


@quick
@given(pairs(size=200))
def test_bounds(pair):
    s, t = (z.float() for z in pair)
    assert (
        0 <= kd.tvd(s, t, reduction="rows").min()
        and kd.tvd(s, t, reduction="rows").max() <= 1 + 1e-6
    )
    assert kd.jsd(s, t, reduction="rows").max() <= math.log(2) + 1e-6
    assert kd.skew_forward_kl(s, t, skew=0.1, reduction="rows").max() <= math.log(10) + 1e-5
    assert kd.skew_reverse_kl(s, t, skew=0.1, reduction="rows").max() <= math.log(10) + 1e-5


@six
def test_all_rows_masked_is_exactly_zero_with_zero_gradients(name):
    s, t = logits(3, 4), torch.full((3, 4), math.nan)
    value, grad = value_and_grad(getattr(kd, name), s, t, mask=torch.zeros(3, dtype=torch.bool))
    assert value.item() == 0 and torch.equal(grad, torch.zeros(3, 4, dtype=torch.float64))


@six
@pytest.mark.parametrize("where", ["student", "teacher", "both", "each another class"])
@pytest.mark.parametrize("V", [5, 100])
def test_classes_ruled_out_give_finite_gradients(name, where, V):
    s, t = logits(4, V, seed=1), logits(4, V, seed=2)
    if where != "teacher":
        s[:, 0] = -math.inf
    if where != "student":
        t[:, 1 if where.startswith("each") else 0] = -math.inf
    rows = getattr(kd, name)(
        s.requires_grad_(), t.requires_grad_(), temperature=2.0, reduction="rows"
    )
    assert all(g.isfinite().all() for g in torch.autograd.grad(rows.sum(), (s, t)))
    expected = SIX[name][0](*(special.softmax(z.detach().numpy() / 2, -1) for z in (s, t)))
    for ours, reference in zip(
        rows.tolist(), expected, strict=True
    ):  # finite, however large, where KL is infinite
        assert (
            1e20 < ours < math.inf
            if np.isinf(reference)
            else ours == pytest.approx(reference, rel=1e-9)
        )


@six
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name, dtype):
    s, t = logits(50, 30, seed=1).to(dtype), logits(50, 30, seed=2).to(dtype)
    s[:, 3] = t[:, 3] = -math.inf
    value = getattr(kd, name)(s, t, temperature=3.0)
    q, p = (special.softmax(z.double().numpy() / 3, -1) for z in (s, t))
    assert value.dtype == torch.float32 and value.item() == pytest.approx(
        SIX[name][0](q, p).mean(), rel=1e-5
    )


@six
def test_a_temperature_a_replica_equals_separate_calls(name):
    s, t, T = logits(3, 5, 4, seed=1), logits(3, 5, 4, seed=2), torch.tensor([1.0, 4.0, 20.0])
    rows = getattr(kd, name)(s, t, temperature=T[:, None, None], reduction="rows")
    alone = [
        getattr(kd, name)(s[r], t[r], temperature=T[r].item(), reduction="rows") for r in range(3)
    ]
    torch.testing.assert_close(rows, torch.stack(alone), rtol=1e-12, atol=1e-12)


def test_jsd_between_the_two_kls():
    s, t = logits(6, 5, seed=1), logits(6, 5, seed=2)
    torch.testing.assert_close(kd.jsd(s, t, beta=0), kd.forward_kl(s, t))
    torch.testing.assert_close(kd.jsd(s, t, beta=1), kd.reverse_kl(s, t))
    torch.testing.assert_close(kd.jsd(s, t, beta=0.5), kd.jsd(t, s, beta=0.5))
    q, p = special.softmax(s.numpy(), -1), special.softmax(t.numpy(), -1)
    for beta in (0.1, 0.7):  # beta weights the teacher
        m = beta * p + (1 - beta) * q
        expected = beta * entropy(p, m, axis=-1) + (1 - beta) * entropy(q, m, axis=-1)
        np.testing.assert_allclose(
            kd.jsd(s, t, beta=beta, reduction="rows").numpy(), expected, rtol=1e-9
        )
    assert (
        kd.jsd(s, t, beta=1e-6) < 1e-4 and kd.jsd(s, t, beta=1 - 1e-6) < 1e-4
    )  # the formula, not the convention


def test_skew_goes_from_kl_to_nothing():
    s, t = logits(6, 5, seed=1), logits(6, 5, seed=2)
    for skewed, plain in [(kd.skew_forward_kl, kd.forward_kl), (kd.skew_reverse_kl, kd.reverse_kl)]:
        torch.testing.assert_close(skewed(s, t, skew=0), plain(s, t))
        torch.testing.assert_close(skewed(s, t, skew=1e-9), plain(s, t), rtol=1e-4, atol=0)
        assert skewed(s, t, skew=1).item() == 0 and 0 < skewed(s, t, skew=0.999) < 1e-4


Z = torch.zeros(2, 3)
BAD = [
    *[
        ({"temperature": T}, ValueError, f"temperature must be above 0 and finite, got {T}")
        for T in (0, -2.0, math.nan, math.inf)
    ],
    (
        {"temperature": torch.tensor([1.0, -1.0])},
        ValueError,
        "temperature must be above 0 and finite, got tensor",
    ),
    (
        {"teacher_logits": torch.zeros(2, 4)},
        ValueError,
        r"student_logits \(2, 3\) and teacher_logits \(2, 4\) must share the vocabulary axis",
    ),
    (
        {"teacher_logits": torch.zeros(1, 3)},
        ValueError,
        r"student_logits \(2, 3\) and teacher_logits \(1, 3\) must have the same shape",
    ),
    (
        {"student_logits": Z.long()},
        TypeError,
        "student_logits must be a floating-point tensor .*, got torch.int64",
    ),
    (
        {"teacher_logits": [[0.0] * 3] * 2},
        TypeError,
        "teacher_logits must be a floating-point tensor .*, got list",
    ),
    (
        {"student_logits": Z + math.nan},
        ValueError,
        "student_logits holds 6 NaN or .inf values; expected finite",
    ),
    (
        {"teacher_logits": Z + math.inf},
        ValueError,
        "teacher_logits holds 6 NaN or .inf values; expected finite",
    ),
    (
        {"teacher_logits": Z - math.inf},
        ValueError,
        "teacher_logits rules out every class in 2 rows; expected",
    ),
    (
        {"mask": torch.ones(3)},
        ValueError,
        r"mask must have the shape of the rows \(2,\), got \(3,\)",
    ),
    ({"reduction": "sum"}, ValueError, "reduction must be 'mean' or 'rows', got 'sum'"),
]


@six
@pytest.mark.parametrize("changes, error, words", BAD, ids=[words[:40] for _, _, words in BAD])
def test_bad_input_is_named(name, changes, error, words):
    with pytest.raises(error, match=f"^{name}: {words}"):
        getattr(kd, name)(**{"student_logits": Z, "teacher_logits": Z} | changes)


@pytest.mark.parametrize(
    "name, key", [("jsd", "beta"), ("skew_forward_kl", "skew"), ("skew_reverse_kl", "skew")]
)
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_shares_lie_between_0_and_1(name, key, value):
    with pytest.raises(
        ValueError, match=rf"^{name}: {key} must be a number in \[0, 1\], got {value}"
    ):
        getattr(kd, name)(Z, Z, **{key: value})


@six
@settings(max_examples=15)
@given(
    shape=st.lists(st.sampled_from([1, 2, 3, 4]), max_size=3) | st.just([5, 2, 1, 1]),
    as_array=st.booleans(),
)
def test_a_temperature_of_any_shape_is_one_a_row_or_refused(name, shape, as_array):
    s, t, of = logits(2, 3, 4, seed=1), logits(2, 3, 4, seed=2), getattr(kd, name)
    T = np.linspace(1.0, 3.0, math.prod(shape)).reshape(shape)
    given_T = T if as_array else torch.from_numpy(T)
    if shape in ([], [1], [1, 1], [3, 1], [1, 1, 1], [2, 1, 1], [1, 3, 1], [2, 3, 1]):
        q, p = (special.softmax(z.numpy() / T, -1) for z in (s, t))
        np.testing.assert_allclose(
            of(s, t, temperature=given_T, reduction="rows"), SIX[name][0](q, p), rtol=1e-8
        )
    else:
        with pytest.raises(ValueError, match=f"^{name}: temperature must "):
            of(s, t, temperature=given_T)


@six
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64])
def test_a_mask_of_true_and_false_or_1_and_0_keeps_the_same_rows(name, dtype):
    s, t = logits(4, 3, seed=1), logits(4, 3, seed=2)
    q, p = (special.softmax(z.numpy()[[0, 3]], -1) for z in (s, t))
    found = getattr(kd, name)(s, t, mask=torch.tensor([1, 0, 0, 1]).to(dtype))
    np.testing.assert_allclose(found, SIX[name][0](q, p).mean(), rtol=1e-8)


@six
@pytest.mark.parametrize(
    "mask", [[1, -100], [2, 0], [-1, 1], [0.0, 1.0], [0.0, -math.inf], [1j, 0]]
)
def test_what_only_looks_like_a_mask_is_refused(name, mask):
    """Labels with −100 and the additive masks of attention (0 counts) would otherwise keep the
    wrong rows."""
    with pytest.raises(
        (TypeError, ValueError), match=f"^{name}: mask must hold true and false, or .* 1 and 0, got"
    ):
        getattr(kd, name)(Z, Z, mask=torch.tensor(mask))


@six
def test_logits_without_a_class_are_refused(name):
    with pytest.raises(
        ValueError, match=f"^{name}: student_logits must have the shape .* class or more, got"
    ):
        getattr(kd, name)(torch.zeros(3, 0), torch.zeros(3, 0))
