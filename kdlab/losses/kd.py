"""The distillation loss, of classes or tokens: a teacher's soft term, the labels' hard one."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kdlab.base.arguments import fits, instance, number, number_or_tensor, one_of, share
from kdlab.losses import closed_form
from kdlab.losses.divergences import (
    check_logits,
    check_shapes,
    check_temperature,
    forward_kl,
    kl_rows,
    reduce_rows,
)
from kdlab.losses.protocol import Objective
from kdlab.losses.softmax import FLOOR, log_softmax


def cross_entropy_rows(logits, labels, smoothing=0.0):
    """−log softmax(logits)[label], smoothed: (..., C), (...) → (...); 0 where the label is −100."""
    plain = not torch.is_tensor(smoothing) and not smoothing
    if plain and closed_form.takes(logits, logits.detach(), 1.0):
        return closed_form.cross_entropy(logits, labels)
    log_q = log_softmax(logits)
    hard = -log_q.gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    if not plain:
        hard = (1 - smoothing) * hard - smoothing * log_q.mean(-1)
    return torch.where(labels >= 0, hard, 0.0)


def check_labels(name, labels, rows, classes, mask=None):
    """The labels, −100 where masked; or the error that says what is wrong with them."""
    whole = torch.is_tensor(labels) and not (labels.is_floating_point() or labels.is_complex())
    if not whole or labels.dtype == torch.bool:
        kind = labels.dtype if torch.is_tensor(labels) else type(labels).__name__
        raise TypeError(f"{name}: labels must be an integer tensor, got {kind}")
    if tuple(labels.shape) != tuple(rows):
        raise ValueError(
            f"{name}: labels must have the shape of the rows {tuple(rows)}, "
            f"got {tuple(labels.shape)}"
        )
    labels = labels.long() if mask is None else torch.where(mask.bool(), labels.long(), -100)
    bad = labels[(labels != -100) & ((labels < 0) | (labels >= classes))]
    if bad.numel():
        raise ValueError(
            f"{name}: labels must lie in [0, {classes}) or be −100 (does not count), "
            f"got {int(bad[0])}"
        )
    return labels


def per_row(value):
    """A value a replica, (R, 1, 1) beside logits (R, B, C), as (R, 1) beside rows (R, B)."""
    return value[..., 0] if torch.is_tensor(value) and value.ndim else value


def standardise(logits):
    """z-scores over the classes that are not ruled out: mean 0, SD 1 (that of a population)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    keep = logits > FLOOR / 2
    count = keep.sum(-1, keepdim=True).clamp_min(1)
    z = torch.where(keep, logits, 0.0)
    z = torch.where(keep, z - z.sum(-1, keepdim=True) / count, 0.0)
    return torch.where(
        keep, z / (torch.linalg.vector_norm(z, dim=-1, keepdim=True) / count.sqrt() + 1e-7), FLOOR
    )


class Distilling(Objective):
    """An objective with a soft term from the teacher and a hard one from the labels, each weighted.

        loss = weights[0] · soft(student, teacher, labels) + weights[1] · CE(labels, student)

    A subclass writes `soft`, and where they are its own `weights` and `check`.
    """

    temperature: Any
    below_zero = False  # whether a row may be: an estimate of a divergence may, a divergence not

    @property
    def weights(self) -> tuple[Any, Any]:
        """What the soft and the hard term are multiplied by."""
        return per_row(self.temperature) ** 2, 1.0

    def soft(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The soft term a row, without its weight: (..., C), (..., C), (...) → (...)."""
        raise NotImplementedError(f"{type(self).__name__} must define soft")

    def hard(self, student_logits: Tensor, labels: Tensor) -> Tensor:
        """The hard term a row, without its weight: (..., C), (...) → (...)."""
        return cross_entropy_rows(student_logits, labels)

    def check(self, student_logits: Tensor, labels: Tensor, mask: Tensor) -> None:
        """Raise the error for what this objective expects beyond the others."""

    def rows(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The terms a row, unchecked: {"loss", "soft", "hard"}, each (...).

        Every row counts, or those of the mask.
        """
        soft = self.soft(student_logits, teacher_logits, labels, mask)
        hard = self.hard(student_logits, labels)
        of_soft, of_hard = self.weights
        loss = of_soft * soft
        if torch.is_tensor(of_hard) or of_hard:
            loss = loss + of_hard * hard
        return {"loss": loss, "soft": soft, "hard": hard}

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        """The mean over the rows that count, or with reduction="rows" one value a row."""
        name = type(self).__name__
        check_shapes(name, student_logits, teacher_logits, mask)
        *rows, classes = student_logits.shape
        labels = check_labels(name, labels, rows, classes, mask)
        for key, value in vars(self).items():  # temperature, alpha, …: numbers, or one a replica
            fits(name, key, value, student_logits.shape)
        mask = self.counts(labels, mask)
        self.check(student_logits, labels, mask)
        student_logits, teacher_logits = check_logits(name, student_logits, teacher_logits, mask)
        terms = self.rows(student_logits, teacher_logits, labels, mask)
        return reduce_rows(name, terms["loss"], mask, reduction, below_zero=self.below_zero)

    def counts(self, labels: Tensor, mask: Tensor | None) -> Tensor:
        """Which rows count (...): those of the mask, without one those that have a label."""
        return labels >= 0 if mask is None else mask.bool()


class KDLoss(Distilling):
    """The distillation loss: the student matches softened teacher outputs, and the labels.

        alpha · T² · KL(p_T ‖ q_T) + (1 − alpha) · CE(labels, q_1)

    temperature T > 0 and alpha in [0, 1]: numbers, or tensors that broadcast against the logits,
    for example (R, 1, 1). scale: "T2" as written, which keeps the size of the soft gradient as T
    grows, "none" without T², or a number above 0 in its place. standardise: z-scores of both logits
    over the classes (mean 0, SD 1) take the logits' place in the soft term, before T divides them.
    Called with student_logits, teacher_logits (..., C) and labels (...), integers or −100; mask
    (...) is true where a row counts, without it the rows whose label is not −100. A row that counts
    without a label (an unlabelled transfer set) has only its soft term. Returns the mean over the
    rows that count, or with reduction="rows" one value a row. Source: Hinton, Vinyals, Dean 2015,
    section 2; standardise: Sun, Ren, Li, Wang, Cao 2024.

    >>> z = torch.tensor([[2.0, 0.0]])
    >>> KDLoss(temperature=4, alpha=1)(z, z, torch.tensor([0])).item()
    0.0
    """

    swept: Sequence[str] = ("temperature", "alpha")

    def __init__(
        self,
        temperature: float | Tensor = 4.0,
        alpha: float | Tensor = 0.9,
        scale: str | float = "T2",
        standardise: bool = False,
    ) -> None:
        self.temperature = check_temperature("KDLoss", temperature)
        self.alpha = number_or_tensor("KDLoss", "alpha", alpha, low=0, high=1)
        factor = isinstance(scale, (int, float)) and scale is not True and 0 < scale < math.inf
        if not factor and not (isinstance(scale, str) and scale in ("T2", "none")):
            raise ValueError(
                f"KDLoss: scale must be 'T2', 'none' or a number above 0, got {scale!r}"
            )
        self.scale = scale
        self.standardise = instance("KDLoss", "standardise", standardise, bool)

    @property
    def needs_labels(self) -> bool:
        """False where alpha is 1: then rows without a label count too."""
        return bool((torch.as_tensor(self.alpha) < 1).any())

    @property
    def weights(self) -> tuple[Any, Any]:
        """alpha · T² (or what `scale` puts in its place) and 1 − alpha."""
        alpha = per_row(self.alpha)
        if self.scale == "T2":
            return alpha * per_row(self.temperature) ** 2, 1 - alpha
        return alpha * (1.0 if self.scale == "none" else self.scale), 1 - alpha

    def soft(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """KL(p_T ‖ q_T) a row."""
        if self.standardise:
            student_logits, teacher_logits = (
                standardise(student_logits),
                standardise(teacher_logits),
            )
        T = self.temperature
        if closed_form.takes(student_logits, teacher_logits, T):
            return closed_form.rows("forward_kl", student_logits, teacher_logits, T, mask)
        return kl_rows(log_softmax(teacher_logits, T), log_softmax(student_logits, T))

    def settings(self) -> dict[str, Any]:
        """Those that are not as usual, after the temperature and alpha."""
        usual = {"scale": "T2", "standardise": False}
        return {k: v for k, v in vars(self).items() if usual.get(k, object()) != v}


class TokenLoss(KDLoss):
    """A divergence from the teacher on every token that counts, and the text's own next token.

        alpha · T² · D(p_T, q_T) + (1 − alpha) · CE(next token, q_1)

    divergence: a function of kdlab.losses.divergences (`forward_kl`, `reverse_kl`, `jsd`, …);
    options are its own (`beta` for jsd, `skew`). alpha in [0, 1], temperature T > 0, both numbers.
    scale: "T2" or "none" (without T²). Called as `KDLoss`, with logits (..., V) and labels (...)
    already shifted onto each other (`next_token`); a row labelled −100 does not count. Sources:
    Hinton, Vinyals, Dean 2015, section 2; Agarwal et al. 2024, eq. 2.

    >>> from kdlab import jsd
    >>> loss = TokenLoss(jsd, beta=0.1)
    >>> z = torch.randn(2, 5, 16)
    >>> round(loss(z, z, torch.zeros(2, 5, dtype=torch.long)).item(), 6)
    0.0
    """

    swept = ()

    def __init__(
        self,
        divergence: Callable = forward_kl,
        alpha: float = 1.0,
        temperature: float = 1.0,
        scale: str | float = "T2",
        **options: Any,
    ) -> None:
        if not callable(divergence):
            raise TypeError(
                "TokenLoss: divergence must be a function such as kdlab.forward_kl, "
                f"got {divergence!r}"
            )
        own = {"student_logits", "teacher_logits", "mask", "reduction"}  # given in each call
        if unknown := set(options) - (set(inspect.signature(divergence).parameters) - own):
            raise TypeError(
                "TokenLoss: divergence must take the options given, "
                f"got {sorted(unknown)} for {getattr(divergence, '__name__', divergence)}"
            )
        self.divergence, self.options = divergence, options
        self.alpha = share("TokenLoss", "alpha", alpha)
        self.temperature = number("TokenLoss", "temperature", temperature, above=0)
        self.scale = one_of("TokenLoss", "scale", scale, ["T2", "none"])

    def soft(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The divergence a row."""
        return self.divergence(
            student_logits,
            teacher_logits,
            temperature=self.temperature,
            mask=mask,
            reduction="rows",
            **self.options,
        )

    def hard(self, student_logits: Tensor, labels: Tensor) -> Tensor:
        """−log q(next token); NaN where its weight is 0: a vocabulary is long, and nobody asked."""
        if self.alpha == 1:
            return student_logits.new_full(labels.shape, math.nan, dtype=torch.float)
        if not closed_form.takes(student_logits, student_logits.detach(), 1.0):
            # what doesn't count may hold anything: replaced, its gradient is 0 and not NaN
            student_logits = torch.where((labels >= 0)[..., None], student_logits, 0.0)
        return super().hard(student_logits, labels)

    def rows(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The terms a token, {"loss", "soft", "hard"}, each (...); 0 where a label is −100."""
        return super().rows(student_logits, teacher_logits, labels, labels >= 0)

    def counts(self, labels: Tensor, mask: Tensor | None) -> Tensor:
        """Which tokens count (...): those that have a label."""
        return labels >= 0

    def settings(self) -> dict[str, Any]:
        """The divergence and its options first."""
        told = {"divergence": self.divergence, **self.options}
        return told | {
            k: v for k, v in super().settings().items() if k not in ("divergence", "options")
        }


class LabelSmoothing(Objective):
    """Cross-entropy to labels that keep 1 − epsilon and spread the rest; no teacher.

        (1 − epsilon) · CE(label, q) + epsilon · mean_c(−log q(c))

    epsilon in [0, 1); 0 is `HardLabels`. Called like every objective; teacher_logits may be None.
    Rows labelled −100 do not count.
    Source: Szegedy et al. 2016, section 7.

    >>> round(LabelSmoothing(0.1)(torch.tensor([[2.0, 0.0]]), None, torch.tensor([0])).item(), 4)
    0.2269
    """

    needs_teacher = False

    def __init__(self, epsilon: float = 0.1) -> None:
        self.epsilon = number("LabelSmoothing", "epsilon", epsilon, low=0, below=1)

    def rows(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor
    ) -> dict[str, Tensor]:
        """The terms a row, unchecked: {"loss", "hard"}, each (...)."""
        loss = cross_entropy_rows(student_logits, labels, self.epsilon)
        return {
            "loss": loss,
            "hard": cross_entropy_rows(student_logits, labels) if self.epsilon else loss,
        }

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None,
        labels: Tensor,
        mask: Tensor | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        name = type(self).__name__
        check_shapes(name, student_logits, student_logits, mask)
        labels = check_labels(
            name, labels, student_logits.shape[:-1], student_logits.shape[-1], mask
        )
        student_logits, _ = check_logits(name, student_logits, student_logits, labels >= 0)
        return reduce_rows(
            name, self.rows(student_logits, None, labels)["loss"], labels >= 0, reduction
        )


class HardLabels(LabelSmoothing):
    """Plain cross-entropy to the labels: what a student minimises without a teacher.

    >>> round(HardLabels()(torch.tensor([[2.0, 0.0]]), None, torch.tensor([0])).item(), 4)
    0.1269
    """

    def __init__(self) -> None:
        super().__init__(0.0)

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}


class SquaredError(Objective):
    """For numbers instead of classes (a regression head): the teacher's and the label's.

        alpha · mean_k (s_k − t_k)² + (1 − alpha) · mean_k (s_k − y_k)²

    alpha in [0, 1]; at 0 no teacher is needed, at 1 no label. Called with student, teacher and
    labels (..., K); a row whose label is NaN has no label: it has only its soft term, and counts
    where alpha is 1. Returns the mean over the rows that count, or with reduction="rows" one value
    a row (...). Source: Ba and Caruana 2014, eq. 1 (there of logits).

    >>> student, teacher, label = (torch.tensor([[value]]) for value in (1.0, 3.0, 1.0))
    >>> SquaredError(0.5)(student, teacher, label).item()
    2.0
    """

    def __init__(self, alpha: float = 0.9) -> None:
        self.alpha = share("SquaredError", "alpha", alpha)

    @property
    def needs_teacher(self) -> bool:
        """False where alpha is 0."""
        return self.alpha > 0

    @property
    def needs_labels(self) -> bool:
        """False where alpha is 1."""
        return self.alpha < 1

    def rows(self, student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms a row, unchecked: {"loss", "soft", "hard"}, each (...)."""
        student = student if student.dtype == torch.float64 else student.float()
        labels = labels.to(student)
        teacher = teacher.to(student) if self.alpha else student.detach()
        soft = (student - teacher).square().mean(-1)
        known = ~labels.isnan().any(-1)
        hard = (student - torch.where(known[..., None], labels, student.detach())).square().mean(-1)
        return {"loss": self.alpha * soft + (1 - self.alpha) * hard, "soft": soft, "hard": hard}

    def __call__(
        self, student: Tensor, teacher: Tensor, labels: Tensor, reduction: str = "mean"
    ) -> Tensor:
        instance("SquaredError", "student", student, torch.Tensor, "a tensor (..., K)")
        for key, value in [("teacher", teacher), ("labels", labels)]:
            if not torch.is_tensor(value) or value.shape != student.shape:
                came = tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
                raise ValueError(
                    f"SquaredError: {key} must have the student's shape {tuple(student.shape)}, "
                    f"got {came}"
                )
        counts = ~labels.isnan().any(-1) if self.needs_labels else None
        return reduce_rows(
            "SquaredError", self.rows(student, teacher, labels)["loss"], counts, reduction
        )


def two_classes(logits):
    """Each label of a multi-label head as two classes, no and yes: (..., C) → (..., C, 2).

        softmax([0, z] / T) = [1 − σ(z / T), σ(z / T)]

    so that every objective for classes is its binary form, a label at a time.

    >>> two_classes(torch.tensor([[2.0]])).softmax(-1)[..., 1] == torch.tensor([[2.0]]).sigmoid()
    tensor([[True]])
    """
    return torch.stack([torch.zeros_like(logits), logits], -1)


def next_token(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each position beside the token it predicts: (B, L, V), (B, L) → (B, L − 1, V), (B, L − 1).

    labels are those of `transformers`: the input ids themselves, −100 where a token is not to be
    learnt (padding, the prompt). Position i of the logits answers for label i + 1.

    >>> z, y = next_token(torch.zeros(1, 3, 7), torch.tensor([[4, 5, -100]]))
    >>> z.shape, y
    (torch.Size([1, 2, 7]), tensor([[   5, -100]]))
    """
    for key, value in [("logits", logits), ("labels", labels)]:
        instance("next_token", key, value, torch.Tensor, "a tensor")
    if logits.ndim != 3 or tuple(labels.shape) != tuple(logits.shape[:2]):
        raise ValueError(
            "next_token: logits must be (B, L, V) and labels (B, L), "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    return logits[:, :-1], labels[:, 1:]
