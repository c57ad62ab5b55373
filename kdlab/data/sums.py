"""Questions with rationales: the last digit of (a + b) · c + d, and the steps to it."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
    found: dict[str, list[str]] = {"input": [], "label": [], "rationale": []}
    for (a, b, c, d), (s, p, y) in zip(x[:, 0].argmax(-1).tolist(), steps(x).tolist(), strict=True):
        found["input"].append(f"What is the last digit of ({a} + {b}) · {c} + {d}?")
        found["label"].append(str(y))
        found["rationale"].append(
            f"{a} + {b} ends in {s}. {s} · {c} ends in {p}. {p} + {d} ends in {y}. "
            f"The answer is {y}."
        )
    return found
