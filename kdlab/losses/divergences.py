"""How far apart two distributions are: true divergences, zero exactly where the two agree.

p is the teacher's distribution, q the student's, both softmax(logits / T). Every function takes
logits with any leading axes, so also (R, B, C) for R replicas, and returns nats (total variation: a
share)."""

import math
from typing import Any

import torch
from torch import Tensor

from kdlab.base.arguments import fits, number_or_tensor, share
from kdlab.losses import closed_form
from kdlab.losses.softmax import FLOOR, log_softmax


def kl_rows(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (log p − log q) for each row, from log-probabilities (..., V) → (...).

    >>> kl_rows(torch.tensor([0.0, FLOOR]), torch.tensor([0.5, 0.5]).log())
    tensor(0.6931)
    """
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def check_shapes(
    name: str, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None
) -> None:
    """Raise the error that says what came and what was expected, of types and shapes."""
    for key, z in [("student_logits", student_logits), ("teacher_logits", teacher_logits)]:
        if not torch.is_tensor(z) or not z.is_floating_point():
            kind = z.dtype if torch.is_tensor(z) else type(z).__name__
            raise TypeError(f"{name}: {key} must be a floating-point tensor (..., V), got {kind}")
        if not z.ndim or not z.shape[-1]:
            raise ValueError(
                f"{name}: {key} must have the shape (..., V) with a class or more, "
                f"got {tuple(z.shape)}"
            )
    s, t = tuple(student_logits.shape), tuple(teacher_logits.shape)
    if s[-1] != t[-1]:
        raise ValueError(
            f"{name}: student_logits {s} and teacher_logits {t} must share the vocabulary axis; "
            "for padded vocabularies see kdlab.mask_padding"
        )
    if s != t:
        raise ValueError(
            f"{name}: student_logits {s} and teacher_logits {t} must have the same shape"
        )
    if mask is not None:
        check_mask(name, "mask", mask, s[:-1])


def check_mask(name: str, key: str, mask: Tensor | None, rows: Any) -> None:
    """Raise unless the mask has the rows' shape and holds true and false, or whole 1 and 0."""
    if not torch.is_tensor(mask) or tuple(mask.shape) != tuple(rows):
        came = tuple(mask.shape) if torch.is_tensor(mask) else type(mask).__name__
        raise ValueError(f"{name}: {key} must have the shape of the rows {tuple(rows)}, got {came}")
    # where 0 means "counts", as in attention, it would be reversed
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(
            f"{name}: {key} must hold true and false, or whole numbers 1 and 0, got {mask.dtype}"
        )
    if mask.dtype != torch.bool and (wrong := mask[(mask != 0) & (mask != 1)]).numel():
        raise ValueError(
            f"{name}: {key} must hold true and false, or whole numbers 1 and 0, got {int(wrong[0])}"
        )


def check_logits(
    name: str, student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The logits, finite; or the error that says what came.

    −inf becomes a number low enough to have probability 0, a masked row that is not finite 0.
    """
    check_shapes(name, student_logits, teacher_logits, mask)
    both = {"student_logits": student_logits, "teacher_logits": teacher_logits}
    found = [_finite(name, key, z, mask) for key, z in both.items()]
    return found[0], found[1]


def _finite(name, key, z, mask):
    ends = torch.stack([z.amin(-1), z.amax(-1)])  # NaN where a row holds one
    if ends.isfinite().all():
        return z  # the usual case: two fast passes, and no copy
    z = z if z.dtype == torch.float64 else z.float()
    if mask is not None:
        # a masked row may hold anything, NaN included
        z = torch.where(mask.bool()[..., None], z, 0.0)
    peak = z.amax(-1)
    if not (peak < torch.inf).all():
        bad = torch.isnan(z) | (z == torch.inf)
        raise ValueError(
            f"{name}: {key} holds {int(bad.sum())} NaN or +inf values; "
            "expected finite numbers, or −inf for a class that is ruled out"
        )
    if (empty := torch.isneginf(peak)).any():
        raise ValueError(
            f"{name}: {key} rules out every class in {int(empty.sum())} rows; "
            "expected a finite logit in each row that counts"
        )
    return z.clamp_min(FLOOR)


def check_temperature(name: str, temperature: float | Tensor) -> float | Tensor:
    """The temperature, a number or a tensor (..., 1); ValueError unless finite and above 0."""
    return number_or_tensor(name, "temperature", temperature, above=0)


def reduce_rows(
    name: str,
    rows: Tensor,
    mask: Tensor | None = None,
    reduction: str = "mean",
    below_zero: bool = False,
) -> Tensor:
    """Mean over the rows that count, exactly 0 with zero gradients where none does.

    reduction="rows" keeps the rows, 0 where they don't count. What is a little below 0 is taken for
    rounding and becomes 0, but with below_zero=True.

    >>> rows, mask = torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False])
    >>> reduce_rows("example", rows, mask).item()
    2.0
    """
    if not isinstance(reduction, str) or reduction not in ("mean", "rows"):
        raise ValueError(f"{name}: reduction must be 'mean' or 'rows', got {reduction!r}")
    mask = torch.ones_like(rows, dtype=torch.bool) if mask is None else mask.bool()
    if not below_zero:
        # rounding may end just below 0; so the gradient stays
        rows = rows - rows.detach().clamp_max(0)
    rows = torch.where(mask, rows, 0.0)
    return rows if reduction == "rows" else rows.sum() / mask.sum().clamp_min(1)


def _divergence(
    name, of_logs, student_logits, teacher_logits, temperature, mask, reduction, **options
):
    check_shapes(name, student_logits, teacher_logits, mask)
    temperature = check_temperature(name, temperature)
    fits(name, "temperature", temperature, student_logits.shape)
    if closed_form.takes(student_logits, teacher_logits, temperature):
        rows = closed_form.rows(name, student_logits, teacher_logits, temperature, mask, **options)
        counts = rows if mask is None else torch.where(mask.bool(), rows, 0.0)
        if counts.isfinite().all():
            return reduce_rows(name, rows, mask, reduction)
    # the logits are looked at one by one: few classes, or the error that says what is wrong
    student_logits, teacher_logits = check_logits(name, student_logits, teacher_logits, mask)
    rows = of_logs(
        log_softmax(student_logits, temperature), log_softmax(teacher_logits, temperature)
    )
    return reduce_rows(name, rows, mask, reduction)


def _log_mix(log_a, log_b, weight):
    """log(weight · a + (1 − weight) · b)."""
    return torch.logaddexp(log_a + math.log(weight), log_b + math.log1p(-weight))


def forward_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL(teacher ‖ student) in nats, averaged over rows: what the student misses of the teacher.

        Σ_v p(v) · [log p(v) − log q(v)],   p, q = softmax(logits / T)

    student_logits, teacher_logits: (..., V); mask: (...), true or 1 where a row counts;
    temperature: a number, or a tensor with one for each replica or row, as (R, 1, 1) or (..., 1).
    Covers every mode of the teacher. Raises ValueError or TypeError on shapes that differ, NaN, or
    T ≤ 0. Source: Hinton, Vinyals, Dean 2015, eq. 1 and section 2 (without the T² factor: see
    KDLoss).

    >>> z = torch.tensor([[2.0, 0.0]])
    >>> forward_kl(z, z).item()
    0.0
    """
    return _divergence(
        "forward_kl",
        lambda q, p: kl_rows(p, q),
        student_logits,
        teacher_logits,
        temperature,
        mask,
        reduction,
    )


def reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL(student ‖ teacher) in nats: what the student invents that the teacher would not say.

        Σ_v q(v) · [log q(v) − log p(v)]

    Arguments and errors as in `forward_kl`. Seeks one mode of the teacher.
    Source: Gu, Dong, Wei, Huang 2024 (MiniLLM), section 2.1.

    >>> round(reverse_kl(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])).item(), 4)
    0.4338
    """
    return _divergence(
        "reverse_kl",
        lambda q, p: kl_rows(q, p),
        student_logits,
        teacher_logits,
        temperature,
        mask,
        reduction,
    )


def jsd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    beta: float = 0.5,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Generalised Jensen–Shannon divergence in nats, between forward and reverse KL.

        beta · KL(p ‖ M) + (1 − beta) · KL(q ‖ M),   M = beta · p + (1 − beta) · q

    beta 0 is the forward KL and beta 1 the reverse KL, as in TRL. That is a convention with a jump:
    the formula itself goes to 0 at both ends. Other arguments and errors as in `forward_kl`.
    Source: Agarwal et al. 2024 (GKD), section 2.

    >>> far = 30 * torch.eye(2)
    >>> round(jsd(far[:1], far[1:]).item(), 4) == round(math.log(2), 4)
    True
    """
    share("jsd", "beta", beta)

    def of_logs(q, p):
        if beta in (0, 1):
            return kl_rows(p, q) if beta == 0 else kl_rows(q, p)
        m = _log_mix(p, q, beta)
        return beta * kl_rows(p, m) + (1 - beta) * kl_rows(q, m)

    return _divergence(
        "jsd", of_logs, student_logits, teacher_logits, temperature, mask, reduction, beta=beta
    )


def skew_forward_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    skew: float = 0.1,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Forward KL to a mixture that always holds a little of the teacher, so that it stays bounded.

        KL(p ‖ skew · p + (1 − skew) · q)

    skew 0 is `forward_kl`. Other arguments and errors as there.
    Source: Ko et al. 2024 (DistiLLM), section 3.1.

    >>> skew_forward_kl(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]]), skew=1.0).item()
    0.0
    """
    share("skew_forward_kl", "skew", skew)

    def of_logs(q, p):
        return kl_rows(p, q if skew == 0 else p if skew == 1 else _log_mix(p, q, skew))

    return _divergence(
        *("skew_forward_kl", of_logs, student_logits, teacher_logits),
        *(temperature, mask, reduction),
        skew=skew,
    )


def skew_reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    skew: float = 0.1,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Reverse KL to a mixture that always holds a little of the student.

        KL(q ‖ skew · q + (1 − skew) · p)

    skew 0 is `reverse_kl`. Other arguments and errors as in `forward_kl`.
    Source: Ko et al. 2024 (DistiLLM), section 3.1.

    >>> skew_reverse_kl(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]]), skew=1.0).item()
    0.0
    """
    share("skew_reverse_kl", "skew", skew)

    def of_logs(q, p):
        return kl_rows(q, p if skew == 0 else q if skew == 1 else _log_mix(q, p, skew))

    return _divergence(
        *("skew_reverse_kl", of_logs, student_logits, teacher_logits),
        *(temperature, mask, reduction),
        skew=skew,
    )


def tvd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Total variation distance in [0, 1]: the largest difference in probability of any event.

        ½ Σ_v |p(v) − q(v)|

    Arguments and errors as in `forward_kl`. Source: Wen et al. 2023 (f-divergence distillation).

    >>> tvd(torch.tensor([[99.0, 0.0]]), torch.tensor([[0.0, 99.0]])).item()
    1.0
    """
    return _divergence(
        "tvd",
        lambda q, p: 0.5 * (p.exp() - q.exp()).abs().sum(-1),
        student_logits,
        teacher_logits,
        temperature,
        mask,
        reduction,
    )
