"""Exercises of lesson 07: two ways to average teachers, and a moving average of weights."""

import torch
from torch.nn import functional as F

from kdlab.lessons.exercises import Exercise, Question


def _mean(mean):
    z = 3 * torch.randn(4, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for T in (1.0, 4.0):
        expected = sum(F.softmax(one / T, -1) for one in z) / 4
        found = torch.as_tensor(mean(z, T), dtype=torch.float64)
        if found.shape != expected.shape:
            return (
                f"expected probabilities of shape {tuple(expected.shape)}, got {tuple(found.shape)}"
            )
        if torch.allclose(found, F.softmax(z.mean(0) / T, -1)):
            return (
                "you averaged the logits: that is the geometric mean of the probabilities, "
                "made to sum to 1"
            )
        if not torch.allclose(found.sum(-1), torch.ones(6, dtype=torch.float64)):
            return f"each row must sum to 1, the first sums to {found[0].sum().item():.3f}"
        at_one = F.softmax(z, -1).mean(0)
        if T != 1 and torch.allclose(
            found, at_one ** (1 / T) / (at_one ** (1 / T)).sum(-1, keepdim=True)
        ):
            return "you averaged first and softened then; soften each teacher, then average"
        if T != 1 and torch.allclose(found, at_one):
            return "T is not used"
        if not torch.allclose(found, expected):
            return f"at T = {T:g} it differs by up to {(found - expected).abs().max().item():.3f}"
    return ""


def _average(update):
    teacher, student = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0])
    for decay in (0.9, 0.5, 0.99):
        expected = torch.tensor([3 - 2 * decay, 2 * decay])
        found = torch.as_tensor(update(teacher.clone(), student.clone(), decay))
        if found.shape != (2,):
            return f"expected weights of the teacher's shape (2,), got {tuple(found.shape)}"
        if decay != 0.5 and torch.allclose(found, torch.tensor([1 + 2 * decay, 2 - 2 * decay])):
            return "decay is the share that the teacher keeps; here it is the student's"
        if not torch.allclose(found, expected):
            return (
                f"at decay {decay} expected {[round(v, 3) for v in expected.tolist()]}, "
                f"got {found.tolist()}"
            )
    return ""


EXERCISES = (
    Exercise(
        "07.1",
        _mean,
        (
            "Soften each teacher first: torch.softmax(teacher_logits / T, -1) has shape (K, N, C).",
            "The arithmetic mean runs over the first dimension.",
        ),
        """
def attempt(teacher_logits, T):
    return torch.softmax(teacher_logits / T, -1).mean(0)
""",
        {
            "averaged the logits": (
                "def attempt(z, T):\n    return torch.softmax(z.mean(0) / T, -1)"
            ),
            "sum to 1": "def attempt(z, T):\n    return torch.softmax(z / T, -1).sum(0)",
            "softened then": (
                "def attempt(z, T):\n"
                "    p = torch.softmax(z, -1).mean(0) ** (1 / T)\n"
                "    return p / p.sum(-1, keepdim=True)"
            ),
            "T is not used": "def attempt(z, T):\n    return torch.softmax(z, -1).mean(0)",
        },
    ),
    Exercise(
        "07.2",
        _average,
        (
            "The teacher moves a small step towards the student.",
            "decay · teacher + (1 − decay) · student.",
        ),
        """
def attempt(teacher, student, decay):
    return decay * teacher + (1 - decay) * student
""",
        {
            "at decay 0.5 expected": "def attempt(t, s, decay):\n    return 0.9 * t + 0.1 * s",
            "share that the teacher keeps": (
                "def attempt(t, s, decay):\n    return (1 - decay) * t + decay * s"
            ),
        },
    ),
)


QUESTIONS = {
    "07.a": Question(
        (
            "Eight networks are trained on one world from other random weights; each is right on"
            " about 86 % of the test images. How good is the mean of their eight outputs?"
        ),
        ("about 86 %", "about 93 %", "above 98 %"),
        2,
        "Each misses some views, but not the same ones: for nearly every view somebody has it.",
    ),
    "07.b": Question(
        "On the digits, how much better than one MLP is the ensemble of four?",
        ("within one point", "2 to 5 points", "more than 5 points"),
        0,
        (
            "An ensemble gains where its members err on different images. Here they err on the "
            "same ones, as the claims below show."
        ),
    ),
}
