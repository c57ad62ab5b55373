"""The reverse KL from drawn tokens: a policy gradient whose reward is the teacher's."""

import math
from typing import Any

import torch
from torch import Tensor

from kdlab.base.arguments import number, one_of
from kdlab.losses.divergences import kl_rows, log_softmax
from kdlab.losses.kd import Distilling


class SampledReverseKL(Distilling):
    """KL(q ‖ p) on the student's own text, from the token that it wrote at each place alone.

        reward r = log p(y) − log q(y),   y ~ q
        value −r,   gradient −(r − b) ∇ log q(y)

    Both are right in the mean over y: E[−r] = KL(q ‖ p), and its gradient. A teacher that tells one
    log-probability a token is enough for it; the price is variance. The baseline b takes some of
    that away: "place", −KL(q ‖ p) at this place, where all logits are there; "mean", the mean
    reward of the other tokens in the last axis that count (those behind y depend on it, so that
    the gradient is no longer right in the mean); "none", 0. temperature: that at which the text was
    drawn, for student and teacher alike.

    Called as `TokenLoss`, with logits (..., V) and labels (...), the tokens that the *student*
    wrote, −100 where none counts: on another's text it is no KL. So the trainer asks for
    `OnPolicy(share=1)`, drawn as here; its eval_loss, on the data's text, means nothing. Sources:
    Williams 1992; as distillation Gu, Dong, Wei, Huang 2024, eq. 5 and 6, of one step.

    >>> z, y = torch.zeros(3, 4, requires_grad=True), torch.tensor([0, 2, -100])
    >>> loss = SampledReverseKL(baseline="none")(z, torch.tensor([[2.0, 0.0, 0.0, 0.0]] * 3), y)
    >>> loss.backward()
    >>> round(loss.item(), 3), z.grad[2].tolist()  # what does not count has no gradient
    (-0.046, [0.0, 0.0, 0.0, 0.0])
    """

    weights = (1.0, 0.0)
    own_text = True
    below_zero = True  # a single token's −r, not the divergence

    def __init__(self, baseline: str = "place", temperature: float = 1.0) -> None:
        self.baseline = one_of("SampledReverseKL", "baseline", baseline, ["place", "mean", "none"])
        self.temperature = number("SampledReverseKL", "temperature", temperature, above=0)

    def soft(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """−r a token, with the gradient above; 0 where a label is −100."""
        counts = labels >= 0
        log_q = log_softmax(student_logits, self.temperature)
        log_p = log_softmax(teacher_logits, self.temperature).detach()
        y = labels.clamp_min(0)[..., None]
        of_y = log_q.gather(-1, y)[..., 0]
        reward = log_p.gather(-1, y)[..., 0] - of_y.detach()
        gain = reward - self._expected(log_q.detach(), log_p, reward, counts)
        return torch.where(counts, -reward - gain * (of_y - of_y.detach()), 0.0)

    def _expected(self, log_q, log_p, reward, counts):
        """The baseline: what reward was to be expected."""
        if self.baseline == "place":
            return -kl_rows(log_q, log_p)
        if self.baseline == "mean":  # of the others: its own would take a part of the gradient away
            reward = torch.where(counts, reward, 0.0)
            others = counts.sum(-1, keepdim=True) - 1
            return (reward.sum(-1, keepdim=True) - reward) / others.clamp_min(1)
        return 0.0

    def hard(self, student_logits: Tensor, labels: Tensor) -> Tensor:
        """NaN: the labels are the student's own words, and nothing to learn by heart."""
        return student_logits.new_full(labels.shape, math.nan, dtype=torch.float)

    def settings(self) -> dict[str, Any]:
        """Baseline and temperature."""
        return {"baseline": self.baseline, "temperature": self.temperature}
