"""A divergence straight from hidden states and heads, a chunk of tokens at a time: no logits of all tokens (N, V).

A chunk's gradient is taken while its logits z = h Wᵀ + b are there, in the forward pass. With g = ∂loss/∂z,

    ∂/∂h = g W,   ∂/∂W = gᵀ h,   ∂/∂b = Σ_rows g      (Hsu et al. 2024, Liger Kernel: FusedLinearCrossEntropy)

and for any divergence D of q = softmax(z / T), since ∂q(w)/∂z(v) = q(w) · (1[v = w] − q(v)) / T,

    ∂D/∂z(v) = [a(v) − q(v) · Σ_w a(w)] / T,   a(v) = q(v) · ∂D/∂q(v)
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from . import divergences
from .arguments import one_of, whole
from .divergences import FLOOR, log_softmax
from .objectives import check_labels
from .tokens import TokenLoss

TINY = torch.finfo(torch.float32).tiny  # stands for a mixture of 0, so that 0 · log 0 is 0


def _forward_kl(log_q, q, log_p):
    """D = Σ p (log p − log q),   a = −p."""
    p = log_p.exp()
    return log_p.sub_(log_q).mul_(p).sum(-1), p.neg_()


def _reverse_kl(log_q, q, log_p):
    """D = Σ q (log q − log p),   a = q (log q − log p + 1); the constant 1 falls out of a − q Σ a."""
    a = log_q.sub_(log_p).mul_(q)
    return a.sum(-1), a


def _jsd(log_q, q, log_p, beta=0.5):
    """D = β Σ p (log p − log M) + (1 − β) Σ q (log q − log M), M = β p + (1 − β) q,   a = (1 − β) q (log q − log M).

    ∂D/∂q = (1 − β) [log q − log M + 1 − (β p + (1 − β) q) / M], whose last two terms cancel.
    """
    if beta in (0, 1):
        return (_reverse_kl if beta else _forward_kl)(log_q, q, log_p)
    p = log_p.exp()
    log_m = torch.lerp(q, p, beta).clamp_min_(TINY).log_()
    of_p = log_p.sub_(log_m).mul_(p).sum(-1)
    a = log_q.sub_(log_m).mul_(q).mul_(1 - beta)
    return beta * of_p + a.sum(-1), a


def _skew_forward_kl(log_q, q, log_p, skew=0.1):
    """D = Σ p (log p − log M), M = λ p + (1 − λ) q,   a = −(1 − λ) q p / M."""
    if skew == 0:
        return _forward_kl(log_q, q, log_p)
    p = log_p.exp()
    m = torch.lerp(q, p, skew).clamp_min_(TINY)
    return log_p.sub_(m.log()).mul_(p).sum(-1), p.div_(m).mul_(q).mul_(skew - 1)


def _skew_reverse_kl(log_q, q, log_p, skew=0.1):
    """D = Σ q (log q − log M), M = λ q + (1 − λ) p,   a = q (log q − log M − λ q / M), the constant 1 left out."""
    if skew == 0:
        return _reverse_kl(log_q, q, log_p)
    m = torch.lerp(log_p.exp_(), q, skew).clamp_min_(TINY)
    a = log_q.sub_(m.log()).mul_(q)
    return a.sum(-1), a.addcdiv_(q.square(), m, value=-skew)


def _tvd(log_q, q, log_p):
    """D = ½ Σ |q − p|,   a = ½ q sign(q − p)."""
    far = q - log_p.exp_()
    return 0.5 * far.abs().sum(-1), far.sign_().mul_(q).mul_(0.5)


# from log q, q and log p of a chunk (n, V), which they may overwrite: D (n,) and a (n, V)
FORMULAS = {divergences.forward_kl: _forward_kl, divergences.reverse_kl: _reverse_kl, divergences.jsd: _jsd,
            divergences.skew_forward_kl: _skew_forward_kl, divergences.skew_reverse_kl: _skew_reverse_kl,
            divergences.tvd: _tvd}


def _loss_and_gradient(objective, z, teacher_z, labels):
    """The loss a row (n,) and its gradient by the student's logits z (n, V); overwrites nothing of z."""
    T, (of_soft, of_hard) = objective.temperature, objective.weights
    log_q = log_softmax(z, T)
    q = log_q.exp()
    rows, a = FORMULAS[objective.divergence](log_q, q, log_softmax(teacher_z, T), **objective.options)
    loss = of_soft * rows.clamp_min_(0)  # rounding may end just below 0
    g = a.addcmul_(q, a.sum(-1, keepdim=True), value=-1).mul_(of_soft / T)
    if of_hard:
        # CE = −log q_1(y),   ∂CE/∂z(v) = q_1(v) − 1[v = y]
        log_q, y = log_softmax(z), labels[:, None]
        hard = log_q.gather(1, y)
        loss -= of_hard * hard[:, 0]
        g.add_(log_q.exp_(), alpha=of_hard).scatter_add_(1, y, torch.full_like(hard, -of_hard))
    return loss, g


def _as_head(weight):
    """The dtype that a head answers in: its weight's own, or autocast's."""
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight.dtype


class _Fused(torch.autograd.Function):
    """The sum over the tokens that count, from hidden (N, H), weight (V, H) and bias (V,) or None of both sides."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, teacher_hidden, teacher_weight, teacher_bias, labels, objective, chunk):
        wide = torch.promote_types(weight.dtype, torch.float32)  # losses and sums are never in half precision

        def answers(rows, hidden, weight, bias):
            hidden = hidden[rows].to(weight.dtype)
            logits = F.linear(hidden, weight, bias).to(wide)
            return hidden, logits if bias is None else logits.clamp_min_(FLOOR)

        student, teacher = ([x if x is None else x.to(_as_head(w)) for x in (w, b)]
                            for w, b in ((weight, bias), (teacher_weight, teacher_bias)))
        of_hidden, of_weight, of_bias = grads = [
            torch.zeros_like(x, dtype=wide) if needed else None
            for x, needed in zip((hidden, weight, bias), ctx.needs_input_grad[:3], strict=True)]
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        for rows in (labels >= 0).nonzero()[:, 0].split(chunk):
            h, z = answers(rows, hidden, *student)
            terms, g = _loss_and_gradient(objective, z, answers(rows, teacher_hidden, *teacher)[1], labels[rows])
            loss += terms.sum()
            if of_bias is not None:
                of_bias += g.sum(0)
            g = g.to(h.dtype)
            if of_hidden is not None:
                of_hidden[rows] = (g @ student[0]).to(wide)
            if of_weight is not None:
                # added within the product where it can be: gᵀ h is as large as the head
                of_weight.addmm_(g.T, h) if h.dtype == wide else of_weight.add_(g.T @ h)
        ctx.dtypes = [x if x is None else x.dtype for x in (hidden, weight, bias)]
        ctx.save_for_backward(*grads)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, scale):
        grads = [x if x is None else (x * scale).to(dtype)
                 for x, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return *grads, *[None] * 6


def _check(name, hidden, head):
    if not torch.is_tensor(hidden) or not hidden.is_floating_point() or hidden.ndim == 0:
        came = hidden.dtype if torch.is_tensor(hidden) else type(hidden).__name__
        raise TypeError(f"linear_divergence: {name}_hidden must be a floating-point tensor (..., H), got {came}")
    # another forward (a quantised layer, an adapter) would give other logits than the weight does
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
        raise TypeError(f"linear_divergence: {name}_head must be a plain nn.Linear, got {type(head).__name__}")
    if hidden.shape[-1] != head.weight.shape[1]:
        raise ValueError(f"linear_divergence: {name}_hidden must be (..., {head.weight.shape[1]}) to fit {name}_head, "
                         f"got {tuple(hidden.shape)}")


def _columns(head, V):
    """Weight and bias of the first V tokens; whole where there are no others."""
    if V == len(head.weight):
        return head.weight, head.bias
    return head.weight[:V], None if head.bias is None else head.bias[:V]


def linear_divergence(student_hidden, student_head, teacher_hidden, teacher_head, labels, objective=None, chunk=128,
                      reduction="mean", vocab_size=None):
    """`TokenLoss` of two heads' logits, in a fraction of the memory: (tokens, V) logits never stand there at once.

        objective(student_head(student_hidden), teacher_head(teacher_hidden), labels)

    student_hidden, teacher_hidden: (..., H_s) and (..., H_t), already shifted onto the labels (`next_token` does so).
    student_head, teacher_head: plain nn.Linear with weights (V, H_s) and (V, H_t), whose answers are the logits as
    they are, without a soft cap; a bias of −inf rules a class out. labels: (...), integers or −100 (does not count;
    the row may hold anything). objective: a TokenLoss, by default the forward KL. chunk: tokens at a time. vocab_size:
    the tokens that exist, where a head is padded to a round width (`mask_padding`): the other columns have no
    probability and no gradient, and the heads' widths may differ. Returns
    the mean in nats over the tokens that count, or with reduction="sum" their sum; 0, with zero gradients, where
    none does. Gradients go to student_hidden and student_head, never to the teacher, and are ready when the value
    is: they cannot be differentiated again (RuntimeError). Logits come in the head's dtype (or autocast's), all
    else is float32 or better. Raises TypeError or ValueError on what does not fit, and on NaN or +inf logits.
    Source: Hsu et al. 2024 (Liger Kernel), FusedLinearCrossEntropy.

    >>> student, teacher = nn.Linear(4, 32), nn.Linear(8, 32)
    >>> h, h_teacher, labels = torch.randn(2, 5, 4), torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.long)
    >>> loss = linear_divergence(h, student, h_teacher, teacher, labels, TokenLoss(alpha=0.5))
    >>> torch.allclose(loss, TokenLoss(alpha=0.5)(student(h), teacher(h_teacher), labels))
    True
    """
    objective = TokenLoss() if objective is None else objective
    if type(objective) is not TokenLoss:
        raise TypeError(f"linear_divergence: objective must be a kdlab.tokens.TokenLoss, got {objective!r}")
    if objective.divergence not in FORMULAS:
        known = [f.__name__ for f in FORMULAS]
        raise ValueError(f"linear_divergence: objective must have a divergence of {known}, got {objective.divergence!r}"
                         "; for another take objective(student_logits, teacher_logits, labels)")
    objective.divergence(*torch.zeros(2, 1, 2), **objective.options)  # its options, checked in its own words
    _check("student", student_hidden, student_head)
    _check("teacher", teacher_hidden, teacher_head)
    widths = len(student_head.weight), len(teacher_head.weight)
    rows, V = student_hidden.shape[:-1], widths[0] if vocab_size is None else vocab_size
    if type(V) is not int or not 1 <= V <= min(widths) and vocab_size is not None:
        raise ValueError("linear_divergence: vocab_size must be a whole number from 1 to the narrower of the widths "
                         f"{widths}, got {vocab_size!r}")
    if teacher_hidden.shape[:-1] != rows:
        raise ValueError(f"linear_divergence: student_hidden {tuple(student_hidden.shape)} and teacher_hidden "
                         f"{tuple(teacher_hidden.shape)} must have the same tokens (all axes but the last)")
    if widths[0] != widths[1] and vocab_size is None:
        raise ValueError(f"linear_divergence: student_head and teacher_head must share the vocabulary, got {widths[0]} "
                         f"and {widths[1]} tokens; where one tokenizer's heads are padded to other widths give "
                         "vocab_size, for other vocabularies see kdlab.vocabulary")
    chunk = whole("linear_divergence", "chunk", chunk, least=1)
    one_of("linear_divergence", "reduction", reduction, ["mean", "sum"])
    labels = check_labels("linear_divergence", labels, rows, V).reshape(-1)
    sides = [x for h, head in ((student_hidden, student_head), (teacher_hidden, teacher_head))
             for x in (h.reshape(-1, h.shape[-1]), *_columns(head, V))]
    if not torch.is_grad_enabled():
        sides = [x if x is None else x.detach() for x in sides]  # else gradients would be taken all the same
    total = _Fused.apply(*sides, labels, objective, chunk)
    if total.isnan():
        raise ValueError("linear_divergence: the logits of a token that counts hold NaN or +inf; expected finite "
                         "numbers, or −inf for a class that is ruled out")
    return total if reduction == "sum" else total / (labels >= 0).sum().clamp_min(1)
