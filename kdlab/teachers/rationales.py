"""A teacher that answers with its steps."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab.base import arguments
from kdlab.data.sums import pools, read, steps, text


class Rationales(nn.Module):
    """A teacher with steps: its layer `steps` is two intermediate digits, (N, 20).

    said: pairs (question, rationale), texts as `kdlab.data.sums.text` writes them; by default the
    right steps of every question. A question with several rationales has the mean of their one-hot
    digits; one without has zeros, so that `rationale_loss` finds nothing to learn there. x (N, 1,
    4, 10) → logits (N, 10) of the right answer. ValueError for texts of another form.

    >>> from kdlab.data.sums import pools
    >>> from kdlab.teachers.outputs import hidden
    >>> x = torch.from_numpy(pools()[0]["train"][0][[1234]])
    >>> steps = hidden(Rationales(), x, ["steps"])["steps"]
    >>> steps[0].nonzero()[:, 0].tolist()  # 3, and 9 in the second ten
    [3, 19]
    """

    said: Tensor

    def __init__(self, said: Iterable[tuple[str, str]] | None = None) -> None:
        super().__init__()
        if said is None:
            right = text(torch.from_numpy(pools()[0]["train"][0]))
            said = zip(right["input"], right["rationale"], strict=True)
        table = torch.zeros(10_000, 2, 10)
        for pair in arguments.listed("Rationales", "said", said, "pairs (question, rationale)"):
            pair = arguments.listed("Rationales", "said", pair, "pairs (question, rationale)")
            if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
                raise TypeError(
                    "Rationales: said must hold pairs (question, rationale) of texts, "
                    f"got {pair!r:.80}"
                )
            number, (first, second) = read(*pair)
            table[number, 0, first] += 1
            table[number, 1, second] += 1
        table /= table.sum(-1, keepdim=True).clamp_min(1)
        self.register_buffer("said", table.flatten(1), persistent=False)
        self.steps: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        digits = x[:, 0].argmax(-1)
        number = (digits * torch.tensor([1000, 100, 10, 1], device=x.device)).sum(1)
        self.steps(
            self.said.to(x.device)[number]
        )  # a teacher without weights is where its data are
        return 10 * F.one_hot(steps(x)[:, 2], 10).float()
