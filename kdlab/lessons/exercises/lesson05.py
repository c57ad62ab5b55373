"""Exercises of lesson 05: the target that believes both, and what a sure teacher silences."""

import torch
from torch.nn import functional as F

from kdlab.lessons.exercises import Exercise, Question


def _mixed(mixed):
    p = torch.tensor([[0.05, 0.95, 0.0], [0.2, 0.2, 0.6]], dtype=torch.float64)
    y = torch.tensor([0, 2])
    one_hot = F.one_hot(y, 3).double()
    for alpha in (0.25, 0.7):
        found = torch.as_tensor(mixed(y, p, alpha), dtype=torch.float64)
        if found.shape != p.shape:
            return (
                f"expected a target for every class, shape {tuple(p.shape)}, "
                f"got {tuple(found.shape)}"
            )
        if torch.allclose(found, (1 - alpha) * p + alpha * one_hot):
            return "alpha weights the teacher; here it weights the labels"
        if not torch.allclose(found.sum(-1), torch.ones(2, dtype=torch.float64)):
            return f"each row must sum to 1, got {[round(v, 3) for v in found.sum(-1).tolist()]}"
        if not torch.allclose(found, alpha * p + (1 - alpha) * one_hot):
            return f"at alpha = {alpha} the first row differs from the mixture: {found[0].tolist()}"
    return ""


def _silenced(weight):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, 5, dtype=torch.float64, generator=generator) * 3
    y = torch.randint(0, 5, (6,), generator=generator)
    for T in (1.0, 4.0):
        p = F.softmax(z / T, -1)
        label = p.gather(-1, y[:, None])[:, 0]
        found = torch.as_tensor(weight(z, y, T), dtype=torch.float64)
        if found.shape != (6,):
            return f"expected one weight a row, shape (6,), got {tuple(found.shape)}"
        if torch.allclose(found, label):
            return (
                "this is p_y, which weighs nothing; "
                "look again at the term in front of the wrong classes"
            )
        if T != 1 and torch.allclose(found, 1 - F.softmax(z, -1).gather(-1, y[:, None])[:, 0]):
            return "this is at T = 1: the teacher's probabilities in the soft term are at T"
        if T != 1 and torch.allclose(found, T * T * (1 - label)):
            return "T² belongs to the loss, not to this factor of the KL"
        if torch.allclose(found, 1 - p.amax(-1)) and not torch.allclose(label, p.amax(-1)):
            return (
                "p_y is the probability of the label, which is not always the teacher's favourite"
            )
        if not torch.allclose(found, 1 - label):
            return f"at T = {T:g} it differs by up to {(found - 1 + label).abs().max().item():.3f}"
    return ""


EXERCISES = (
    Exercise(
        "05.1",
        _mixed,
        (
            "A label as a distribution is one-hot: torch.nn.functional.one_hot(labels, C).",
            "alpha goes to the teacher, 1 − alpha to the one-hot label.",
        ),
        """
def attempt(labels, teacher_probabilities, alpha):
    one_hot = torch.nn.functional.one_hot(labels, teacher_probabilities.shape[-1])
    return alpha * teacher_probabilities + (1 - alpha) * one_hot
""",
        {
            "weights the labels": (
                "def attempt(y, p, alpha):\n"
                "    return (1 - alpha) * p + alpha * F.one_hot(y, p.shape[-1])"
            ),
            "sum to 1": (
                "def attempt(y, p, alpha):\n    return alpha * p + F.one_hot(y, p.shape[-1])"
            ),
        },
    ),
    Exercise(
        "05.2",
        _silenced,
        (
            "It stands in the equation above: the factor in front of KL(p̂ ‖ q̂).",
            "1 − p_y, with p = softmax(teacher_logits / T); gather picks the label's column.",
        ),
        """
def attempt(teacher_logits, labels, T):
    p = torch.softmax(teacher_logits / T, -1)
    return 1 - p.gather(-1, labels[:, None])[:, 0]
""",
        {
            "weighs nothing": (
                "def attempt(z, y, T):\n"
                "    return torch.softmax(z / T, -1).gather(-1, y[:, None])[:, 0]"
            ),
            "at T = 1": (
                "def attempt(z, y, T):\n"
                "    return 1 - torch.softmax(z, -1).gather(-1, y[:, None])[:, 0]"
            ),
            "belongs to the loss": (
                "def attempt(z, y, T):\n"
                "    return T**2 * (1 - torch.softmax(z / T, -1).gather(-1, y[:, None])[:, 0])"
            ),
            "favourite": "def attempt(z, y, T):\n    return 1 - torch.softmax(z / T, -1).amax(-1)",
        },
    ),
)


QUESTIONS = {
    "05.a": Question(
        (
            "Both students train for 60 epochs, the same network on the same images. On clean "
            "held-out digits, how far is the distilled one ahead of the one trained on the wrong"
            " labels?"
        ),
        ("about 1 point", "about 3 points", "5 points and more"),
        2,
        (
            "In 60 epochs a network of this size learns wrong labels by heart; a regularised "
            "teacher hasn't, and its answers say so. But look at the curve below before you "
            "cheer."
        ),
    ),
    "05.b": Question(
        (
            "A 3 is labelled 3; the teacher says 8, and is 95 % sure. At T = 1, from which alpha"
            " on does the mixed target prefer the 8?"
        ),
        ("0.35", "about 0.5", "0.95"),
        1,
        (
            "The 8 gets 0.95 alpha, the 3 gets 1 − alpha and what the teacher left it. They meet"
            " near alpha = 0.5."
        ),
    ),
}
