"""Questions with rationales: the last digit of (a + b) · c + d, and the steps to it."""

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from kdlab.base import arguments


def pools(seed: int = 0) -> tuple:
    """All 10,000 questions as a task's data: ({"train": (x, y)}, classes, card).

    `seed` changes nothing. x (10000, 1, 4, 10): the digits a, b, c, d, one-hot; y: the answer,
    0 … 9.

    >>> x, y = pools()[0]["train"]
    >>> x.shape, int(y[1234])  # (1 + 2) · 3 + 4 = 13
    ((10000, 1, 4, 10), 3)
    """
    digits = torch.cartesian_prod(*[torch.arange(10)] * 4)
    x = F.one_hot(digits, 10).float()[:, None]
    card = "sums: the last digit of (a + b) · c + d for all digits a, b, c, d (generated)"
    return {"train": (x.numpy(), steps(x)[:, 2].numpy())}, [str(c) for c in range(10)], card


def steps(x: Tensor) -> Tensor:
    """The rationale, last digits only: x (N, 1, 4, 10) → (N, 3), a + b, · c and + d, the answer.

    >>> steps(torch.from_numpy(pools()[0]["train"][0][[1234]]))
    tensor([[3, 9, 3]])
    """
    a, b, c, d = x[:, 0].argmax(-1).T
    s = (a + b) % 10
    p = s * c % 10
    return torch.stack([s, p, (p + d) % 10], 1)


def text(x: Tensor) -> dict[str, list[str]]:
    """Questions as text, as a large model would answer them.

    Returns {"input", "label", "rationale"}, a list of N each.

    >>> text(torch.from_numpy(pools()[0]["train"][0][[1234]]))["rationale"]
    ['1 + 2 ends in 3. 3 · 3 ends in 9. 9 + 4 ends in 3. The answer is 3.']
    """
    digits, right = x[:, 0].argmax(-1), steps(x)
    return {
        "input": [
            f"What is the last digit of ({a} + {b}) · {c} + {d}?" for a, b, c, d in digits.tolist()
        ],
        "label": [str(y) for y in right[:, 2].tolist()],
        "rationale": _written(digits, right),
    }


def slipping(x: Tensor, slips: float, answers: int, seed: int = 0) -> list[list[str]]:
    """Rationales of someone who slips: N questions → N lists of as many texts as `answers`.

    Each step is wrong with the probability `slips`, any wrong digit alike, and the next goes on
    from it. So an answer may be wrong, and may be right by two slips or a 0.

    >>> x = torch.from_numpy(pools()[0]["train"][0][[1234]])
    >>> slipping(x, 0.3, answers=2)[0][1]
    '1 + 2 ends in 3. 3 · 3 ends in 9. 9 + 4 ends in 3. The answer is 3.'
    """
    share = arguments.number("slipping", "slips", slips, 0, 1)
    draw = torch.Generator().manual_seed(arguments.whole("slipping", "seed", seed))
    digits = x[:, 0].argmax(-1).cpu()
    found = []

    def said(right):
        wrong = (right + torch.randint(1, 10, right.shape, generator=draw)) % 10
        return torch.where(torch.rand(right.shape, generator=draw) < share, wrong, right)

    for _ in range(arguments.whole("slipping", "answers", answers, least=1)):
        a, b, c, d = digits.T
        s = said((a + b) % 10)
        p = said(s * c % 10)
        found.append(_written(digits, torch.stack([s, p, said((p + d) % 10)], 1)))
    return [list(several) for several in zip(*found, strict=True)]


def _written(digits, said):
    """Questions' digits (N, 4) and the three digits said of each, (N, 3) → N rationales."""
    return [
        f"{a} + {b} ends in {s}. {s} · {c} ends in {p}. {p} + {d} ends in {y}. The answer is {y}."
        for (a, b, c, d), (s, p, y) in zip(digits.tolist(), said.tolist(), strict=True)
    ]


def read(question: str, rationale: str) -> tuple[int, list[int]]:
    """The number of a question, 0 … 9,999, and the two digits between, from their texts.

    ValueError for a text of another form.

    >>> read("What is the last digit of (1 + 2) · 3 + 4?", "1 + 2 ends in 3. 3 · 3 ends in 9. …")
    (1234, [3, 9])
    """
    asked = re.search(r"\((\d) \+ (\d)\) · (\d) \+ (\d)\?", question)
    said = re.findall(r"ends in (\d)", rationale)
    if asked is None or len(said) < 2:
        raise ValueError(
            "read: question and rationale must be as kdlab.data.sums.text writes them, "
            f"got {question!r:.60} and {rationale!r:.60}"
        )
    return int("".join(asked.groups())), [int(digit) for digit in said[:2]]
