"""A refined soft term, as an example of how to add one: DKD."""

import torch
from torch import Tensor

from kdlab.base.arguments import number_or_tensor
from kdlab.losses.divergences import check_temperature, kl_rows, log_softmax
from kdlab.losses.kd import Distilling, per_row


class DKDLoss(Distilling):
    """Decoupled distillation: how sure the teacher is, and of which wrong classes, apart.

        CE(labels, q_1) + T² · (alpha · TCKD + beta · NCKD)
        TCKD = KL((p_y, 1 − p_y) ‖ (q_y, 1 − q_y)),   NCKD = KL(p̂ ‖ q̂)

    p, q = softmax(logits / T), y is the label, p̂ and q̂ are p and q without class y, summing to 1
    again. KL(p ‖ q) = TCKD + (1 − p_y) · NCKD: there a sure teacher silences the second term, here
    it does not. alpha, beta ≥ 0. Called as `KDLoss`, but a row labelled −100 has no class y: `rows`
    gives it 0, a mask that counts it raises ValueError. Source: Zhao, Cui, Song, Qiu, Liang 2022,
    eq. 5 to 7.

    >>> z = torch.tensor([[2.0, 0.0, 1.0]])
    >>> round(DKDLoss()(z, z, torch.tensor([0])).item(), 4)  # only the cross-entropy is left
    0.4076
    """

    swept = ("temperature", "alpha", "beta")

    def __init__(
        self,
        alpha: float | Tensor = 1.0,
        beta: float | Tensor = 8.0,
        temperature: float | Tensor = 4.0,
    ) -> None:
        self.alpha = number_or_tensor("DKDLoss", "alpha", alpha, low=0)
        self.beta = number_or_tensor("DKDLoss", "beta", beta, low=0)
        self.temperature = check_temperature("DKDLoss", temperature)

    def check_setting(self, name: str, value: float) -> None:
        """beta is at least 0."""
        if name == "beta":
            number_or_tensor("DKDLoss", "beta", value, low=0)

    def check(self, student_logits: Tensor, labels: Tensor, mask: Tensor) -> None:
        """Every row that counts has a label."""
        if (without := mask & (labels < 0)).any():
            raise ValueError(
                "DKDLoss: labels must name a class in each row that counts, "
                f"got {int(without.sum())} rows labelled −100"
            )

    def soft(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """alpha · TCKD + beta · NCKD a row; 0 where there is no label."""
        y = labels.clamp_min(0)[..., None]
        others = torch.arange(student_logits.shape[-1] - 1, device=y.device).expand(
            *y.shape[:-1], -1
        )
        others = others + (others >= y)

        def parts(logits):
            log_p = log_softmax(logits, self.temperature)
            rest = log_p.gather(-1, others)
            return torch.cat(
                [log_p.gather(-1, y), rest.logsumexp(-1, keepdim=True)], -1
            ), log_softmax(rest)

        (q, q_hat), (p, p_hat) = parts(student_logits), parts(teacher_logits)
        soft = per_row(self.alpha) * kl_rows(p, q) + per_row(self.beta) * kl_rows(p_hat, q_hat)
        return torch.where(labels >= 0, soft, 0.0)
