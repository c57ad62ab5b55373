"""Exercises of lesson 04: read dark knowledge off logits, give a missing class its bias back."""

import torch

from kdlab.lessons.exercises import Exercise, Question


def _nearest(nearest):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, 5, generator=generator) - 3  # a teacher's wrong logits are below 0
    labels = torch.arange(300) % 5
    logits[torch.arange(300), labels] += 7
    expected = []
    for c in range(5):
        mean = logits[labels == c].mean(0)
        expected.append(
            max((k for k in range(5) if k != c), key=lambda k, mean=mean: mean[k].item())
        )
    found = torch.as_tensor(nearest(logits, labels))
    if tuple(found.shape) != (5,):
        return (
            "expected one class for each of the 5 classes, shape (5,), "
            f"got shape {tuple(found.shape)}"
        )
    if torch.equal(found.long(), torch.arange(5)):
        return (
            "each class came out nearest to itself: leave the class itself out before the argmax, "
            "by −inf (0 is larger than the mean logits of most wrong classes)"
        )
    if found.tolist() != expected:
        return "compare the mean logits of the rows of one class, and take the largest wrong one"
    return ""


def _bias(choose):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (800,), generator=generator)
    logits = 2.0 * torch.nn.functional.one_hot(labels, 4) + torch.randn(800, 4, generator=generator)
    logits[:, 2] -= 3.0  # class 2 was never shown
    before = logits.clone()
    value = float(choose(logits, labels, 2))
    if not torch.equal(logits, before):
        return "the logits that were handed in have changed: add the bias to a copy"

    def accuracy(b):
        moved = before.clone()
        moved[:, 2] += b
        return (moved.argmax(1) == labels).float().mean().item()

    best = max(accuracy(b / 4) for b in range(0, 41))
    if value < 0:
        return "class 2 answers too rarely: its bias must go up"
    if accuracy(value) < best - 0.01:
        only = (before[labels == 2].argmax(1) == 2).float().mean()
        return (
            f"with {value:.2f} the accuracy over ALL classes is {accuracy(value):.3f}, the best is "
            f"{best:.3f}; (on class 2 alone it began at {only:.2f}, and any large bias wins there)"
        )
    return ""


EXERCISES = (
    Exercise(
        "04.1",
        _nearest,
        (
            (
                "logits[labels == c].mean(0) is the mean logit of each class over the images "
                "of class c."
            ),
            "Put −inf in the place of class c itself, then argmax.",
        ),
        """
def attempt(logits, labels):
    means = torch.stack([logits[labels == c].mean(0) for c in range(logits.shape[1])])
    means.fill_diagonal_(-torch.inf)
    return means.argmax(1)
""",
        {
            "leave the class itself out": (
                """
def attempt(logits, labels):
    return torch.stack([logits[labels == c].mean(0) for c in range(logits.shape[1])]).argmax(1)
"""
            ),
            "0 is larger": (
                """
def attempt(logits, labels):
    means = torch.stack([logits[labels == c].mean(0) for c in range(logits.shape[1])])
    return means.fill_diagonal_(0.0).argmax(1)
"""
            ),
            "largest wrong one": (
                """
def attempt(logits, labels):
    means = torch.stack([logits[labels == c].mean(0) for c in range(logits.shape[1])])
    means.fill_diagonal_(torch.inf)
    return means.argmin(1)
"""
            ),
            "shape": (
                """
def attempt(logits, labels):
    return logits.argsort(1)[:, -2]
"""
            ),
        },
    ),
    Exercise(
        "04.2",
        _bias,
        (
            "Try the values 0, 0.25, 0.5, … 10: add each to the logit of the missing class.",
            (
                "Keep the one with the best accuracy over all validation images, "
                "not over the missing class alone."
            ),
        ),
        """
def attempt(logits, labels, missing):
    def accuracy(bias):
        moved = logits.clone()
        moved[:, missing] += bias
        return (moved.argmax(1) == labels).float().mean().item()
    return max([b / 4 for b in range(41)], key=accuracy)
""",
        {
            "accuracy over ALL classes": (
                """
def attempt(logits, labels, missing):
    return 10.0
"""
            ),
            "must go up": (
                """
def attempt(logits, labels, missing):
    return -3.0
"""
            ),
            "add the bias to a copy": (
                """
def attempt(logits, labels, missing):
    logits[:, missing] += 3.0
    return 3.0
"""
            ),
        },
    ),
)


QUESTIONS = {
    "04.a": Question(
        "Of the 3s it has never seen, the student taught at temperature 4 reads…",
        ("none", "a few by luck, about one in ten", "most"),
        2,
        (
            "The answers on 9s, 8s and 2s say how 3-like each of them is. That is enough to "
            "place a class that never occurred."
        ),
    ),
    "04.b": Question(
        "All 1,000 labels known, long training. Which arm wins?",
        ("labels", "distilled", "shuffled", "label smoothing"),
        3,
        (
            "It gains about a point; the teacher's structure adds nothing that shows here. That "
            "is a property of this data, not a law."
        ),
    ),
}
