"""A teacher that answers with its steps."""

from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab.base import arguments
from kdlab.data.sums import steps


class Rationales(nn.Module):
    """A teacher with steps: its layer `steps` is two intermediate digits, one-hot (N, 20).

    wrong: share of the questions whose steps are drawn at random, as a large model's rationales
    often are; which ones, and what they say, is fixed by `seed`. x (N, 1, 4, 10) → logits (N, 10)
    of the right answer.

    >>> from kdlab.data.sums import pools
    >>> from kdlab.teachers.outputs import hidden
    >>> x = torch.from_numpy(pools()[0]["train"][0][[1234]])
    >>> steps = hidden(Rationales(), x, ["steps"])["steps"]
    >>> steps[0].nonzero()[:, 0].tolist()  # 3, and 9 in the second ten
    [3, 19]
    """

    said: Tensor

    def __init__(self, wrong: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(wrong, Real) or not 0 <= wrong <= 1:
            raise ValueError(f"Rationales: wrong must lie in [0, 1], got {wrong!r}")
        seed = arguments.whole("Rationales", "seed", seed, most=2**63 - 1)
        generator = torch.Generator().manual_seed(seed)
        chance = torch.rand(10_000, generator=generator) < wrong
        self.register_buffer(
            "said",
            torch.where(chance[:, None], torch.randint(10, (10_000, 2), generator=generator), -1),
            persistent=False,
        )
        self.steps: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        right = steps(x)
        number = (x[:, 0].argmax(-1) * torch.tensor([1000, 100, 10, 1], device=x.device)).sum(1)
        said = self.said.to(x.device)[number]  # a teacher without weights is where its data are
        self.steps(F.one_hot(torch.where(said < 0, right[:, :2], said), 10).flatten(1).float())
        return 10 * F.one_hot(right[:, 2], 10).float()
