"""Two vocabularies: padded to other widths, or different altogether."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.base.arguments import fits, logits
from kdlab.losses.divergences import (
    check_logits,
    check_mask,
    check_temperature,
    log_softmax,
    reduce_rows,
)


def mask_padding(
    student_logits: Tensor, teacher_logits: Tensor, vocab_size: int | None
) -> tuple[Tensor, Tensor]:
    """Both logits without the columns that stand for no token.

    (..., V_s), (..., V_t) → (..., V), (..., V). Embeddings are padded to round widths (Qwen2.5:
    151,936 or 152,064 columns for one tokenizer of 151,665 tokens). Cutting gives the padding
    probability exactly 0 and no gradient, as a logit of −inf would; filling the narrower side up
    with logits of 0 would give it a share of the mass.
    vocab_size: the tokens that exist, as in `same_tokenizer(a, b).vocab_size`. Raises ValueError
    where a side is narrower.

    >>> s, t = mask_padding(torch.zeros(2, 8), torch.zeros(2, 6), 5)
    >>> s.shape, t.shape
    (torch.Size([2, 5]), torch.Size([2, 5]))
    """
    for key, z in [("student_logits", student_logits), ("teacher_logits", teacher_logits)]:
        logits("mask_padding", key, z, "(..., V)")
    widths = student_logits.shape[-1], teacher_logits.shape[-1]
    if type(vocab_size) is not int or not 1 <= vocab_size <= min(widths):
        raise ValueError(
            "mask_padding: vocab_size must be a whole number from 1 to the narrower of the widths "
            f"{widths}, got {vocab_size!r} for these student_logits and teacher_logits"
        )
    return student_logits[..., :vocab_size], teacher_logits[..., :vocab_size]


def uld(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_mask: Tensor | None = None,
    teacher_mask: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Universal logit distillation, between two vocabularies with nothing in common.

        Σ_i |p_(i) − q_(i)|,   p_(1) ≥ p_(2) ≥ …,   p, q = softmax(logits / T)

    The cheapest way to pair the tokens of two vocabularies one to one, where a pair costs the
    difference of its probabilities; the smaller vocabulary is filled up with probability 0. In
    [0, 2). It sees how sure the teacher is, never of what: a student as sure of nonsense has loss
    0, so it needs the text's own labels beside it.

    student_logits (..., L_s, V_s), teacher_logits (..., L_t, V_t): the k-th position that counts of
    the one faces the k-th of the other, and what is left of the longer is cut. That is the paper's
    alignment; it drifts as soon as one tokenizer cuts finer (`align` finds better pairs).
    student_mask (..., L_s), teacher_mask (..., L_t): true where a position counts. Returns the mean
    over all pairs (the authors' code: over texts, of each text's mean), or with reduction="rows"
    (..., min(L_s, L_t)), 0 where there is no pair. Raises ValueError or TypeError as `forward_kl`.
    Source: Boizard, El Haddad, Hudelot, Colombo 2024, section 3.

    >>> sure, unsure = torch.tensor([[0.0, 99.0, 0.0]]), torch.zeros(1, 2)
    >>> [round(uld(sure, z).item(), 4) for z in (unsure, torch.tensor([[99.0, 0.0]]))]
    [1.0, 0.0]
    """
    sides = [("student", student_logits, student_mask), ("teacher", teacher_logits, teacher_mask)]
    for key, z, _ in sides:
        if not torch.is_tensor(z) or not z.is_floating_point() or z.ndim < 2:
            came = (z.dtype, tuple(z.shape)) if torch.is_tensor(z) else type(z).__name__
            raise TypeError(
                f"uld: {key}_logits must be a floating-point tensor (..., L, V), got {came}"
            )
    if student_logits.shape[:-2] != teacher_logits.shape[:-2]:
        raise ValueError(
            f"uld: student_logits {tuple(student_logits.shape)} "
            f"and teacher_logits {tuple(teacher_logits.shape)} must hold as many texts"
        )
    for key, z, mask in sides:
        if mask is not None and getattr(mask, "shape", ()) != z.shape[:-1]:
            came = tuple(mask.shape) if torch.is_tensor(mask) else type(mask).__name__
            raise ValueError(
                f"uld: {key}_mask must have the shape of the rows of {key}_logits"
                f" {tuple(z.shape[:-1])}, got {came}"
            )
        if mask is not None:
            check_mask("uld", f"{key}_mask", mask, z.shape[:-1])
    temperature = check_temperature("uld", temperature)
    L, V = min(z.shape[-2] for _, z, _ in sides), max(z.shape[-1] for _, z, _ in sides)
    (student_logits, mask), (teacher_logits, other) = (
        _in_order(z, mask, L, V) for _, z, mask in sides
    )
    pairs = mask & other
    fits("uld", "temperature", temperature, student_logits.shape)
    both = check_logits("uld", student_logits, teacher_logits, pairs)
    q, p = (log_softmax(z, temperature).exp().sort(-1, descending=True).values for z in both)
    return reduce_rows("uld", (p - q).abs().sum(-1), pairs, reduction)


def _in_order(logits, mask, length, width):
    """The positions that count, in front, and which do: (..., length, width), (..., length)."""
    mask = torch.ones_like(logits[..., 0], dtype=torch.bool) if mask is None else mask.bool()
    first = (~mask).byte().argsort(dim=-1, stable=True)[..., :length]
    kept = logits.gather(-2, first[..., None].expand(*first.shape, logits.shape[-1]))
    return F.pad(kept, (0, width - logits.shape[-1]), value=-torch.inf), mask.gather(-1, first)
