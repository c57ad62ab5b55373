"""A divergence from full logits with its gradient in closed form, a few rows at a time.

For any divergence D of q = softmax(z / T), since ∂q(w)/∂z(v) = q(w) · (1[v = w] − q(v)) / T,

    ∂D/∂z(v) = [a(v) − q(v) · Σ_w a(w)] / T,   a(v) = q(v) · ∂D/∂q(v)

So one tensor of the logits' size is all that is kept for the way back, where autograd keeps one for
each operation; and what is computed between lies in the processor's cache.
"""

from typing import Any

import torch
from torch import Tensor

from kdlab.losses.softmax import FLOOR, SHORT

TINY = torch.finfo(torch.float32).tiny  # stands for a mixture of 0, so that 0 · log 0 is 0


def _forward_kl(log_q, q, log_p):
    """D = Σ p (log p − log q),   T ∂D/∂z = q − p."""
    p = log_p.exp()
    return log_p.sub_(log_q).mul_(p).sum(-1), q.sub_(p)


def _reverse_kl(log_q, q, log_p):
    """D = Σ q (log q − log p),   a = q (log q − log p + 1).

    The constant 1 falls out of a − q Σ a.
    """
    return centred(log_q.sub_(log_p).mul_(q), q)


def _jsd(log_q, q, log_p, beta=0.5):
    """The Jensen–Shannon divergence to M = β p + (1 − β) q.

        D = β Σ p (log p − log M) + (1 − β) Σ q (log q − log M),   a = (1 − β) q (log q − log M)
        ∂D/∂q = (1 − β) [log q − log M + 1 − (β p + (1 − β) q) / M]

    The last two terms of ∂D/∂q cancel.
    """
    if beta in (0, 1):
        return (_reverse_kl if beta else _forward_kl)(log_q, q, log_p)
    p = log_p.exp()
    log_m = torch.lerp(q, p, beta).clamp_min_(TINY).log_()
    of_p = log_p.sub_(log_m).mul_(p).sum(-1)
    of_q, g = centred(log_q.sub_(log_m).mul_(q).mul_(1 - beta), q)
    return beta * of_p + of_q, g


def _skew_forward_kl(log_q, q, log_p, skew=0.1):
    """D = Σ p (log p − log M), M = λ p + (1 − λ) q,   a = −(1 − λ) q p / M."""
    if skew == 0:
        return _forward_kl(log_q, q, log_p)
    p = log_p.exp()
    m = torch.lerp(q, p, skew).clamp_min_(TINY)
    found = log_p.sub_(m.log()).mul_(p).sum(-1)
    return found, centred(p.div_(m).mul_(q).mul_(skew - 1), q)[1]


def _skew_reverse_kl(log_q, q, log_p, skew=0.1):
    """D = Σ q (log q − log M), M = λ q + (1 − λ) p,   a = q (log q − log M − λ q / M).

    The constant 1 in the bracket of a is left out, as in `_reverse_kl`.
    """
    if skew == 0:
        return _reverse_kl(log_q, q, log_p)
    m = torch.lerp(log_p.exp_(), q, skew).clamp_min_(TINY)
    a = log_q.sub_(m.log()).mul_(q)
    found = a.sum(-1)
    return found, centred(a.addcdiv_(q.square(), m, value=-skew), q)[1]


def _tvd(log_q, q, log_p):
    """D = ½ Σ |q − p|,   a = ½ q sign(q − p)."""
    far = q - log_p.exp_()
    found = 0.5 * far.abs().sum(-1)
    return found, centred(far.sign_().mul_(q).mul_(0.5), q)[1]


def centred(a: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Σ a (n,), and a − q · Σ a in the place of a; from a and q of some rows (n, V).

    >>> centred(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]))
    (tensor([1.]), tensor([[ 0.5000, -0.5000]]))
    """
    total = a.sum(-1)
    return total, a.addcmul_(q, total[..., None], value=-1)


# by the divergence's name; from log q, q and log p of some rows (n, V), which they may overwrite:
# D (n,) and T ∂D/∂z (n, V)
FORMULAS = {
    "forward_kl": _forward_kl,
    "reverse_kl": _reverse_kl,
    "jsd": _jsd,
    "skew_forward_kl": _skew_forward_kl,
    "skew_reverse_kl": _skew_reverse_kl,
    "tvd": _tvd,
}
# numbers at a time: what of them stands in a CPU's cache, or is too little for a GPU's launches
AT_ONCE = {"cpu": 2**20, "cuda": 2**27}


def takes(student_logits: Tensor, teacher_logits: Tensor, temperature: float | Tensor) -> bool:
    """True where `rows` can be asked: one temperature, a teacher that learns nothing, no `vmap`.

    Few classes are faster without.

    >>> takes(torch.zeros(2, 1000), torch.zeros(2, 1000), 2.0)
    True
    """
    return (
        not torch.is_tensor(temperature)
        and not teacher_logits.requires_grad
        and student_logits.shape[-1] > SHORT
        and student_logits.device == teacher_logits.device
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def rows(
    divergence: str,
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    **options: Any,
) -> Tensor:
    """A divergence of `FORMULAS` by its name, a row at a time: (..., V), (..., V) → (...).

    mask (...): a row where it is false may hold anything, is 0 and has no gradient. A row of NaN,
    of +inf or of nothing but −inf is NaN. Its gradient cannot be differentiated again.

    >>> z, teacher = torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])
    >>> round(rows("reverse_kl", z, teacher).item(), 4)
    0.4338
    """

    def formula(log_q, q, part):
        log_p = fresh_log_softmax(teacher[part], temperature).to(log_q.dtype)
        return FORMULAS[divergence](log_q, q, log_p, **options)

    teacher = teacher_logits.detach().reshape(-1, teacher_logits.shape[-1])
    return _over_rows(student_logits, formula, mask, temperature)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """−log softmax(logits)[label] a row, (..., V), (...) → (...); 0 where the label is −100.

        D = −log q(y),   ∂D/∂z(v) = q(v) − 1[v = y]

    >>> cross_entropy(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    tensor([0.1269])
    """

    def formula(log_q, q, part):
        y = flat[part][:, None]
        return -log_q.gather(1, y)[:, 0], q.scatter_add_(1, y, q.new_full(y.shape, -1.0))

    flat = labels.reshape(-1)
    return _over_rows(logits, formula, labels >= 0)


def _over_rows(logits, formula, mask=None, T=1.0):
    index = None
    if mask is not None and not (mask := mask.bool()).all():
        index = mask.reshape(-1).nonzero()[:, 0]
    flat = logits.reshape(-1, logits.shape[-1])
    return _Rows.apply(flat, formula, index, T).view(logits.shape[:-1])


def once():
    """Raise within a backward pass with create_graph=True, whose second pass would see constants.

    >>> with torch.no_grad():
    ...     once()
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "the gradient in closed form cannot be differentiated again (create_graph=True); "
            "write the loss with torch's log_softmax where that is needed"
        )


class _Rows(torch.autograd.Function):
    """formula(log q, q, part) → D and T ∂D/∂z of some rows.

    index: the rows that count, None for all."""

    @staticmethod
    def forward(ctx, logits, formula, index, T):
        wide = torch.promote_types(logits.dtype, torch.float32)
        found = torch.zeros(len(logits), dtype=wide, device=logits.device)
        gradient = None
        if ctx.needs_input_grad[0]:
            # float16 would lose small slopes before a gradient scaler makes them larger
            kept = torch.float32 if logits.dtype == torch.float16 else logits.dtype
            gradient = (torch.empty_like if index is None else torch.zeros_like)(logits, dtype=kept)
        for part in parts(logits, index):
            log_q, place = fresh_log_softmax(logits[part], T), None
            if gradient is not None and index is None and gradient.dtype == wide:
                place = gradient[part]  # a formula may leave the slope in the place of q
            found[part], g = formula(log_q, torch.exp(log_q, out=place), part)
            if gradient is not None:
                g = g if T == 1 else g.mul_(1 / T)
                if g is not place:
                    gradient[part] = g.to(gradient.dtype)
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return found

    @staticmethod
    def backward(ctx, by_row):
        once()
        (gradient,) = ctx.saved_tensors
        if gradient.dtype == by_row.dtype == ctx.dtype:
            return gradient * by_row[:, None], None, None, None
        found = torch.empty_like(gradient, dtype=ctx.dtype)
        for part in parts(gradient):  # multiplied in float32, and rounded once
            found[part] = gradient[part] * by_row[part, None]
        return found, None, None, None


def parts(logits: Tensor, index: Tensor | None = None) -> list:
    """The rows of logits (n, V), few enough to be worked on at once: slices, or parts of the index.

    >>> parts(torch.zeros(3, 2**20))
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    step = max(1, AT_ONCE.get(logits.device.type, AT_ONCE["cuda"]) // logits.shape[-1])
    if index is not None:
        return index.split(step)
    return [slice(start, start + step) for start in range(0, len(logits), step)]


def fresh_log_softmax(z: Tensor, T: float) -> Tensor:
    """log softmax(z / T) of some rows, in memory of its own; NaN where every class is ruled out.

    >>> fresh_log_softmax(torch.zeros(1, 2, dtype=torch.bfloat16), 1.0).dtype
    torch.float32
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    return (z if T == 1 else z / T).log_softmax(-1).clamp_min_(FLOOR)
