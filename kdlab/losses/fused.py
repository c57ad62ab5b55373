"""A divergence straight from hidden states and heads, a chunk of tokens at a time.

The logits of all tokens (N, V) never stand there at once. A chunk's gradient is taken while its
logits z = h Wᵀ + b are there, in the forward pass. With g = ∂loss/∂z,

    ∂/∂h = g W,   ∂/∂W = gᵀ h,   ∂/∂b = Σ_rows g

(Hsu et al. 2024, Liger Kernel: FusedLinearCrossEntropy), and g is known in closed form
(closed_form).
"""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab.base.arguments import one_of, whole
from kdlab.base.compiling import compiled, compiles
from kdlab.losses import divergences
from kdlab.losses.closed_form import FORMULAS, fresh_log_softmax, once, parts
from kdlab.losses.kd import TokenLoss, check_labels
from kdlab.losses.protocol import Objective


@dataclass(frozen=True)
class _Chunk:
    """What a `TokenLoss` makes of a chunk's logits z, teacher_z (n, V) and labels (n,).

    Soft and hard term a row (n,), and the loss's gradient by z, in z's dtype. place: memory of the
    gradient's size for what lies between, z itself where it may be overwritten. The hard term is
    NaN where neither the loss nor `with_hard` asks for it.
    """

    divergence: str
    options: tuple
    T: float
    of_soft: float
    of_hard: float
    with_hard: bool
    wide: torch.dtype  # losses and sums are never in half precision

    @classmethod
    def of(cls, objective: TokenLoss, with_hard: bool, wide: torch.dtype) -> "_Chunk":
        """The numbers of an objective."""
        name, options = objective.divergence.__name__, tuple(objective.options.items())
        return cls(name, options, objective.temperature, *objective.weights, with_hard, wide)

    def __call__(
        self, z: Tensor, teacher_z: Tensor, labels: Tensor, place: Tensor | None = None
    ) -> tuple:
        hard, of_labels = self._hard(z, labels)
        log_q, log_p = (self.log_softmax(x, self.T) for x in (z, teacher_z))
        q = torch.exp(log_q, out=place)
        soft, g = FORMULAS[self.divergence](log_q, q, log_p, **dict(self.options))
        if (scale := self.of_soft / self.T) != 1:
            g.mul_(scale)
        if of_labels is not None:
            g.add_(of_labels, alpha=self.of_hard)
        return soft.clamp_min_(0), hard, g.to(z.dtype)  # rounding may end just below 0

    def _hard(self, z, labels):
        """CE = −log q_1(y) a row, and ∂CE/∂z(v) = q_1(v) − 1[v = y]; NaN and None where unasked."""
        if not (self.of_hard or self.with_hard):
            return z.new_full(labels.shape, torch.nan, dtype=self.wide), None
        log_q, y = self.log_softmax(z, 1.0), labels[:, None]
        hard = -log_q.gather(1, y)
        if not self.of_hard:
            return hard[:, 0], None
        return hard[:, 0], log_q.exp_().scatter_add_(1, y, torch.full_like(hard, -1.0))

    def log_softmax(self, z: Tensor, T: float) -> Tensor:
        """log softmax(z / T), (n, V), in memory of its own."""
        return fresh_log_softmax(z.to(self.wide), T)


@functools.lru_cache(maxsize=32)
def _compiled(chunk):
    return compiled(chunk.__call__)


def _by_parts(of_chunk, z, teacher_z, labels):
    """The same for a few rows at a time, which stay in a processor's cache.

    The gradient takes the place of z."""
    each = parts(z)
    if len(each) == 1:
        return of_chunk(z, teacher_z, labels)
    soft, hard = z.new_empty(2, len(z), dtype=of_chunk.wide)
    for part in each:
        here = z[part]
        place = here if here.dtype == of_chunk.wide else None
        soft[part], hard[part], g = of_chunk(here, teacher_z[part], labels[part], place)
        if g is not here:
            here.copy_(g)
    return soft, hard, z


def _as_head(weight):
    """The dtype that a head answers in: its weight's own, or autocast's."""
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def _weighted(objective, soft, hard):
    """The loss a row of its terms."""
    of_soft, of_hard = objective.weights
    return of_soft * soft + of_hard * hard if of_hard else of_soft * soft


def _add_product(total, g, h):
    """total += gᵀ h, within the product where it can be: it is as large as the head."""
    if g.dtype == total.dtype:
        total.addmm_(g.T, h)
    elif g.is_cuda and total.dtype == torch.float32:  # halves multiplied, float32 added
        torch.addmm(total, g.T, h, out_dtype=torch.float32, out=total)
    else:
        total.add_(g.T @ h)


def rows_at_once(V: int, device: torch.device) -> int:
    """How many tokens of V words make a chunk: what fills a GPU, or stays near a CPU's cache.

    >>> rows_at_once(32768, torch.device("cpu"))
    128
    """
    rows, least, most = (2**27, 128, 2048) if device.type == "cuda" else (2**21, 128, 1024)
    return max(least, min(most, rows // V // 128 * 128))


class _Fused(torch.autograd.Function):
    """The loss's sum over the tokens that count, and their terms (N,).

    From both sides' hidden (N, H), weight (V, H) and bias (V,) or None.
    """

    @staticmethod
    def forward(
        ctx,
        hidden,
        weight,
        bias,
        teacher_hidden,
        teacher_weight,
        teacher_bias,
        labels,
        objective,
        chunk,
        with_hard,
    ):
        wide = torch.promote_types(weight.dtype, torch.float32)
        of_chunk = _Chunk.of(objective, with_hard, wide)

        def answers(rows, hidden, weight, bias):
            hidden = hidden[rows].to(weight.dtype)
            return hidden, F.linear(hidden, weight, bias)

        compiling = compiles(hidden.device)
        student, teacher = (
            [x if x is None else x.to(_as_head(w)) for x in (w, b)]
            for w, b in ((weight, bias), (teacher_weight, teacher_bias))
        )
        of_hidden, of_weight, of_bias = grads = [
            torch.zeros_like(x, dtype=wide) if needed else None
            for x, needed in zip((hidden, weight, bias), ctx.needs_input_grad[:3], strict=True)
        ]
        soft, hard = torch.zeros(2, len(labels), dtype=wide, device=hidden.device)
        for rows in (labels >= 0).nonzero()[:, 0].split(chunk):
            h, z = answers(rows, hidden, *student)
            teacher_z = answers(rows, teacher_hidden, *teacher)[1]
            # a last chunk of another length would be compiled anew
            whole_one = compiling and len(rows) == chunk
            formula = _compiled(of_chunk) if whole_one else functools.partial(_by_parts, of_chunk)
            soft[rows], hard[rows], g = formula(z, teacher_z, labels[rows])
            if of_bias is not None:
                of_bias += g.sum(0, dtype=wide)
            if of_hidden is not None:
                of_hidden[rows] = (g @ student[0]).to(wide)
            if of_weight is not None:
                _add_product(of_weight, g, h)
        ctx.dtypes = [x if x is None else x.dtype for x in (hidden, weight, bias)]
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(soft, hard)
        return _weighted(objective, soft, hard).sum(), soft, hard

    @staticmethod
    def backward(ctx, scale, *_):
        once()
        grads = [
            x if x is None else (x * scale).to(dtype)
            for x, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *grads, *[None] * 7


def _check(name, hidden, head):
    if not torch.is_tensor(hidden) or not hidden.is_floating_point() or hidden.ndim == 0:
        came = hidden.dtype if torch.is_tensor(hidden) else type(hidden).__name__
        raise TypeError(
            f"linear_divergence: {name}_hidden must be a floating-point tensor (..., H), got {came}"
        )
    # another forward (a quantised layer, an adapter) would give other logits than the weight does
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
        raise TypeError(
            f"linear_divergence: {name}_head must be a plain nn.Linear, got {type(head).__name__}"
        )
    if hidden.shape[-1] != head.weight.shape[1]:
        raise ValueError(
            f"linear_divergence: {name}_hidden must be (..., {head.weight.shape[1]}) "
            f"to fit {name}_head, got {tuple(hidden.shape)}"
        )


def known_divergence(objective: TokenLoss) -> bool:
    """True where the gradient of the objective's divergence is known in closed form.

    >>> known_divergence(TokenLoss())
    True
    """
    name = getattr(objective.divergence, "__name__", None)
    return name in FORMULAS and objective.divergence is getattr(divergences, name)


def _check_objective(objective):
    """A TokenLoss with one of FORMULAS."""
    if type(objective) is not TokenLoss:
        raise TypeError(
            f"linear_divergence: objective must be a kdlab.TokenLoss, got {objective!r}"
        )
    if not known_divergence(objective):
        known = list(FORMULAS)
        raise ValueError(
            f"linear_divergence: objective must have a divergence of {known}, "
            f"got {objective.divergence!r}; "
            "for another take objective(student_logits, teacher_logits, labels)"
        )
    # its options, checked in its own words
    objective.divergence(*torch.zeros(2, 1, 2), **objective.options)


def _check_fit(student_hidden, student_head, teacher_hidden, teacher_head, vocab_size):
    """The tokens that exist; or the error for sides that don't fit each other."""
    widths = len(student_head.weight), len(teacher_head.weight)
    rows, V = student_hidden.shape[:-1], widths[0] if vocab_size is None else vocab_size
    if type(V) is not int or not 1 <= V <= min(widths) and vocab_size is not None:
        raise ValueError(
            "linear_divergence: vocab_size must be a whole number from 1 to the narrower "
            f"of the widths {widths}, got {vocab_size!r}"
        )
    if teacher_hidden.shape[:-1] != rows:
        raise ValueError(
            f"linear_divergence: student_hidden {tuple(student_hidden.shape)} and teacher_hidden "
            f"{tuple(teacher_hidden.shape)} must have the same tokens (all axes but the last)"
        )
    if widths[0] != widths[1] and vocab_size is None:
        raise ValueError(
            "linear_divergence: student_head and teacher_head must share the vocabulary, "
            f"got {widths[0]} and {widths[1]} tokens; where one tokenizer's heads are padded "
            "to other widths give vocab_size, for other vocabularies see kdlab.losses.uld"
        )
    return V


def _columns(head, V):
    """Weight and bias of the first V tokens; whole where there are no others."""
    if V == len(head.weight):
        return head.weight, head.bias
    return head.weight[:V], None if head.bias is None else head.bias[:V]


def linear_divergence(
    student_hidden: Tensor,
    student_head: nn.Linear,
    teacher_hidden: Tensor,
    teacher_head: nn.Linear,
    labels: Tensor,
    objective: Objective | None = None,
    chunk: int | None = None,
    reduction: str = "mean",
    vocab_size: int | None = None,
) -> Tensor:
    """`TokenLoss` of two heads' logits (tokens, V), which never stand in memory all at once.

        objective(student_head(student_hidden), teacher_head(teacher_hidden), labels)

    student_hidden, teacher_hidden: (..., H_s) and (..., H_t), already shifted onto the labels
    (`next_token` does so). student_head, teacher_head: plain nn.Linear with weights (V, H_s) and
    (V, H_t), whose answers are the logits as they are, without a soft cap; a bias of −inf rules a
    class out. labels: (...), integers or −100 (does not count; the row may hold anything).
    objective: a TokenLoss, by default the forward KL. chunk: tokens at a time, None for as many as
    suit V and the device. vocab_size: the
    tokens that exist, where a head is padded to a round width (`mask_padding`): the other columns
    have no probability and no gradient, and the heads' widths may differ. Returns the mean in nats
    over the tokens that count, or with reduction="sum" their sum; 0, with zero gradients, where
    none does. Gradients go to student_hidden and student_head, never to the teacher, and are ready
    when the value is: they cannot be differentiated again (RuntimeError). Logits come in the head's
    dtype (or autocast's), all else is float32 or better. Raises TypeError or ValueError on what
    does not fit, and on NaN or +inf logits. Source: Hsu et al. 2024 (Liger Kernel),
    FusedLinearCrossEntropy.

    >>> student, teacher = nn.Linear(4, 32), nn.Linear(8, 32)
    >>> h, h_teacher = torch.randn(2, 5, 4), torch.randn(2, 5, 8)
    >>> labels = torch.zeros(2, 5, dtype=torch.long)
    >>> loss = linear_divergence(h, student, h_teacher, teacher, labels, TokenLoss(alpha=0.5))
    >>> torch.allclose(loss, TokenLoss(alpha=0.5)(student(h), teacher(h_teacher), labels))
    True
    """
    one_of("linear_divergence", "reduction", reduction, ["mean", "sum"])
    terms = fused_terms(
        student_hidden,
        student_head,
        teacher_hidden,
        teacher_head,
        labels,
        objective,
        chunk,
        vocab_size,
    )
    total = terms["total"]
    return total if reduction == "sum" else total / (labels >= 0).sum().clamp_min(1)


def fused_terms(
    student_hidden,
    student_head,
    teacher_hidden,
    teacher_head,
    labels,
    objective=None,
    chunk=None,
    vocab_size=None,
    with_hard=False,
):
    """What `linear_divergence` adds up, and its parts a token.

    {"total": the sum in nats, with gradients; "loss", "soft", "hard": a value a token (...),
    without}. with_hard: also where the objective leaves the hard term out, which is NaN else.

    >>> student, teacher = nn.Linear(4, 32), nn.Linear(8, 32)
    >>> labels = torch.zeros(2, 5, dtype=torch.long)
    >>> terms = fused_terms(torch.randn(2, 5, 4), student, torch.randn(2, 5, 8), teacher, labels)
    >>> terms["soft"].shape, terms["hard"].isnan().all().item()
    (torch.Size([2, 5]), True)
    """
    objective = TokenLoss() if objective is None else objective
    _check_objective(objective)
    _check("student", student_hidden, student_head)
    _check("teacher", teacher_hidden, teacher_head)
    V = _check_fit(student_hidden, student_head, teacher_hidden, teacher_head, vocab_size)
    rows = student_hidden.shape[:-1]
    if chunk is None:
        chunk = rows_at_once(V, student_hidden.device)
    chunk = whole("linear_divergence", "chunk", chunk, least=1)
    labels = check_labels("linear_divergence", labels, rows, V).reshape(-1)
    sides = [
        x
        for h, head in ((student_hidden, student_head), (teacher_hidden, teacher_head))
        for x in (h.reshape(-1, h.shape[-1]), *_columns(head, V))
    ]
    if not torch.is_grad_enabled():
        # else gradients would be taken all the same
        sides = [x if x is None else x.detach() for x in sides]
    total, *terms = _Fused.apply(*sides, labels, objective, chunk, with_hard)
    if total.isnan():
        raise ValueError(
            "linear_divergence: the logits of a token that counts hold NaN or +inf; "
            "expected finite numbers, or −inf for a class that is ruled out"
        )
    soft, hard = (x.view(rows) for x in terms)
    return {"total": total, "loss": _weighted(objective, soft, hard), "soft": soft, "hard": hard}
