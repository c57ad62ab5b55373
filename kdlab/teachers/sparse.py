"""A teacher in few numbers: its top k tokens with a bucket for the rest, tokens drawn from it, or
its last layer.

p is the teacher's distribution over V tokens, q the student's, both softmax(logits / T). What is
stored for a token:

    all logits      V numbers                                exact
    `TopK`          k tokens, k log-probabilities, the tail  a lower bound of every divergence
    `Samples`       n tokens, n weights                      unbiased cross-entropy, with variance
    `Head`          H numbers, and the head once             exact
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.losses.divergences import (
    FLOOR,
    check_temperature,
    forward_kl,
    kl_rows,
    log_softmax,
    reduce_rows,
)

CHANGES_LOGITS = (
    "final_logit_softcapping",
    "logits_scaling",
    "logit_scale",
)  # what some models do after their head


def _check(name, key, logits, mask=None):
    """The logits (..., V) in float32 or better, −inf as a low number, masked rows 0; or the error
    that says why not."""
    if not torch.is_tensor(logits) or not logits.is_floating_point() or not logits.ndim:
        kind = logits.dtype if torch.is_tensor(logits) else type(logits).__name__
        raise TypeError(f"{name}: {key} must be a floating-point tensor (..., V), got {kind}")
    if mask is not None:
        if not torch.is_tensor(mask) or mask.shape != logits.shape[:-1]:
            came = tuple(mask.shape) if torch.is_tensor(mask) else type(mask).__name__
            raise ValueError(
                f"{name}: mask must have the shape of the rows {tuple(logits.shape[:-1])}, got"
                f" {came}"
            )
        logits = torch.where(
            mask.bool()[..., None], logits, 0.0
        )  # a masked row may hold anything, NaN included
    if bad := int((torch.isnan(logits) | (logits == torch.inf)).sum()):
        raise ValueError(
            f"{name}: {key} holds {bad} NaN or +inf values; expected finite numbers, or −inf for a"
            " token that is ruled out"
        )
    if empty := int(torch.isneginf(logits).all(-1).sum()):
        raise ValueError(
            f"{name}: {key} rules out every token in {empty} rows; expected a finite logit in each"
        )
    return (logits if logits.dtype == torch.float64 else logits.float()).clamp_min(FLOOR)


def _fit(name, indices, student_logits, mask):
    """indices (..., n) beside student_logits (..., V), 0 in masked rows; ValueError where they name
    no tokens of it."""
    rows, V = student_logits.shape[:-1], student_logits.shape[-1]
    if indices.shape[:-1] != rows:
        raise ValueError(
            f"{name}: student_logits must have the teacher's rows {tuple(indices.shape[:-1])}, got "
            f"{tuple(student_logits.shape)}"
        )
    indices = indices.to(student_logits.device).long()
    indices = indices if mask is None else torch.where(mask.bool()[..., None], indices, 0)
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < V:
        raise ValueError(
            f"{name}: the teacher's indices must lie in [0, {V}), the student's vocabulary, got "
            f"{int(indices.min())} to {int(indices.max())}"
        )
    return indices


def _log_rest(log_q, indices):
    """The log-mass of all but `indices`, (..., V), (..., k) → (...); −1e30 and no gradient where
    nothing is left."""
    return log_q.scatter(-1, indices, FLOOR).logsumexp(
        -1
    )  # 1 − Σ would cancel where the rest is small


def log_tail(log_probs: Tensor) -> Tensor:
    """log(1 − Σ p), the mass of what is not listed: (..., k) → (...). For a teacher that tells its
    top k only.

    log_probs: true log-probabilities. Σ p of 1 and more gives −1e30. In float32 a tail under about
    1e-7 drowns in rounding; `top_k`, which sees all logits, sums the rest instead.

    >>> log_tail(torch.tensor([0.5, 0.25]).log()).exp()
    tensor(0.2500)
    """
    kept = (
        (log_probs if log_probs.dtype == torch.float64 else log_probs.float())
        .logsumexp(-1)
        .clamp_max(0)
    )
    rest = torch.where(
        kept > -0.6931, (-torch.expm1(kept)).log(), torch.log1p(-kept.exp())
    )  # Mächler 2012, eq. 7
    return rest.clamp_min(FLOOR)


@dataclass(frozen=True, eq=False)
class TopK:
    """A teacher's k likeliest tokens a row, made by `top_k` or from stored tensors of any int and
    float type.

    indices: (..., k). log_probs: (..., k), under the full softmax at T, so that they sum to less
    than 1. tail: (...), the log-mass of all other tokens. temperature: T, at which the student is
    softened too. sampled: the k are draws (`counted`), right on average with the forward KL alone.

    >>> teacher = TopK(torch.tensor([[1]]), torch.tensor([[0.5]]).log(), torch.tensor([0.5]).log())
    >>> round(teacher.forward_kl(torch.zeros(1, 4)).item(), 4)  # ½ log(½ / ¼) + ½ log(½ / ¾)
    0.1438
    """

    indices: torch.Tensor
    log_probs: torch.Tensor
    tail: torch.Tensor
    temperature: float = 1.0
    sampled: bool = False

    def __post_init__(self):
        check_temperature("TopK", self.temperature)
        i, p, t = (tuple(x.shape) for x in (self.indices, self.log_probs, self.tail))
        if not i or i != p or t != i[:-1]:
            raise ValueError(
                f"TopK: indices and log_probs must be (..., k) and tail (...), got {i}, {p} and {t}"
            )

    def buckets(
        self, student_logits: Tensor, mask: Tensor | None = None, renormalise: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Student and teacher as log-probabilities of k + 1 outcomes, the k tokens and the rest:
        two (..., k + 1).

        Log-probabilities are logits, so any divergence takes them:
        `reverse_kl(*teacher.buckets(student_logits))`, with its own temperature left at 1 and the
        same mask. By the data-processing inequality it is at most the divergence over V.
        renormalise: the teacher's k sum to 1 and its rest is (all but) 0, see `forward_kl`.
        student_logits: (..., V), not softened; mask: (...), true where a row counts. ValueError
        where rows differ."""
        z = _check("TopK.buckets", "student_logits", student_logits, mask)
        indices, log_p, tail = (
            _fit("TopK.buckets", self.indices, z, mask),
            self.log_probs.to(z),
            self.tail.to(z),
        )
        log_q = log_softmax(z, self.temperature)
        student = torch.cat([log_q.gather(-1, indices), _log_rest(log_q, indices)[..., None]], -1)
        if renormalise:
            log_p, tail = log_softmax(log_p), torch.full_like(tail, FLOOR)
        teacher = torch.cat([log_p, tail[..., None]], -1).clamp_min(FLOOR)
        return student, teacher

    def forward_kl(
        self,
        student_logits: Tensor,
        cut: str = "tail",
        mask: Tensor | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        """KL(teacher ‖ student) from what is kept (K are the k tokens), in nats, by three
        treatments of what is cut.

            "tail"          Σ_K p (log p − log q) + p_tail (log p_tail − log q_tail)
            "renormalise"   Σ_K p̂ (log p̂ − log q),   p̂ = p / Σ_K p
            "truncate"      Σ_K p (log p − log q)

        "tail" is a divergence over k + 1 outcomes, at most the KL over V. On the k logits its
        gradient is the full one, (q − p) / T; on the others only their sum is: inside the tail the
        student is not told anything. The other two show what goes wrong. "renormalise" is least at
        q = p̂, not at q = p: it drives the student's tail to 0. "truncate" is no divergence: a
        student that copies the teacher scores 0 and another less than 0. Source: Anshumann et al.
        2025 on the bias of the last two."""
        if cut not in ("tail", "renormalise", "truncate"):
            raise ValueError(
                f"TopK.forward_kl: cut must be 'tail', 'renormalise' or 'truncate', got {cut!r}"
            )
        student, teacher = self.buckets(student_logits, mask, cut == "renormalise")
        if cut != "truncate":
            return forward_kl(student, teacher, mask=mask, reduction=reduction)
        rows = kl_rows(teacher[..., :-1], student[..., :-1])  # no divergence: may be below 0
        return reduce_rows("TopK.forward_kl", rows, mask, reduction, below_zero=True)


def top_k(logits: Tensor, k: int, temperature: float = 1.0) -> TopK:
    """The teacher's k likeliest tokens of each row, with true log-probabilities: (..., V) → `TopK`.

    k: 1 to V; at V the tail is empty. ValueError or TypeError for NaN, k out of range or T ≤ 0.

    >>> kept = top_k(torch.tensor([0.5, 0.125, 0.25, 0.125]).log(), 2)
    >>> kept.indices, kept.log_probs.exp(), kept.tail.exp()
    (tensor([0, 2]), tensor([0.5000, 0.2500]), tensor(0.2500))
    """
    log_p = _softened("top_k", logits, temperature)
    if not isinstance(k, int) or not 1 <= k <= log_p.shape[-1]:
        raise ValueError(
            f"top_k: k must be a whole number from 1 to V = {log_p.shape[-1]}, got {k!r}"
        )
    log_probs, indices = log_p.topk(k)
    return TopK(indices, log_probs, _log_rest(log_p, indices), temperature)


def _softened(name, logits, temperature):
    check_temperature(name, temperature)
    return log_softmax(
        _check(name, "logits", logits.detach() if torch.is_tensor(logits) else logits), temperature
    )


@dataclass(frozen=True, eq=False)
class Samples:
    """Tokens drawn from a teacher, made by `sample`: indices (..., n), weights (..., n) and the
    temperature T.

    A token drawn twice stands twice. With the teacher itself as proposal each weight is 1 / n, so
    that a token's weights add up to its share of the draws.

    >>> drawn = Samples(torch.tensor([[0, 0, 3]]), torch.full((1, 3), 1 / 3))
    >>> round(drawn.cross_entropy(torch.zeros(1, 4)).item(), 4)  # log 4
    1.3863
    """

    indices: torch.Tensor
    weights: torch.Tensor
    temperature: float = 1.0

    def __post_init__(self):
        check_temperature("Samples", self.temperature)
        if not self.indices.ndim or self.indices.shape != self.weights.shape:
            raise ValueError(
                "Samples: indices and weights must be (..., n), got "
                f"{tuple(self.indices.shape)} and {tuple(self.weights.shape)}"
            )

    def cross_entropy(
        self, student_logits: Tensor, mask: Tensor | None = None, reduction: str = "mean"
    ) -> Tensor:
        """The soft cross-entropy −Σ_i w_i log q(x_i) in nats: over draws, right on average, and so
        is its gradient.

            E[−Σ_i w_i log q(x_i)] = −Σ_v p(v) log q(v) = KL(p ‖ q) + H(p)

        The teacher's entropy H(p) is constant for the student: minimising this minimises the
        forward KL. student_logits: (..., V), not softened; mask: (...), true where a row counts.
        Errors as in `TopK.buckets`."""
        z = _check("Samples.cross_entropy", "student_logits", student_logits, mask)
        log_q = log_softmax(z, self.temperature).gather(
            -1, _fit("Samples.cross_entropy", self.indices, z, mask)
        )
        return reduce_rows(
            "Samples.cross_entropy", -(self.weights.to(z) * log_q).sum(-1), mask, reduction
        )


def sample(
    logits: Tensor,
    n: int,
    temperature: float = 1.0,
    proposal_temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Samples:
    """n tokens a row, drawn with replacement, that stand for the whole teacher without bias: (...,
    V) → `Samples`.

        x_i ~ r = softmax(logits / (T · τ)),   w_i = p(x_i) / (n · r(x_i))

    τ = proposal_temperature: 1 draws from the teacher itself; above 1, rare tokens more often and
    lighter. Then the weights sum to 1 on average only; the paper divides them by their sum, which
    for τ ≠ 1 costs a bias of order 1 / n, so here they are left. generator: a torch.Generator on
    the logits' device. Source: Anshumann et al. 2025 (Sparse Logit Sampling), Random Sampling
    Knowledge Distillation.

    >>> drawn = sample(torch.zeros(5, 100), 8)
    >>> drawn.indices.shape, drawn.weights[0, 0].item()
    (torch.Size([5, 8]), 0.125)
    """
    log_p = _softened("sample", logits, temperature)
    check_temperature("sample", proposal_temperature)
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"sample: n must be a whole number of at least 1, got {n!r}")
    log_r = log_softmax(log_p, proposal_temperature)
    flat = torch.multinomial(
        log_r.exp().reshape(-1, log_r.shape[-1]), n, replacement=True, generator=generator
    )
    indices = flat.view(*log_p.shape[:-1], n)
    # the teacher as its own proposal: p / r is exactly 1, without rounding
    ratio = 1.0 if proposal_temperature == 1 else (log_p - log_r).gather(-1, indices).exp()
    return Samples(indices, torch.full_like(indices, 1 / n, dtype=log_p.dtype) * ratio, temperature)


def counted(drawn: Samples, V: int) -> TopK:
    """Draws as the distribution that they are: each token once, (..., n) → `TopK` (..., n).

        p̂(v) = (how often v was drawn) / n,   E[p̂] = p

    drawn: of `sample` with its proposal_temperature at 1. V: the vocabulary, at least n. Those most
    drawn come first; the places that are over hold tokens that were not drawn, of probability 0, as
    is the tail. The gradient of the forward KL is linear in p̂, so over draws it is the one over the
    whole vocabulary (its value is not: draws are less spread than p). Other divergences aren't
    linear. ValueError for weights that differ, or V below n. Source: Anshumann et al. 2025, Random
    Sampling Knowledge Distillation.

    >>> kept = counted(Samples(torch.tensor([3, 0, 3, 3]), torch.full((4,), 0.25)), V=5)
    >>> kept.indices, kept.log_probs.exp()
    (tensor([3, 0, 1, 2]), tensor([0.7500, 0.2500, 0.0000, 0.0000]))
    """
    n = drawn.indices.shape[-1]
    if n > V:
        raise ValueError(f"counted: V must be at least the {n} draws a row, got {V}")
    if not torch.allclose(drawn.weights, torch.full_like(drawn.weights, 1 / n)):
        raise ValueError(
            "counted: drawn must be drawn from the teacher itself (proposal_temperature 1), got "
            "weights that differ"
        )
    ids, place = drawn.indices.sort(-1).values, torch.arange(n, device=drawn.indices.device)
    first = torch.searchsorted(ids, ids)
    counts = torch.where(first == place, torch.searchsorted(ids, ids, right=True) - first, 0)
    counts, order = counts.sort(dim=-1, descending=True, stable=True)
    # of any 2 n tokens, or of all, enough were not drawn
    among = min(V, 2 * n)
    was = torch.zeros(*ids.shape[:-1], among + 1, dtype=torch.bool, device=ids.device)
    was = was.scatter(-1, ids.clamp_max(among), True)[..., :among]
    others = was.byte().argsort(dim=-1, stable=True)
    over = (place - (counts > 0).sum(-1, keepdim=True)).clamp_min(0)
    indices = torch.where(counts > 0, ids.gather(-1, order), others.gather(-1, over))
    log_probs = (counts.to(drawn.weights) / n).log().clamp_min(FLOOR)
    tail = torch.full_like(log_probs[..., 0], FLOOR)
    return TopK(indices, log_probs, tail, drawn.temperature, sampled=True)


@dataclass(frozen=True, eq=False)
class Head:
    """The last layer of a language model, kept once, so that H numbers a token give its V logits
    back.

        logits = hidden · weightᵀ + bias,   (..., H) → (..., V)

    weight: (V, H); bias: (V,) or None. hidden: what enters the head, after the last norm, as in
    `hidden_states[-1]` of transformers' Llama. Exact to the last bit or, where another batch shape
    sums in another order, nearly.

    >>> Head(torch.eye(2, 3))(torch.tensor([1.0, 2.0, 3.0]))
    tensor([1., 2.])
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None

    @classmethod
    def of(cls, model: Any) -> "Head":
        """The head of a transformers model, detached; ValueError where the model changes the logits
        after it."""
        if after := [
            key for key in CHANGES_LOGITS if getattr(model.config, key, None) not in (None, 1, 1.0)
        ]:
            raise ValueError(
                f"Head.of: model must end with its head, but its configuration sets {after}; store"
                " logits"
            )
        head = model.get_output_embeddings()
        return cls(
            head.weight.detach(),
            None if getattr(head, "bias", None) is None else head.bias.detach(),
        )

    def __call__(self, hidden: Tensor) -> Tensor:
        if hidden.shape[-1] != self.weight.shape[-1]:
            raise ValueError(
                f"Head: hidden must be (..., {self.weight.shape[-1]}), got {tuple(hidden.shape)}"
            )
        return F.linear(hidden.to(self.weight), self.weight, self.bias)
