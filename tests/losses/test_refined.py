"""Refined objectives (scale, standardise, DKD) against loops over the papers' formulas, scipy
and torch."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, softmax
from scipy.stats import zscore
from torch.autograd import gradcheck

import kdlab as kd
from kdlab import DKDLoss, KDLoss

LOSSES = {
    "dkd": DKDLoss(),
    "dkd other": DKDLoss(0.5, 2.0, 1.5),
    "scale": KDLoss(20.0, 0.7, scale=40.0),
    "standardise": KDLoss(2.0, 0.6, standardise=True),
}
every = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def batch(*shape, seed=0):
    """Student and teacher logits (..., C) in float64 and labels (...)."""
    g = torch.Generator().manual_seed(seed)
    s, t = 2 * torch.randn(2, *shape, generator=g, dtype=torch.float64)
    return s, t, torch.randint(shape[-1], shape[:-1], generator=g)


def gradient(loss, s, *args, **options):
    s = s.clone().requires_grad_()
    return torch.autograd.grad(loss(s, *args, **options), s)[0]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def decoupled(s, t, y, T):
    """TCKD, NCKD and the teacher's p_y of one row, written from eq. 5 and 6 of the paper."""
    parts = []
    for z in (t, s):
        p = softmax(np.asarray(z) / T)
        parts.append(((p[y], 1 - p[y]), [p[c] / (1 - p[y]) for c in range(len(p)) if c != y]))
    (b_t, hat_t), (b_s, hat_s) = parts
    return kl(b_t, b_s), kl(hat_t, hat_s), b_t[0]


def hard_rows(s, y):
    return -log_softmax(s.numpy(), -1)[np.arange(len(y)), y]


@pytest.mark.parametrize(
    "alpha, beta, T", [(1.0, 8.0, 4.0), (0.5, 2.0, 1.0), (0.0, 1.0, 20.0), (1.0, 0.0, 2.0)]
)
def test_dkd_is_the_paper_s_two_terms(alpha, beta, T):
    s, t, y = batch(6, 5)
    tckd, nckd, _ = np.array([decoupled(s[i], t[i], int(y[i]), T) for i in range(6)]).T
    expected = hard_rows(s, y) + T**2 * (alpha * tckd + beta * nckd)
    np.testing.assert_allclose(
        DKDLoss(alpha, beta, T)(s, t, y, reduction="rows"), expected, rtol=1e-9
    )


def test_dkd_takes_kl_apart_and_adds_up_to_it():
    s, t, y = batch(6, 5)
    soft = {w: DKDLoss(*w, temperature=3.0).rows(s, t, y)["soft"] for w in [(1, 0), (0, 1)]}
    p_y = F.softmax(t / 3, -1)[range(6), y]
    whole = F.kl_div(F.log_softmax(s / 3, -1), F.softmax(t / 3, -1), reduction="none").sum(-1)
    torch.testing.assert_close(soft[1, 0] + (1 - p_y) * soft[0, 1], whole)


def test_a_row_without_a_label_is_left_out_of_dkd_and_named_where_it_counts():
    s, t, y = batch(6, 5)
    y[2:4] = -100
    rows = DKDLoss().rows(s, t, y)
    assert all(
        torch.equal(rows[k][2:4], torch.zeros(2, dtype=s.dtype)) for k in ("loss", "soft", "hard")
    )
    torch.testing.assert_close(DKDLoss()(s, t, y), DKDLoss()(s[y >= 0], t[y >= 0], y[y >= 0]))
    with pytest.raises(
        ValueError,
        match="^DKDLoss: labels must name a class in each row .*, got 2 rows labelled −100",
    ):
        DKDLoss()(s, t, y, mask=torch.ones(6, dtype=torch.bool))


@pytest.mark.parametrize("T", [0.5, 2.0, 4.0])
def test_standardise_is_scipy_s_zscore_in_the_soft_term_only(T):
    s, t, y = batch(6, 5)
    p, log_q = softmax(zscore(t.numpy(), -1) / T, -1), log_softmax(zscore(s.numpy(), -1) / T, -1)
    soft = (p * (np.log(p) - log_q)).sum(-1)
    expected = 0.6 * T**2 * soft + 0.4 * hard_rows(s, y)
    np.testing.assert_allclose(
        KDLoss(T, 0.6, standardise=True)(s, t, y, reduction="rows"), expected, rtol=1e-5
    )


def test_standardise_forgets_shift_and_scale_and_leaves_out_classes_ruled_out():
    s, t, y = batch(4, 6)
    loss = KDLoss(2.0, 1.0, standardise=True)
    torch.testing.assert_close(loss(3 * s - 7, 0.2 * t + 5, y), loss(s, t, y), rtol=1e-5, atol=1e-9)
    assert abs(KDLoss(2.0, 1.0)(3 * s, t, y) - KDLoss(2.0, 1.0)(s, t, y)) > 0.1
    off = torch.full((4, 1), -math.inf, dtype=s.dtype)
    torch.testing.assert_close(
        loss(torch.cat([s, off], 1), torch.cat([t, off], 1), y), loss(s, t, y)
    )
    assert gradient(loss, 0 * s, t, y).isfinite().all()


def test_a_number_takes_the_place_of_t_squared():
    s, t, y = batch(6, 5)
    torch.testing.assert_close(KDLoss(5.0, 0.7, scale=25.0)(s, t, y), KDLoss(5.0, 0.7)(s, t, y))
    soft, hard = KDLoss(20.0, 1.0, scale="none")(s, t, y), F.cross_entropy(s, y)
    torch.testing.assert_close(KDLoss(20.0, 0.5, scale=40)(s, t, y), 0.5 * 40 * soft + 0.5 * hard)


@every
def test_gradcheck(loss):
    s, t, y = batch(4, 3)
    y[1] = -100
    assert gradcheck(lambda s, t: loss(s, t, y), (s.requires_grad_(), t.requires_grad_()))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_soft_term_is_zero_at_equality_only(loss, dtype):
    s, t, y = (z.to(dtype) if z.is_floating_point() else z for z in batch(6, 5))
    assert loss.rows(t, t, y)["soft"].abs().max().item() == pytest.approx(0, abs=1e-6)
    assert loss.rows(s, t, y)["soft"].min() > 1e-4


@every
def test_replicas_equal_separate_calls(loss):
    s, t, y = batch(3, 5, 4)
    for reduction, join in [
        ("rows", torch.stack),
        ("mean", lambda parts: torch.stack(parts).mean()),
    ]:
        alone = join([loss(s[r], t[r], y[r], reduction=reduction) for r in range(3)])
        torch.testing.assert_close(loss(s, t, y, reduction=reduction), alone)
    grads = torch.stack([gradient(loss, s[r], t[r], y[r]) for r in range(3)])
    torch.testing.assert_close(gradient(loss, s, t, y) * 3, grads)


@every
def test_classes_ruled_out_and_rows_that_hold_anything_give_finite_gradients(loss):
    s, t, y = batch(4, 6)
    y, off = y.clamp_min(1), torch.full((4, 1), -math.inf, dtype=s.dtype)
    for dtype in (torch.float64, torch.float32):
        for student, teacher in [(off, off), (s[:, :1], off)]:
            student, teacher = (
                torch.cat(z, 1).to(dtype) for z in ([student, s[:, 1:]], [teacher, t[:, 1:]])
            )
            assert (
                loss(student, teacher, y).isfinite()
                and gradient(loss, student, teacher, y).isfinite().all()
            )
    s[0], t[0], labels = math.nan, math.inf, y.clone()
    labels[0] = -100
    torch.testing.assert_close(loss(s, t, labels), loss(s[1:], t[1:], y[1:]))
    assert torch.equal(gradient(loss, s, t, labels)[0], torch.zeros(6, dtype=s.dtype))


@pytest.mark.parametrize(
    "make, words",
    [
        *[
            (
                lambda x=x: KDLoss(scale=x),
                "KDLoss: scale must be 'T2', 'none' or a number above 0, got ",
            )
            for x in (0, -1.0, math.nan, math.inf, True, None, "T")
        ],
        *[
            (lambda x=x: DKDLoss(alpha=x), "DKDLoss: alpha must be at least 0 and finite, got ")
            for x in (-1, math.nan)
        ],
        (lambda: DKDLoss(beta=math.inf), "DKDLoss: beta must be at least 0 and finite, got inf"),
        (lambda: DKDLoss(temperature=0), "DKDLoss: temperature must be above 0 and finite, got 0"),
        (
            lambda: DKDLoss()(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([0, 3])),
            r"DKDLoss: labels must lie in",
        ),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        make()


@every
def test_a_student_learns_with_it(loss):
    task = kd.load("digits")
    teacher = kd.train(kd.mlp(64), task, epochs=10)
    runs = kd.sweep(kd.mlp(32), task, teacher=teacher, objective=loss, epochs=5, seeds=2)
    assert runs.frame["objective"].tolist() == 2 * [type(loss).__name__]
    assert (runs.frame["temperature"] == loss.temperature).all() and runs.frame[
        "loss"
    ].notna().all()
    assert runs.frame["accuracy"].min() > 0.8 and runs.frame["agreement"].min() > 0.8
