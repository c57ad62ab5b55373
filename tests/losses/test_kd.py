"""Objectives against torch and sklearn in float64, by closed-form gradients, and by the rules of
design.md."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss
from torch.autograd import gradcheck

from kdlab import DKDLoss, HardLabels, KDLoss, LabelSmoothing

quick = settings(max_examples=40)
OBJECTIVES = [
    KDLoss(4.0, 0.9),
    KDLoss(2.0, 1.0, scale="none"),
    KDLoss(3.0, 0.0),
    HardLabels(),
    LabelSmoothing(0.1),
]
every = pytest.mark.parametrize(
    "loss", OBJECTIVES, ids=["kd", "kd unscaled", "kd alpha 0", "hard", "smoothing"]
)


def batch(*shape, seed=0):
    """Student and teacher logits (..., C) in float64 and labels (...)."""
    g = torch.Generator().manual_seed(seed)
    s, t = 3 * torch.randn(2, *shape, generator=g, dtype=torch.float64)
    return s, t, torch.randint(shape[-1], shape[:-1], generator=g)


@st.composite
def batches(draw):
    shape = draw(st.tuples(st.integers(2, 6), st.integers(2, 5)))
    values = arrays(np.float64, shape, elements=st.floats(-20, 20, width=32))
    labels = arrays(np.int64, shape[:1], elements=st.sampled_from([-100, *range(shape[1])]))
    return tuple(torch.from_numpy(draw(x)) for x in (values, values, labels))


def gradient(loss, s, *args, **options):
    s = s.clone().requires_grad_()
    return torch.autograd.grad(loss(s, *args, **options), s)[0]


@pytest.mark.parametrize("T", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("scale", ["T2", "none"])
def test_kd_loss_is_torch_kl_div_and_cross_entropy(T, alpha, scale):
    s, t, y = batch(6, 5)
    soft = F.kl_div(F.log_softmax(s / T, -1), F.softmax(t / T, -1), reduction="batchmean")
    expected = alpha * (T**2 if scale == "T2" else 1) * soft + (1 - alpha) * F.cross_entropy(s, y)
    torch.testing.assert_close(KDLoss(T, alpha, scale)(s, t, y), expected, rtol=1e-10, atol=1e-12)
    q, q1, p = softmax(s / T, -1), softmax(s, -1), softmax(t / T, -1)
    by_hand = alpha * (T if scale == "T2" else 1 / T) * (q - p) + (1 - alpha) * (q1 - np.eye(5)[y])
    np.testing.assert_allclose(gradient(KDLoss(T, alpha, scale), s, t, y), by_hand / 6, atol=1e-12)


def test_labels_alone_are_torch_and_sklearn():
    s, _, y = batch(6, 5)
    assert HardLabels()(s, None, y).item() == pytest.approx(
        log_loss(y, softmax(s, -1), labels=range(5)), rel=1e-9
    )
    for epsilon in (0.0, 0.1, 0.5):
        expected = F.cross_entropy(s, y, label_smoothing=epsilon)
        torch.testing.assert_close(LabelSmoothing(epsilon)(s, None, y), expected)
    assert (
        not HardLabels().needs_teacher
        and not LabelSmoothing().needs_teacher
        and KDLoss().needs_teacher
    )


@every
def test_gradcheck(loss):
    s, t, y = batch(4, 3)
    y[1] = -100
    assert gradcheck(lambda s, t: loss(s, t, y), (s.requires_grad_(), t.requires_grad_()))


def test_t_squared_keeps_the_size_of_the_gradient():
    s, t, y = batch(8, 10)
    norm = {
        (T, scale): gradient(KDLoss(T, 1.0, scale), s, t, y).norm().item()
        for T in (1, 4, 16, 64, 256)
        for scale in ("T2", "none")
    }
    for T in (4, 16, 64, 256):
        assert 1 / 3 < norm[T, "T2"] / norm[1, "T2"] < 3
        assert norm[T, "none"] * T**2 == pytest.approx(norm[T, "T2"])
    assert norm[256, "none"] / norm[64, "none"] == pytest.approx(1 / 16, rel=0.05)
    assert norm[256, "T2"] / norm[64, "T2"] == pytest.approx(1, rel=0.05)


def test_a_high_temperature_is_matching_logits():
    s, t, y = batch(8, 10)
    matching = ((s - s.mean(-1, keepdim=True)) - (t - t.mean(-1, keepdim=True))) / 10
    torch.testing.assert_close(
        gradient(KDLoss(1e5, 1.0), s, t, y), matching / 8, rtol=1e-3, atol=1e-5
    )


@quick
@given(batches(), st.floats(0.5, 20))
def test_soft_term_is_zero_at_equality_and_never_negative(rows, T):
    s, t, y = rows
    loss = KDLoss(T, 1.0)
    assert loss(t, t, y).item() == pytest.approx(0, abs=1e-9)
    for student in (s, t + 1e-4 * s):
        assert loss(student, t, y, reduction="rows").min() >= 0
        assert loss(student.float(), t.float(), y, reduction="rows").min() >= 0


@every
@quick
@given(batches(), st.randoms(use_true_random=False), st.floats(-50, 50))
def test_order_of_classes_and_a_shift_change_nothing(loss, rows, random, shift):
    s, t, y = rows
    order = torch.tensor(random.sample(range(s.shape[-1]), s.shape[-1]))
    expected = pytest.approx(loss(s, t, y).item(), rel=1e-7, abs=1e-9)
    assert (
        loss(
            s[:, order], t[:, order], torch.where(y < 0, y, order.argsort()[y.clamp_min(0)])
        ).item()
        == expected
    )
    assert loss(s + shift, t - shift, y).item() == expected


@every
@quick
@given(batches(), st.integers(1, 3), st.sampled_from([math.nan, math.inf, -math.inf]))
def test_rows_that_do_not_count_change_nothing(loss, rows, extra, anything):
    s, t, y = rows
    junk = torch.full((extra, s.shape[1]), anything, dtype=s.dtype)
    more = torch.cat([s, junk]), torch.cat([t, junk])
    grad = torch.cat([gradient(loss, s, t, y), torch.zeros_like(junk)])
    for label, mask in [
        (-100, None),
        (0, torch.cat([y >= 0, torch.zeros(extra, dtype=torch.bool)])),
    ]:
        labels = torch.cat([y, torch.full((extra,), label)])
        torch.testing.assert_close(loss(*more, labels, mask=mask), loss(s, t, y))
        torch.testing.assert_close(gradient(loss, *more, labels, mask=mask), grad)


@every
@quick
@given(batches(), st.data())
def test_parts_averaged_by_their_counts_are_the_whole(loss, rows, data):
    s, t, y = rows
    cut = data.draw(st.integers(1, len(y) - 1))
    parts = [
        loss(s[i], t[i], y[i]).item() * (y[i] >= 0).sum().item()
        for i in (slice(cut), slice(cut, None))
    ]
    assert loss(s, t, y).item() * (y >= 0).sum().item() == pytest.approx(
        sum(parts), rel=1e-9, abs=1e-9
    )


@every
def test_no_row_that_counts_is_exactly_zero_with_zero_gradients(loss):
    s, t, y = batch(3, 4)
    for labels, mask in [(torch.full_like(y, -100), None), (y, torch.zeros(3, dtype=torch.bool))]:
        assert loss(s, t, labels, mask=mask).item() == 0
        assert torch.equal(gradient(loss, s, t, labels, mask=mask), torch.zeros_like(s))


def test_minus_100_is_torch_ignore_index_and_an_unlabelled_row_keeps_its_soft_term():
    s, t, y = batch(6, 5)
    y[2:4] = -100
    torch.testing.assert_close(HardLabels()(s, None, y), F.cross_entropy(s, y, ignore_index=-100))
    T, alpha = 3.0, 0.7
    rows = KDLoss(T, alpha)(s, t, y, mask=torch.ones(6, dtype=torch.bool), reduction="rows")
    log_q, log_p = log_softmax(s / T, -1), log_softmax(t / T, -1)
    soft = alpha * T**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1)
    hard = [
        0 if label < 0 else -(1 - alpha) * log_softmax(z)[label]
        for z, label in zip(s.numpy(), y, strict=True)
    ]
    np.testing.assert_allclose(rows, soft + np.array(hard), rtol=1e-9)


@every
def test_classes_ruled_out_give_finite_gradients(loss):
    s, t, y = batch(4, 6)
    y = y.clamp_min(1)
    off = torch.full((4, 1), -math.inf, dtype=s.dtype)
    for student, teacher in [(off, off), (off, t[:, :1]), (s[:, :1], off)]:
        student, teacher = torch.cat([student, s[:, 1:]], 1), torch.cat([teacher, t[:, 1:]], 1)
        assert (
            loss(student, teacher, y).isfinite()
            and gradient(loss, student, teacher, y).isfinite().all()
        )


@every
def test_bfloat16_is_computed_in_float32(loss):
    s, t, y = batch(50, 30)
    s, t = s.bfloat16(), t.bfloat16()
    assert loss(s, t, y).dtype == torch.float32
    assert loss(s, t, y).item() == pytest.approx(loss(s.double(), t.double(), y).item(), rel=1e-5)


def test_temperature_and_alpha_a_replica_equal_separate_calls():
    s, t, y = batch(3, 5, 4)
    T, alpha = torch.tensor([1.0, 4.0, 20.0]), torch.tensor([0.0, 0.5, 1.0])
    stacked = KDLoss(T[:, None, None], alpha[:, None, None])
    alone = [KDLoss(T[r].item(), alpha[r].item()) for r in range(3)]
    rows = torch.stack([loss(s[r], t[r], y[r], reduction="rows") for r, loss in enumerate(alone)])
    torch.testing.assert_close(stacked(s, t, y, reduction="rows"), rows)
    grads = torch.stack([gradient(loss, s[r], t[r], y[r]) for r, loss in enumerate(alone)])
    torch.testing.assert_close(gradient(stacked, s, t, y) * 3, grads)


Z, Y = torch.zeros(2, 3), torch.tensor([0, 2])
BAD = [
    (
        {"labels": torch.tensor([0, 3])},
        ValueError,
        r"labels must lie in \[0, 3\) or be −100 .*, got 3",
    ),
    (
        {"labels": torch.tensor([-1, 0])},
        ValueError,
        r"labels must lie in \[0, 3\) or be −100 .*, got -1",
    ),
    (
        {"labels": torch.tensor([0.0, 1.0])},
        TypeError,
        "labels must be an integer tensor, got torch.float32",
    ),
    (
        {"labels": torch.tensor([True, False])},
        TypeError,
        "labels must be an integer tensor, got torch.bool",
    ),
    ({"labels": [0, 1]}, TypeError, "labels must be an integer tensor, got list"),
    ({"labels": Y[:1]}, ValueError, r"labels must have the shape of the rows \(2,\), got \(1,\)"),
    (
        {"labels": Y[:1], "mask": Y >= 0},
        ValueError,
        r"labels must have the shape of the rows \(2,\), got \(1,\)",
    ),
    ({"labels": [0, 1], "mask": Y >= 0}, TypeError, "labels must be an integer tensor, got list"),
    ({"student_logits": Z + math.nan}, ValueError, "student_logits holds 6 NaN or .inf values"),
    ({"student_logits": Z + math.inf}, ValueError, "student_logits holds 6 NaN or .inf values"),
    (
        {"student_logits": Z.int()},
        TypeError,
        "student_logits must be a floating-point tensor .*, got torch.int32",
    ),
    (
        {"student_logits": [[0.0]]},
        TypeError,
        "student_logits must be a floating-point tensor .*, got list",
    ),
    (
        {"mask": torch.ones(3)},
        ValueError,
        r"mask must have the shape of the rows \(2,\), got \(3,\)",
    ),
    ({"mask": [True, True]}, ValueError, r"mask must have the shape of the rows \(2,\), got list"),
    ({"reduction": "sum"}, ValueError, "reduction must be 'mean' or 'rows', got 'sum'"),
]


@pytest.mark.parametrize(
    "loss", [KDLoss(), HardLabels(), LabelSmoothing()], ids=["kd", "hard", "smoothing"]
)
@pytest.mark.parametrize("changes, error, words", BAD)
def test_bad_input_is_named(loss, changes, error, words):
    with pytest.raises(error, match=f"^{type(loss).__name__}: {words}"):
        loss(**{"student_logits": Z, "teacher_logits": Z, "labels": Y} | changes)


@pytest.mark.parametrize(
    "make, words",
    [
        *[
            (
                lambda T=T: KDLoss(temperature=T),
                f"KDLoss: temperature must be above 0 and finite, got {T}",
            )
            for T in (0, -1.0, math.nan, math.inf)
        ],
        *[
            (lambda a=a: KDLoss(alpha=a), rf"KDLoss: alpha must lie in \[0, 1\], got {a}")
            for a in (-0.1, 1.1, math.nan)
        ],
        (
            lambda: KDLoss(alpha=torch.tensor([0.5, 2.0])),
            r"KDLoss: alpha must lie in \[0, 1\], got tensor",
        ),
        (
            lambda: KDLoss(scale="T"),
            "KDLoss: scale must be 'T2', 'none' or a number above 0, got 'T'",
        ),
        (
            lambda: LabelSmoothing(1.0),
            r"LabelSmoothing: epsilon must be a finite number at least 0 and below 1, got 1.0",
        ),
        (
            lambda: KDLoss()(Z, torch.zeros(2, 4), Y),
            r"KDLoss: student_logits \(2, 3\) and teacher_logits \(2, 4\) must",
        ),
        (lambda: KDLoss()(Z, Z + math.nan, Y), "KDLoss: teacher_logits holds 6 NaN"),
        (
            lambda: KDLoss()(Z, None, Y),
            "KDLoss: teacher_logits must be a floating-point tensor .*, got NoneType",
        ),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises((ValueError, TypeError), match=f"^{words}"):
        make()


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["array", "tensor"])
def test_a_temperature_and_an_alpha_a_replica_come_as_tensors_or_arrays(kind):
    s, t, y = batch(2, 5, 3)
    T, alpha = np.array([2.0, 5.0]).reshape(2, 1, 1), np.array([0.3, 0.8]).reshape(2, 1, 1)
    q, p = (log_softmax(z.numpy() / T, -1) for z in (s, t))
    hard = -np.take_along_axis(log_softmax(s.numpy(), -1), y.numpy()[..., None], -1)[..., 0]
    soft = (np.exp(p) * (p - q)).sum(-1)
    expected = alpha[..., 0] * T[..., 0] ** 2 * soft + (1 - alpha[..., 0]) * hard
    np.testing.assert_allclose(
        KDLoss(kind(T), kind(alpha))(s, t, y, reduction="rows"), expected, rtol=1e-9
    )


@pytest.mark.parametrize(
    "make, key",
    [
        *[(lambda x, key=key: KDLoss(**{key: x}), key) for key in ("temperature", "alpha")],
        *[
            (lambda x, key=key: DKDLoss(**{key: x}), key)
            for key in ("temperature", "alpha", "beta")
        ],
    ],
)
@pytest.mark.parametrize("shape", [(2,), (3,), (2, 3, 4), (5, 2, 1, 1), (3, 1, 1), (1, 1, 1, 1)])
def test_weights_that_are_not_one_a_replica_or_row_are_refused(make, key, shape):
    """Of (R,) the first would stand for all; a fourth axis would add up its replicas."""
    with pytest.raises(
        ValueError, match=rf"^\w+: {key} must (be a number or a tensor|broadcast to the logits)"
    ):
        make(torch.ones(shape))(*batch(2, 3, 4))


@pytest.mark.parametrize(
    "T, alpha",
    [
        (np.float32(2), np.float32(0.5)),
        (np.int64(2), np.float64(0.5)),
        (torch.tensor(2.0), torch.tensor(0.5)),
    ],
)
def test_the_numbers_of_numpy_and_torch_are_numbers(T, alpha):
    s, t, y = batch(4, 3)
    assert torch.equal(gradient(KDLoss(T, alpha), s, t, y), gradient(KDLoss(2, 0.5), s, t, y))
