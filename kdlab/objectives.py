"""What a student minimises: a loss a row from (student_logits, teacher_logits, labels)."""

import math

import torch

from .arguments import fits, instance, number, number_or_tensor, share
from .divergences import FLOOR, check_logits, check_shapes, check_temperature, kl_rows, log_softmax, reduce_rows


def cross_entropy_rows(logits, labels, smoothing=0.0):
    """−log softmax(logits)[label], label smoothing included, (..., C), (...) → (...); 0 where a label is −100."""
    log_q = log_softmax(logits)
    hard = -log_q.gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    if torch.is_tensor(smoothing) or smoothing:
        hard = (1 - smoothing) * hard - smoothing * log_q.mean(-1)
    return torch.where(labels >= 0, hard, 0.0)


def check_labels(name, labels, rows, classes, mask=None):
    """The labels, −100 where masked; or the error that says what is wrong (expected: integers in [0, C) or −100)."""
    whole = torch.is_tensor(labels) and not (labels.is_floating_point() or labels.is_complex())
    if not whole or labels.dtype == torch.bool:
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


def _standardise(logits):
    """z-scores over the classes that are not ruled out: mean 0, SD 1 (that of a population)."""
    keep = logits > FLOOR / 2
    count = keep.sum(-1, keepdim=True).clamp_min(1)
    z = torch.where(keep, logits, 0.0)
    z = torch.where(keep, z - z.sum(-1, keepdim=True) / count, 0.0)
    return torch.where(keep, z / (torch.linalg.vector_norm(z, dim=-1, keepdim=True) / count.sqrt() + 1e-7), FLOOR)


def _pearson_distance(a, b, dim, keep=None):
    """1 − Pearson's correlation of a and b along dim, as ½ ‖â − b̂‖² of centred unit vectors: exactly 0 at equality."""
    keep = torch.ones_like(a, dtype=torch.bool) if keep is None else keep
    count, unit = keep.sum(dim, keepdim=True).clamp_min(1), []
    for x in (a, b):
        x = torch.where(keep, x - torch.where(keep, x, 0.0).sum(dim, keepdim=True) / count, 0.0)
        unit.append(x / torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(1e-8))
    return 0.5 * (unit[0] - unit[1]).square().sum(dim)


class _Distilling:
    """An objective with a soft term, `_soft(student_logits, teacher_logits, labels, mask)` → (...), and a hard one."""

    needs_teacher = True
    needs_labels = True
    one_vocabulary = True  # student and teacher answer with the same classes

    def _weights(self):
        """What the soft and the hard term are multiplied by."""
        return _per_row(self.temperature) ** 2, 1.0

    def _check(self, student_logits, labels, mask):
        """What one objective expects beyond the others."""

    def rows(self, student_logits, teacher_logits, labels, mask=None):
        """The terms a row, unchecked: {"loss", "soft", "hard"}, each (...); every row counts, or those of the mask."""
        soft = self._soft(student_logits, teacher_logits, labels, mask)
        hard = cross_entropy_rows(student_logits, labels)
        of_soft, of_hard = self._weights()
        return {"loss": of_soft * soft + of_hard * hard, "soft": soft, "hard": hard}

    def __call__(self, student_logits, teacher_logits, labels, mask=None, reduction="mean"):
        name = type(self).__name__
        check_shapes(name, student_logits, teacher_logits, mask)
        labels = check_labels(name, labels, student_logits.shape[:-1], student_logits.shape[-1], mask)
        for key, value in vars(self).items():  # temperature, alpha, …: numbers, or one a replica
            fits(name, key, value, student_logits.shape)
        mask = labels >= 0 if mask is None else mask.bool()
        self._check(student_logits, labels, mask)
        student_logits, teacher_logits = check_logits(name, student_logits, teacher_logits, mask)
        return reduce_rows(name, self.rows(student_logits, teacher_logits, labels, mask)["loss"], mask, reduction)


class KDLoss(_Distilling):
    """The distillation loss: the student matches softened teacher outputs and, for the rest, the labels.

        alpha · T² · KL(p_T ‖ q_T) + (1 − alpha) · CE(labels, q_1)

    temperature T > 0 and alpha in [0, 1]: numbers, or tensors that broadcast against the logits, for
    example (R, 1, 1). scale: "T2" as written, which keeps the size of the soft gradient as T grows,
    "none" without T², or a number above 0 in its place. standardise: z-scores of both logits over the
    classes (mean 0, SD 1) take the logits' place in the soft term, before T divides them.
    Called with student_logits, teacher_logits (..., C) and labels (...), integers or −100; mask (...) is
    true where a row counts, without it the rows whose label is not −100. A row that counts without a
    label (an unlabelled transfer set) has only its soft term. Returns the mean over the rows that count,
    or with reduction="rows" one value a row.
    Source: Hinton, Vinyals, Dean 2015, section 2; standardise: Sun, Ren, Li, Wang, Cao 2024.

    >>> z = torch.tensor([[2.0, 0.0]])
    >>> KDLoss(temperature=4, alpha=1)(z, z, torch.tensor([0])).item()
    0.0
    """

    def __init__(self, temperature=4.0, alpha=0.9, scale="T2", standardise=False):
        self.temperature = check_temperature("KDLoss", temperature)
        self.alpha = number_or_tensor("KDLoss", "alpha", alpha, low=0, high=1)
        factor = isinstance(scale, (int, float)) and scale is not True and 0 < scale < math.inf
        if not factor and not (isinstance(scale, str) and scale in ("T2", "none")):
            raise ValueError(f"KDLoss: scale must be 'T2', 'none' or a number above 0, got {scale!r}")
        self.scale, self.standardise = scale, instance("KDLoss", "standardise", standardise, bool)

    @property
    def needs_labels(self):
        """False where alpha is 1: then rows without a label count too."""
        return bool((torch.as_tensor(self.alpha) < 1).any())

    def _weights(self):
        alpha = _per_row(self.alpha)
        factor = {"T2": _per_row(self.temperature) ** 2, "none": 1.0}.get(self.scale, self.scale)
        return alpha * factor, 1 - alpha

    def _soft(self, student_logits, teacher_logits, labels, mask):
        if self.standardise:
            student_logits, teacher_logits = _standardise(student_logits), _standardise(teacher_logits)
        return kl_rows(log_softmax(teacher_logits, self.temperature), log_softmax(student_logits, self.temperature))


class DKDLoss(_Distilling):
    """Decoupled distillation: how sure the teacher is of the label, and what it says of the other classes, apart.

        CE(labels, q_1) + T² · (alpha · TCKD + beta · NCKD)
        TCKD = KL((p_y, 1 − p_y) ‖ (q_y, 1 − q_y)),   NCKD = KL(p̂ ‖ q̂)

    p, q = softmax(logits / T), y is the label, p̂ and q̂ are p and q without class y, summing to 1 again.
    KL(p ‖ q) = TCKD + (1 − p_y) · NCKD: there a sure teacher silences the second term, here it does not.
    alpha, beta ≥ 0. Called as `KDLoss`, but a row labelled −100 has no class y: `rows` gives it 0, a mask
    that counts it raises ValueError. Source: Zhao, Cui, Song, Qiu, Liang 2022, eq. 5 to 7.

    >>> z = torch.tensor([[2.0, 0.0, 1.0]])
    >>> round(DKDLoss()(z, z, torch.tensor([0])).item(), 4)  # only the cross-entropy is left
    0.4076
    """

    def __init__(self, alpha=1.0, beta=8.0, temperature=4.0):
        self.alpha = number_or_tensor("DKDLoss", "alpha", alpha, low=0)
        self.beta = number_or_tensor("DKDLoss", "beta", beta, low=0)
        self.temperature = check_temperature("DKDLoss", temperature)

    def _check(self, student_logits, labels, mask):
        if (without := mask & (labels < 0)).any():
            raise ValueError(f"DKDLoss: labels must name a class in each row that counts, got {int(without.sum())} "
                             "rows labelled −100")

    def _soft(self, student_logits, teacher_logits, labels, mask):
        y = labels.clamp_min(0)[..., None]
        others = torch.arange(student_logits.shape[-1] - 1, device=y.device).expand(*y.shape[:-1], -1)
        others = others + (others >= y)

        def parts(logits):
            log_p = log_softmax(logits, self.temperature)
            rest = log_p.gather(-1, others)
            return torch.cat([log_p.gather(-1, y), rest.logsumexp(-1, keepdim=True)], -1), log_softmax(rest)

        (q, q_hat), (p, p_hat) = parts(student_logits), parts(teacher_logits)
        soft = _per_row(self.alpha) * kl_rows(p, q) + _per_row(self.beta) * kl_rows(p_hat, q_hat)
        return torch.where(labels >= 0, soft, 0.0)


class DISTLoss(_Distilling):
    """Matching relations, not values: the student's probabilities need only correlate with the teacher's.

        CE(labels, q_1) + T² · (beta · inter + gamma · intra)
        inter = 1 − r(q[i, :], p[i, :]),   intra = mean_c(1 − r(q[:, c], p[:, c]))

    p, q = softmax(logits / T), r is Pearson's correlation: inter over the classes of row i, intra over the
    rows of a batch. intra is one number a batch (the last axis but one), added to each of its rows, so
    by nature the loss of a row depends on the rows beside it. beta, gamma ≥ 0. Called as `KDLoss`; rows
    that the mask leaves out don't enter intra. r is undefined where p or q is constant: the term is then 0
    if both are and ½ if one is. Source: Huang, You, Wang, Qian, Xu 2022, section 3.

    >>> z = torch.tensor([[2.0, 0.0, 1.0]])
    >>> round(DISTLoss()(z, z, torch.tensor([0])).item(), 4)  # only the cross-entropy is left
    0.4076
    """

    def __init__(self, beta=1.0, gamma=1.0, temperature=1.0):
        self.beta = number_or_tensor("DISTLoss", "beta", beta, low=0)
        self.gamma = number_or_tensor("DISTLoss", "gamma", gamma, low=0)
        self.temperature = check_temperature("DISTLoss", temperature)

    def _check(self, student_logits, labels, mask):
        if student_logits.ndim < 2:
            raise ValueError(f"DISTLoss: student_logits must be a batch (..., B, C), got {tuple(student_logits.shape)}")

    def _soft(self, student_logits, teacher_logits, labels, mask):
        q, p = (log_softmax(z, self.temperature).exp() for z in (student_logits, teacher_logits))
        intra = _pearson_distance(q, p, -2, None if mask is None else mask[..., None].expand_as(q)).mean(-1)
        return _per_row(self.beta) * _pearson_distance(q, p, -1) + _per_row(self.gamma) * intra[..., None]


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
    needs_labels = True
    one_vocabulary = True

    def __init__(self, epsilon=0.1):
        self.epsilon = number("LabelSmoothing", "epsilon", epsilon, low=0, below=1)

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


class SquaredError:
    """For numbers instead of classes (a regression head): the student matches the teacher's and the label's.

        alpha · mean_k (s_k − t_k)² + (1 − alpha) · mean_k (s_k − y_k)²

    alpha in [0, 1]; at 0 no teacher is needed, at 1 no label. Called with student, teacher and labels (..., K);
    a row whose label is NaN has no label: it has only its soft term, and counts where alpha is 1.
    Returns the mean over the rows that count, or with reduction="rows" one value a row (...).
    Source: Ba and Caruana 2014, eq. 1 (there of logits).

    >>> SquaredError(0.5)(torch.tensor([[1.0]]), torch.tensor([[3.0]]), torch.tensor([[1.0]])).item()
    2.0
    """

    one_vocabulary = True

    def __init__(self, alpha=0.9):
        self.alpha = share("SquaredError", "alpha", alpha)
        self.needs_teacher, self.needs_labels = alpha > 0, alpha < 1

    def rows(self, student, teacher, labels):
        """The terms a row, unchecked: {"loss", "soft", "hard"}, each (...)."""
        student = student if student.dtype == torch.float64 else student.float()
        labels = labels.to(student)
        teacher = teacher.to(student) if self.alpha else student.detach()
        soft = (student - teacher).square().mean(-1)
        known = ~labels.isnan().any(-1)
        hard = (student - torch.where(known[..., None], labels, student.detach())).square().mean(-1)
        return {"loss": self.alpha * soft + (1 - self.alpha) * hard, "soft": soft, "hard": hard}

    def __call__(self, student, teacher, labels, reduction="mean"):
        instance("SquaredError", "student", student, torch.Tensor, "a tensor (..., K)")
        for key, value in [("teacher", teacher), ("labels", labels)]:
            if not torch.is_tensor(value) or value.shape != student.shape:
                came = tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
                raise ValueError(f"SquaredError: {key} must have the student's shape {tuple(student.shape)}, "
                                 f"got {came}")
        counts = ~labels.isnan().any(-1) if self.needs_labels else None
        return reduce_rows("SquaredError", self.rows(student, teacher, labels)["loss"], counts, reduction)


def two_classes(logits):
    """Each label of a multi-label head as a question of two classes, no and yes: (..., C) → (..., C, 2).

        softmax([0, z] / T) = [1 − σ(z / T), σ(z / T)]

    so that every objective for classes is its binary form, a label at a time.

    >>> two_classes(torch.tensor([[2.0]])).softmax(-1)[..., 1] == torch.tensor([[2.0]]).sigmoid()
    tensor([[True]])
    """
    return torch.stack([torch.zeros_like(logits), logits], -1)
