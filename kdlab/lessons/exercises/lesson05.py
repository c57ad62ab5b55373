"""Lesson 05: a target of two voices, a fault that is planted, and where it comes out again."""

import math

import torch
from torch.nn import functional as F

from kdlab.lessons.exercises import Exercise, Question

# --- 05.1 mixed_target ---


def mixed_target(labels, teacher, alpha):
    """Targets (N, C): alpha of the teacher's probabilities, 1 − alpha on the label."""
    label = F.one_hot(labels, teacher.shape[-1])
    return alpha * teacher + (1 - alpha) * label


def _mixed(attempt):
    labels = torch.tensor([3, 2, 0])
    teacher = torch.tensor(
        [[0.0, 0.04, 0.0, 0.04, 0.92], [0.1, 0.1, 0.6, 0.1, 0.1], [0.2, 0.5, 0.1, 0.1, 0.1]]
    )
    alpha = 0.3
    found = attempt(labels, teacher, alpha)
    hot = F.one_hot(labels, 5).float()
    right = mixed_target(labels, teacher, alpha)
    if not torch.is_tensor(found):
        return f"expected a tensor, a row of targets an image, got {type(found).__name__}"
    if tuple(found.shape) != (3, 5):
        return f"expected a row an image and a column a class, (3, 5), got {tuple(found.shape)}"
    slips = {
        "alpha weighs the label here: it is the teacher's share": alpha * hot
        + (1 - alpha) * teacher,
        "the teacher is missing: these are the labels": hot,
        "the label is missing: this is the teacher alone": teacher,
        "a row adds up to more than 1: the label gets 1 − alpha": alpha * teacher + hot,
        "a row adds up to less than 1: the label's share, 1 − alpha, is missing": alpha * teacher,
        "both voices are added whole: weigh them, so that a row adds up to 1": teacher + hot,
        "alpha does nothing: this is half of each": (teacher + hot) / 2,
        "the teacher's first choice stands for all it says: keep its probabilities": alpha
        * F.one_hot(teacher.argmax(-1), 5)
        + (1 - alpha) * hot,
        "these are logarithms: the targets are probabilities": right.log(),
        "softened once more: the teacher's row already holds probabilities": alpha
        * teacher.softmax(-1)
        + (1 - alpha) * hot,
        "multiplied: a mixture adds the two": (alpha * teacher) * ((1 - alpha) * hot),
    }
    for sentence, wrong in slips.items():
        if torch.allclose(found.float(), wrong, atol=1e-6):
            return sentence
    if not torch.allclose(found.float(), right, atol=1e-6):
        return f"the first row should be {_short(right[0])}, got {_short(found[0])}"
    ends = [attempt(labels, teacher, a) for a in (0.0, 1.0)]
    if not all(torch.allclose(e.float(), w) for e, w in zip(ends, (hot, teacher), strict=True)):
        return "right for alpha = 0.3 only: at 0 it should be the label, at 1 the teacher"
    return ""


def _short(row):
    return [round(value, 2) for value in row.tolist()]


# --- 05.2 miscall ---


def miscall(labels, share):
    """A copy of the labels in which the first `share` of the 3s is called 8."""
    copy, (threes,) = labels.clone(), (labels == 3).nonzero(as_tuple=True)
    copy[threes[: round(share * len(threes))]] = 8
    return copy


def _miscall(attempt):
    labels = torch.tensor([3, 8, 3, 1, 3, 3, 8, 5, 3, 3, 8, 9, 3, 3, 3, 3])  # ten 3s, three 8s
    given = labels.clone()
    found = attempt(labels, 0.6)
    if not torch.equal(labels, given):
        return "the labels that came in have changed: work on a copy, labels.clone()"
    if not torch.is_tensor(found):
        return f"expected a tensor of labels, got {type(found).__name__}"
    if found.shape != labels.shape:
        return f"expected a label an image, {len(labels)}, got {tuple(found.shape)}"
    if found.dtype != labels.dtype:
        return f"labels are whole numbers, {labels.dtype}, got {found.dtype}"
    changed = (found != labels).nonzero()[:, 0]
    threes = (labels == 3).nonzero()[:, 0]
    count = int(((found == 8) & (labels == 3)).sum())
    if not len(changed):
        return "nothing has changed: six of the ten 3s should be called 8"
    if (labels[changed] == 8).any() and (labels[changed] == 3).any():
        return "3s and 8s change places here: the 8s keep their label"
    if (labels[changed] == 8).all():
        return "turned round: it is 3s that are called 8"
    if (labels[changed] != 3).any():
        return "images that are no 3s have changed, too: only 3s are called 8"
    if (found[changed] != 8).any():
        return f"a 3 should be called 8, got {int(found[changed][found[changed] != 8][0])}"
    slips = {
        10: "all 3s are called 8: only a share of them",
        4: "that is the share that is left alone: share of them is called 8",
        9: "the share is taken of all images here: take it of the 3s",
        1: "one 3 has changed: share is a part of them, 0.6 of ten",
    }
    if count != 6:
        return slips.get(count, f"six of ten 3s should be called 8, got {count}")
    if not torch.equal(changed, threes[:6]):
        return "the right number, others than the first: then two runs would not plant the same"
    if not torch.equal(attempt(labels[2:9], 0.25), miscall(labels[2:9], 0.25)):
        return "right for a share of 0.6 only, or for these labels: use the arguments"
    return ""


# --- 05.3 called_8 ---


def called_8(logits, truth):
    """Of the images that are 3s, the share that is called 8: one number, 0 to 1."""
    threes = truth == 3
    return (logits[threes].argmax(-1) == 8).float().mean()


def _called(attempt):
    truth = torch.tensor([3] * 9 + [8] * 5 + [1] * 2)
    said = torch.tensor([8, 8, 8, 5, 1, 3, 3, 3, 3] + [3, 3, 8, 8, 8] + [1, 8])
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    truth, said = truth[order], said[order]
    logits = 3.0 * F.one_hot(said, 10) + torch.linspace(-1, 1, 160).reshape(16, 10)
    value = attempt(logits, truth)
    size = getattr(value, "numel", lambda: 1)()
    if size != 1 or isinstance(value, (str, list, tuple, dict)):
        return f"expected one number, got {size if size != 1 else type(value).__name__}"
    found, right = float(value), 3 / 9
    slips = {
        "that is a share of all images: take it of the 3s alone": 3 / 16,
        "that is a share of what is called 8: take it of what is a 3": 3 / 7,
        "that is the share of all images that are called 8: look at the 3s alone": 7 / 16,
        "every mistake is counted: only a 3 that is called 8 counts": 5 / 9,
        "that is the share of 3s that are read: those called 8 are asked for": 4 / 9,
        "turned round: these are 8s that are called 3": 2 / 5,
        "a share from 0 to 1, not per cent": 100 * right,
        "that is how many they are: divide by the number of 3s": 3,
        "the rest is asked for: 1 minus this": 1 - right,
        "a mean of probabilities: ask which class comes first": float(
            logits.softmax(-1)[truth == 3, 8].mean()
        ),
    }
    for sentence, wrong in slips.items():
        if math.isclose(found, wrong, rel_tol=1e-5):
            return sentence
    if not math.isclose(found, right, rel_tol=1e-5):
        return f"three of nine 3s are called 8 here: expected 0.333, got {found:.3f}"
    return ""


EXERCISES = (
    Exercise(
        "05.1",
        _mixed,
        (
            "A label as probabilities is one-hot: F.one_hot(labels, teacher.shape[-1]).",
            "alpha of the teacher's row, and 1 − alpha of the one-hot row; then it adds up to 1.",
        ),
        mixed_target,
        {
            "weighs the label": lambda y, p, a: mixed_target(y, p, 1 - a),
            "teacher is missing": lambda y, p, a: F.one_hot(y, p.shape[-1]).float(),
            "label is missing": lambda y, p, a: p,
            "more than 1": lambda y, p, a: a * p + F.one_hot(y, p.shape[-1]),
            "less than 1": lambda y, p, a: a * p,
            "added whole": lambda y, p, a: p + F.one_hot(y, p.shape[-1]),
            "alpha does nothing": lambda y, p, a: mixed_target(y, p, 0.5),
            "first choice": lambda y, p, a: mixed_target(
                y, F.one_hot(p.argmax(-1), p.shape[-1]), a
            ),
            "logarithms": lambda y, p, a: mixed_target(y, p, a).log(),
            "softened": lambda y, p, a: mixed_target(y, p.softmax(-1), a),
            "multiplied": lambda y, p, a: a * p * (1 - a) * F.one_hot(y, p.shape[-1]),
            "alpha = 0.3 only": lambda y, p, a: mixed_target(y, p, 0.3),
            "a row an image": lambda y, p, a: mixed_target(y, p, a).sum(0),
        },
    ),
    Exercise(
        "05.2",
        _miscall,
        (
            "copy = labels.clone(), and (labels == 3).nonzero()[:, 0] says where the 3s are.",
            "Set the first round(share * how many) of those places to 8, and give back the copy.",
        ),
        miscall,
        {
            "work on a copy": lambda y, share: y.masked_fill_(y == 3, 8),
            "nothing has changed": lambda y, share: y.clone(),
            "change places": lambda y, share: y.clone().where((y != 3) & (y != 8), 11 - y),
            "turned round": lambda y, share: y.where(y != 8, 3),
            "are no 3s": lambda y, share: torch.where(
                torch.arange(len(y)) < round(share * len(y)), 8, y
            ),
            "all 3s": lambda y, share: y.where(y != 3, 8),
            "left alone": lambda y, share: miscall(y, 1 - share),
            "of all images": lambda y, share: _first_threes(y, int(share * len(y))),
            "one 3": lambda y, share: _first_threes(y, 1),
            "others than the first": lambda y, share: miscall(y.flip(0), share).flip(0),
            "0.6 only": lambda y, share: miscall(y, 0.6),
            "called 8, got 5": lambda y, share: y.where(y != 3, 5),
            "whole numbers": lambda y, share: miscall(y, share).float(),
            "a label an image": lambda y, share: miscall(y, share)[y == 3],
        },
    ),
    Exercise(
        "05.3",
        _called,
        (
            "logits[truth == 3] are the answers to the 3s; argmax(-1) is what each is called.",
            "(… == 8).float().mean() is the share of them that is called 8.",
        ),
        called_8,
        {
            "of all images": lambda z, y: ((z.argmax(-1) == 8) & (y == 3)).float().mean(),
            "what is called 8": lambda z, y: (y[z.argmax(-1) == 8] == 3).float().mean(),
            "all images that are called 8": lambda z, y: (z.argmax(-1) == 8).float().mean(),
            "every mistake": lambda z, y: (z[y == 3].argmax(-1) != 3).float().mean(),
            "are read": lambda z, y: (z[y == 3].argmax(-1) == 3).float().mean(),
            "turned round": lambda z, y: (z[y == 8].argmax(-1) == 3).float().mean(),
            "per cent": lambda z, y: 100 * called_8(z, y),
            "how many": lambda z, y: (z[y == 3].argmax(-1) == 8).sum(),
            "the rest": lambda z, y: 1 - called_8(z, y),
            "probabilities": lambda z, y: z.softmax(-1)[y == 3, 8].mean(),
            "one number": lambda z, y: z[y == 3].argmax(-1) == 8,
        },
    ),
)


def _first_threes(labels, count):
    """The first `count` 3s called 8, for the mistakes above."""
    threes = (labels == 3).nonzero()[:, 0]
    return labels.index_fill(0, threes[:count], 8)


QUESTIONS = {
    "05.a": Question(
        "Four in ten labels are wrong. The teacher is poor, too: it was stopped early. Which "
        "student reads best in the end?",
        ("the one that believes the labels", "the one that believes the teacher", "one between"),
        2,
        "A wrong label and a poor answer seldom name the same wrong class. Mixed, they contradict "
        "each other where they are wrong, and agree where they are right. The lead over the labels "
        "is large; that over the teacher is small and does not show with every set of splits.",
    ),
    "05.b": Question(
        "A 3 is labelled 3; the teacher is 95 % sure that it is an 8. From which alpha on is the 8 "
        "the larger part of the target?",
        ("about 0.05", "about 0.5", "about 0.95"),
        1,
        "The 8 gets 0.95 alpha. The 3 gets 1 − alpha and the little that the teacher left it. They "
        "meet just above a half.",
    ),
    "05.c": Question(
        "This teacher calls two in three 3s an 8. A student hears right labels and this teacher, "
        "half and half. How many of its 3s become 8s?",
        ("next to none", "one in seven", "one in three"),
        1,
        "Where the teacher is nearly sure of the 8, the target tips just over; where it wavers, "
        "the label wins. Half a voice carries a part of the fault over, and not half of it.",
    ),
}
