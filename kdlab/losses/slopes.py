"""An objective's terms together with their slope by the logits, where classes are few.

    ∂/∂z [α T² KL(p_T ‖ q_T) + (1 − α) CE(y, q_1)] = α T (q_T − p_T) + (1 − α) (q_1 − 1[y])

Source: Hinton, Vinyals, Dean 2015, eq. 2. A step of a small network is short, and autograd's way
through the loss would be a third of it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from kdlab.losses import closed_form
from kdlab.losses.kd import HardLabels, KDLoss, LabelSmoothing
from kdlab.losses.protocol import Objective
from kdlab.losses.softmax import SHORT, log_softmax_of

SLOPE = "∂loss/∂logits"  # beside the terms: no name that a term could have


def with_slope(objective: Objective) -> Callable | None:
    """The objective's `rows` with SLOPE beside its terms, or None where it is not written here.

    The function takes student and teacher logits (R, B, C) and labels (R, B); the slope (R, B, C)
    is that of each row's own loss. A class derived from one of these may define any of its parts
    anew, so it is not taken for it.

    >>> terms = with_slope(HardLabels())(torch.zeros(1, 1, 2), None, torch.tensor([[0]]))
    >>> terms[SLOPE]
    tensor([[[-0.5000,  0.5000]]])
    >>> with_slope(KDLoss(standardise=True)) is None
    True
    """
    if type(objective) is KDLoss and not objective.standardise:
        rows = _distilled
    elif type(objective) in (HardLabels, LabelSmoothing):
        rows = _labelled
    else:
        return None

    def terms(student: Tensor, teacher: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
        if student.shape[-1] > SHORT:  # there, `rows` has a closed form of its own
            return objective.rows(student, teacher, labels)
        with torch.no_grad():
            return rows(objective, student, teacher, labels)

    return terms


def _distilled(objective, student, teacher, labels):
    T, (of_soft, of_hard) = objective.temperature, objective.weights
    log_q, log_p = log_softmax_of(student, T), log_softmax_of(teacher, T)
    q = log_q.exp()
    soft, g = closed_form.FORMULAS["forward_kl"](log_q, q, log_p.to(log_q.dtype))
    g.mul_(_per_class(of_soft) / T)
    loss = of_soft * soft
    if torch.is_tensor(of_hard) or of_hard:
        hard, of_labels = _cross_entropy(student, labels)
        loss = loss + of_hard * hard
        g.add_(of_labels.mul_(_per_class(of_hard)))
    else:
        hard = _log_loss(log_softmax_of(student), labels)
    return {"loss": loss, "soft": soft, "hard": hard, SLOPE: g}


def _labelled(objective, student, teacher, labels):
    loss, g = _cross_entropy(student, labels, objective.epsilon)
    hard = _log_loss(log_softmax_of(student), labels) if objective.epsilon else loss
    return {"loss": loss, "hard": hard, SLOPE: g}


def _cross_entropy(student, labels, epsilon=0.0):
    """CE to labels smoothed by epsilon, and its slope q − [(1 − epsilon) 1[y] + epsilon / C]."""
    log_q, counts = log_softmax_of(student), labels >= 0
    loss = _log_loss(log_q, labels)
    if epsilon:
        even = torch.where(counts, log_q.mean(-1), 0.0)
        loss = (1 - epsilon) * loss - epsilon * even
    g = log_q.exp_()
    y = labels.clamp_min(0)[..., None]
    g.scatter_add_(-1, y, g.new_full((), epsilon - 1).expand(y.shape))
    if epsilon:
        g.sub_(epsilon / g.shape[-1])
    return loss, g.mul_(counts[..., None])


def _log_loss(log_q, labels):
    """−log q(y) a row, 0 where the label is −100."""
    picked = log_q.gather(-1, labels.clamp_min(0)[..., None])[..., 0]
    return torch.where(labels >= 0, -picked, 0.0)


def _per_class(weight):
    """A weight a row, (R, 1), as one beside logits (R, 1, 1); a number as it is."""
    return weight[..., None] if torch.is_tensor(weight) and weight.ndim else weight
