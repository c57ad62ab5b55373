"""Questions with rationales: the last digit of (a + b) · c + d, and the steps by which one gets there."""

import torch
import torch.nn.functional as F
from torch import nn


def pools(seed=0):
    """All 10,000 questions as a task's data, which `seed` does not change: ({"train": (x, y)}, classes, card).

    x (10000, 1, 4, 10): the digits a, b, c, d, one-hot; y: the answer, 0 … 9.

    >>> x, y = pools()[0]["train"]
    >>> x.shape, int(y[1234])  # (1 + 2) · 3 + 4 = 13
    ((10000, 1, 4, 10), 3)
    """
    digits = torch.cartesian_prod(*[torch.arange(10)] * 4)
    x = F.one_hot(digits, 10).float()[:, None]
    card = "sums: the last digit of (a + b) · c + d for all digits a, b, c, d (generated)"
    return {"train": (x.numpy(), steps(x)[:, 2].numpy())}, [str(c) for c in range(10)], card


def steps(x):
    """The rationale in numbers, last digits only: x (N, 1, 4, 10) → (N, 3) with a + b, · c and + d, the answer.

    >>> steps(torch.from_numpy(pools()[0]["train"][0][[1234]]))
    tensor([[3, 9, 3]])
    """
    a, b, c, d = x[:, 0].argmax(-1).T
    s = (a + b) % 10
    p = s * c % 10
    return torch.stack([s, p, (p + d) % 10], 1)


def text(x):
    """Questions as text, as a large model would answer them: {"input", "label", "rationale"}, a list of N each.

    >>> text(torch.from_numpy(pools()[0]["train"][0][[1234]]))["rationale"]
    ['1 + 2 ends in 3. 3 · 3 ends in 9. 9 + 4 ends in 3. The answer is 3.']
    """
    found = {"input": [], "label": [], "rationale": []}
    for (a, b, c, d), (s, p, y) in zip(x[:, 0].argmax(-1).tolist(), steps(x).tolist(), strict=True):
        found["input"].append(f"What is the last digit of ({a} + {b}) · {c} + {d}?")
        found["label"].append(str(y))
        found["rationale"].append(f"{a} + {b} ends in {s}. {s} · {c} ends in {p}. {p} + {d} ends in {y}. "
                                  f"The answer is {y}.")
    return found


class Rationales(nn.Module):
    """A teacher that answers with its steps: its layer `steps` holds the two intermediate digits, one-hot (N, 20).

    wrong: share of the questions whose steps are drawn at random, as a large model's rationales often are; which
    ones, and what they say, is fixed by `seed`. x (N, 1, 4, 10) → logits (N, 10) of the right answer.

    >>> from kdlab.signals import hidden
    >>> x = torch.from_numpy(pools()[0]["train"][0][[1234]])
    >>> hidden(Rationales(), x, ["steps"])["steps"][0].nonzero()[:, 0].tolist()  # 3, and 9 in the second ten
    [3, 19]
    """

    def __init__(self, wrong=0.0, seed=0):
        super().__init__()
        if not 0 <= wrong <= 1:
            raise ValueError(f"Rationales: wrong must lie in [0, 1], got {wrong!r}")
        generator = torch.Generator().manual_seed(seed)
        chance = torch.rand(10_000, generator=generator) < wrong
        self.register_buffer("said", torch.where(chance[:, None], torch.randint(10, (10_000, 2), generator=generator),
                                                 -1), persistent=False)
        self.steps = nn.Identity()

    def forward(self, x):
        right = steps(x)
        number = (x[:, 0].argmax(-1) * torch.tensor([1000, 100, 10, 1], device=x.device)).sum(1)
        said = self.said[number]
        self.steps(F.one_hot(torch.where(said < 0, right[:, :2], said), 10).flatten(1).float())
        return 10 * F.one_hot(right[:, 2], 10).float()


def rationale_loss(student, teacher, reduction="mean"):
    """The second task of distilling step by step: the cross-entropy of the steps, for `HiddenLoss`.

        L = L_label + weight · L_rationale,   L_rationale = −Σ_steps log q(step)

    student (B, 20): logits of the two intermediate digits, from a head that is trained beside the answer's and then
    thrown away; teacher (B, 20), one-hot; reduction="rows" keeps the B sums. Raises ValueError where they differ in
    shape. Source: Hsieh et al. 2023, eq. 3 and 4.

    >>> round(rationale_loss(torch.zeros(1, 20), torch.eye(20)[:1] + torch.eye(20)[10:11]).item() / 2, 3)  # log 10
    2.303
    """
    if student.shape != teacher.shape or student.shape[-1] % 10:
        raise ValueError(f"rationale_loss: student and teacher must be digits (B, 20), got {tuple(student.shape)} and "
                         f"{tuple(teacher.shape)}")
    if reduction not in ("mean", "rows"):
        raise ValueError(f"rationale_loss: reduction must be 'mean' or 'rows', got {reduction!r}")
    log_q = student.unflatten(-1, (-1, 10)).log_softmax(-1)
    rows = -(log_q * teacher.unflatten(-1, (-1, 10))).sum((-1, -2))
    return rows if reduction == "rows" else rows.mean()
