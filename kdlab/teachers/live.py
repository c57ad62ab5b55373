"""Teachers that learn while they teach: a moving average of the student, or its peers."""

import copy
from typing import Any, Self

import torch
from torch import Tensor

from kdlab.base.arguments import number, whole
from kdlab.losses.divergences import FLOOR, log_softmax


class Live:
    """A teacher made anew at each step, as `EMA` and `Peers` are, not logits computed once.

    The loop calls `begin` for each stack of replicas, `answer` at each step and `after_step` behind
    it; one of your own writes `answer`.
    """

    replicas: Any
    cohort = 1  # replicas that must stay in one stack and see one data order

    def begin(self, replicas: Any) -> Self:
        """A copy of this teacher for one stack of replicas."""
        live = copy.copy(self)
        live.replicas = replicas
        return live

    def answer(self, rows: Tensor | None, x: Tensor, student_logits: Tensor) -> Tensor:
        """What it says of x (R, B, …), of these rows (R, B) or of other data: (R, B, C)."""
        raise NotImplementedError(
            f"{type(self).__name__} must define answer(rows, x, student_logits)"
        )

    def after_step(self) -> None:
        """What follows the optimiser's step."""

    def state(self) -> dict[str, Tensor] | None:
        """{name: tensor} of all that its steps change, so that they can be recorded on a GPU.

        None: nobody knows, and they run as they are written (see kdlab.training.capture).
        """
        return None


class EMA(Live):
    """The student's own exponential moving average as its teacher ("mean teacher").

        θ'_t = decay · θ'_{t−1} + (1 − decay) · θ_t,   θ'_0 = θ_0

    decay in [0, 1); 1 / (1 − decay) is about how many steps it remembers. The average answers in
    eval mode. Source: Tarvainen and Valpola 2017, section 2.

    >>> from kdlab import distill, load, mlp
    >>> runs = distill(mlp(8), EMA(0.9), load("digits"), temperature=1, alpha=0.5, epochs=1)
    >>> "teacher_accuracy" in runs.frame
    True
    """

    average: dict[str, Tensor]

    def __init__(self, decay: float = 0.99) -> None:
        self.decay = number("EMA", "decay", decay, low=0, below=1)

    def begin(self, replicas: Any) -> Self:
        """A copy whose average starts at these replicas' weights."""
        live = super().begin(replicas)
        live.average = {k: v.clone() for k, v in replicas.parameters.items()}
        return live

    @torch.no_grad()
    def answer(self, rows: Tensor | None, x: Tensor, student_logits: Tensor) -> Tensor:
        """What the average answers to x (R, B, …), whatever the student does: (R, B, C)."""
        return self.replicas.evaluate(x, parameters=self.average)

    @torch.no_grad()
    def after_step(self) -> None:
        """Move the average a step towards the students."""
        new = [self.replicas.parameters[k] for k in self.average]
        torch._foreach_lerp_(list(self.average.values()), new, 1 - self.decay)

    def state(self) -> dict[str, Tensor]:
        """The average."""
        return {f"average.{name}": value for name, value in self.average.items()}


class Peers(Live):
    """Deep mutual learning: students in groups, each taught by the mean of the others.

        p_r = 1 / (K − 1) · Σ_{k ≠ r} softmax(z_k),   K = count

    KL(p_r ‖ q_r) has the gradient of the mean of the KL(p_k ‖ q_r). The members are consecutive
    seeds of one split, see the same batches and start from weights of their own. With T ≠ 1 and
    more than two members the mean is taken at T = 1, then softened.
    Source: Zhang, Xiang, Hospedales, Lu 2018, eq. 8.

    >>> from kdlab import distill, load, mlp
    >>> len(distill(mlp(8), Peers(2), load("digits"), temperature=1, alpha=0.5, epochs=1, seeds=4))
    4
    """

    def __init__(self, count: int = 2) -> None:
        self.cohort = whole("Peers", "count", count, least=2)

    def state(self) -> dict[str, Tensor]:
        """Nothing beside the students themselves."""
        return {}

    def answer(self, rows: Tensor | None, x: Tensor, student_logits: Tensor) -> Tensor:
        """The log of the others' mean probabilities, from logits: (R, B, C) → (R, B, C)."""
        K, log_p = self.cohort, log_softmax(student_logits.detach())
        groups = log_p.unflatten(0, (-1, 1, K)).expand(-1, K, -1, *[-1] * (log_p.ndim - 1))
        own = torch.eye(K, dtype=torch.bool, device=log_p.device).view(
            1, K, K, *[1] * (log_p.ndim - 1)
        )
        others = groups.masked_fill(own, -torch.inf).logsumexp(2) - torch.log(torch.tensor(K - 1.0))
        return others.flatten(0, 1).clamp_min(FLOOR)
