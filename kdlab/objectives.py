"""What a student minimises: a loss a row from (student_logits, teacher_logits, labels)."""

import torch

from .divergences import check_logits, check_shapes, check_temperature, kl_rows, log_softmax, reduce_rows


def cross_entropy_rows(logits, labels, smoothing=0.0):
    """−log softmax(logits)[label], label smoothing included, (..., C), (...) → (...); 0 where a label is −100."""
    log_q = log_softmax(logits)
    hard = -log_q.gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    if torch.is_tensor(smoothing) or smoothing:
        hard = (1 - smoothing) * hard - smoothing * log_q.mean(-1)
    return torch.where(labels >= 0, hard, 0.0)


def check_labels(name, labels, rows, classes, mask=None):
    """The labels, −100 where masked; or the error that says what is wrong (expected: integers in [0, C) or −100)."""
    if not torch.is_tensor(labels) or labels.is_floating_point() or labels.dtype == torch.bool:
        kind = labels.dtype if torch.is_tensor(labels) else type(labels).__name__
        raise TypeError(f"{name}: labels must be an integer tensor, got {kind}")
    if tuple(labels.shape) != tuple(rows):
        raise ValueError(f"{name}: labels must have the shape of the rows {tuple(rows)}, got {tuple(labels.shape)}")
    labels = labels.long() if mask is None else torch.where(mask.bool(), labels.long(), -100)
    bad = labels[(labels != -100) & ((labels < 0) | (labels >= classes))]
    if bad.numel():
        raise ValueError(f"{name}: labels must lie in [0, {classes}) or be −100 (does not count), got {int(bad[0])}")
    return labels


def _per_row(value):
    """A value a replica, (R, 1, 1) beside logits (R, B, C), as (R, 1) beside rows (R, B)."""
    return value[..., 0] if torch.is_tensor(value) and value.ndim else value


class KDLoss:
    """The distillation loss: the student matches softened teacher outputs and, for the rest, the labels.

        alpha · T² · KL(p_T ‖ q_T) + (1 − alpha) · CE(labels, q_1)

    temperature T > 0 and alpha in [0, 1]: numbers, or tensors that broadcast against the logits, for
    example (R, 1, 1). scale: "T2" as written, which keeps the size of the soft gradient as T grows, or
    "none" without T². Called with student_logits, teacher_logits (..., C) and labels (...), integers or
    −100; mask (...) is true where a row counts, without it the rows whose label is not −100. A row that
    counts without a label (an unlabelled transfer set) has only its soft term. Returns
    the mean over the rows that count, or with reduction="rows" one value a row.
    Source: Hinton, Vinyals, Dean 2015, section 2.

    >>> z = torch.tensor([[2.0, 0.0]])
    >>> KDLoss(temperature=4, alpha=1)(z, z, torch.tensor([0])).item()
    0.0
    """

    needs_teacher = True

    def __init__(self, temperature=4.0, alpha=0.9, scale="T2"):
        check_temperature("KDLoss", temperature)
        a = torch.as_tensor(alpha, dtype=torch.float64)
        if not bool(((a >= 0) & (a <= 1)).all()):
            raise ValueError(f"KDLoss: alpha must lie in [0, 1], got {alpha!r}")
        if scale not in ("T2", "none"):
            raise ValueError(f"KDLoss: scale must be 'T2' or 'none', got {scale!r}")
        self.temperature, self.alpha, self.scale = temperature, alpha, scale

    def rows(self, student_logits, teacher_logits, labels):
        """The terms a row, unchecked: {"loss", "soft", "hard"}, each (...)."""
        T, alpha = self.temperature, _per_row(self.alpha)
        soft = kl_rows(log_softmax(teacher_logits, T), log_softmax(student_logits, T))
        hard = cross_entropy_rows(student_logits, labels)
        weight = alpha * _per_row(T) ** 2 if self.scale == "T2" else alpha
        return {"loss": weight * soft + (1 - alpha) * hard, "soft": soft, "hard": hard}

    def __call__(self, student_logits, teacher_logits, labels, mask=None, reduction="mean"):
        check_shapes("KDLoss", student_logits, teacher_logits, mask)
        labels = check_labels("KDLoss", labels, student_logits.shape[:-1], student_logits.shape[-1], mask)
        mask = labels >= 0 if mask is None else mask
        student_logits, teacher_logits = check_logits("KDLoss", student_logits, teacher_logits, mask)
        return reduce_rows("KDLoss", self.rows(student_logits, teacher_logits, labels)["loss"], mask, reduction)


class LabelSmoothing:
    """Cross-entropy to labels that keep 1 − epsilon and spread epsilon over all C classes; no teacher.

        (1 − epsilon) · CE(label, q) + epsilon · mean_c(−log q(c))

    epsilon in [0, 1); 0 is `HardLabels`. Called like every objective; teacher_logits may be None.
    Rows labelled −100 do not count.
    Source: Szegedy et al. 2016, section 7.

    >>> round(LabelSmoothing(0.1)(torch.tensor([[2.0, 0.0]]), None, torch.tensor([0])).item(), 4)
    0.2269
    """

    needs_teacher = False

    def __init__(self, epsilon=0.1):
        if not 0 <= epsilon < 1:
            raise ValueError(f"LabelSmoothing: epsilon must lie in [0, 1), got {epsilon!r}")
        self.epsilon = epsilon

    def rows(self, student_logits, teacher_logits, labels):
        """The terms a row, unchecked: {"loss", "hard"}, each (...)."""
        loss = cross_entropy_rows(student_logits, labels, self.epsilon)
        return {"loss": loss, "hard": cross_entropy_rows(student_logits, labels) if self.epsilon else loss}

    def __call__(self, student_logits, teacher_logits, labels, mask=None, reduction="mean"):
        name = type(self).__name__
        check_shapes(name, student_logits, student_logits, mask)
        labels = check_labels(name, labels, student_logits.shape[:-1], student_logits.shape[-1], mask)
        student_logits, _ = check_logits(name, student_logits, student_logits, labels >= 0)
        return reduce_rows(name, self.rows(student_logits, None, labels)["loss"], labels >= 0, reduction)


class HardLabels(LabelSmoothing):
    """Plain cross-entropy to the labels: what a student minimises without a teacher.

    >>> round(HardLabels()(torch.tensor([[2.0, 0.0]]), None, torch.tensor([0])).item(), 4)
    0.1269
    """

    def __init__(self):
        super().__init__(0.0)
