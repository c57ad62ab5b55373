"""Questions, answers bought and students of lesson 11's last part, shared with the benchmark."""

from typing import Any

import torch

import kdlab as kd
from kdlab.base.repeats import fresh
from kdlab.data import sums

SLIPS = 0.3  # of ten steps three are wrong
COUNT, STEPS, BATCH = 2000, 1500, 64  # questions to learn from, steps, questions a step


def bought(answers: int, seed: int = 0) -> tuple[list[str], list[list[str]], dict[str, str]]:
    """Every question, so many answers to each by someone who slips, and {question: its label}.

    >>> questions, answers, label = bought(2)
    >>> len(questions), answers[1234][1], label[questions[1234]]
    (10000, '1 + 2 ends in 3. 3 · 3 ends in 9. 9 + 4 ends in 3. The answer is 3.', '3')
    """
    x = torch.from_numpy(sums.pools()[0]["train"][0])
    told = sums.text(x)
    said = sums.slipping(x, SLIPS, answers, fresh(seed))
    return told["input"], said, dict(zip(told["input"], told["label"], strict=True))


def right() -> list[tuple[str, str]]:
    """(question, rationale) of every question, without a slip.

    >>> right()[1234][0]
    'What is the last digit of (1 + 2) · 3 + 4?'
    """
    told = sums.text(torch.from_numpy(sums.pools()[0]["train"][0]))
    return list(zip(told["input"], told["rationale"], strict=True))


def splits(count: int) -> list:
    """Tasks of COUNT questions to learn from, each with others."""
    return kd.splits("sums", count, sizes=(COUNT, 1000, 2000))


def taught(pairs: list | None, tasks: Any, lr: Any) -> Any:
    """Students that learn the labels, and as a second task the rationales in pairs → `Runs`.

    pairs: (question, rationale); None: the labels alone. tasks: of `splits`, one or several, a
    student each. lr: a rate, or a list of them.
    """
    how: dict[str, Any] = {"lr": lr, "batch": BATCH, "epochs": STEPS * BATCH // COUNT}
    if pairs is None:
        return kd.sweep(kd.mlp(128, 128), tasks, objective=kd.HardLabels(), **how)
    steps = kd.HiddenLoss(kd.rationale_loss, [("4", "steps")], weight=1.0, project=True)
    return kd.sweep(kd.mlp(128, 128), tasks, objective=steps, teacher=kd.Rationales(pairs), **how)
