"""The second task of distilling step by step: the teacher's steps."""

from torch import Tensor

from kdlab.base.arguments import logits


def rationale_loss(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """The second task of distilling step by step: the cross-entropy of the steps, for `HiddenLoss`.

        L = L_label + weight · L_rationale,   L_rationale = −Σ_steps log q(step)

    student (B, 20): logits of the two intermediate digits, from a head that is trained beside the
    answer's and then thrown away; teacher (B, 20), one-hot; reduction="rows" keeps the B sums.
    Raises ValueError where they differ in shape. Source: Hsieh et al. 2023, eq. 3 and 4.

    >>> import torch
    >>> steps = torch.eye(20)[:1] + torch.eye(20)[10:11]
    >>> round(rationale_loss(torch.zeros(1, 20), steps).item() / 2, 3)  # log 10
    2.303
    """
    for key, value in (("student", student), ("teacher", teacher)):
        logits("rationale_loss", key, value, "(B, 20)", least=2)
    if student.shape != teacher.shape or student.shape[-1] % 10:
        raise ValueError(
            "rationale_loss: student and teacher must be digits (B, 20), "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if reduction not in ("mean", "rows"):
        raise ValueError(f"rationale_loss: reduction must be 'mean' or 'rows', got {reduction!r}")
    log_q = student.unflatten(-1, (-1, 10)).log_softmax(-1)
    rows = -(log_q * teacher.unflatten(-1, (-1, 10))).sum((-1, -2))
    return rows if reduction == "rows" else rows.mean()
