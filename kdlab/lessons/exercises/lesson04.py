"""Lesson 04: smoothed labels, stopping early, the share of a gap, and what a teacher costs."""

import math

import torch
import torch.nn.functional as F

from kdlab.lessons.exercises import Exercise, Question

# --- 04.1 smooth ---


def smooth(labels, classes, eps):
    """Targets (N, classes): eps spread over all classes, the rest on the label."""
    return (1 - eps) * F.one_hot(labels, classes) + eps / classes


def _smooth(attempt):
    labels, classes, eps = torch.tensor([3, 9, 0, 3, 7, 1]), 10, 0.1
    found = attempt(labels, classes, eps)
    hot = F.one_hot(labels, classes).float()
    right = smooth(labels, classes, eps)
    if not torch.is_tensor(found):
        return f"expected a tensor, one row of targets an image, got {type(found).__name__}"
    if tuple(found.shape) != (len(labels), classes):
        return f"expected a row an image and a column a class, (6, 10), got {tuple(found.shape)}"
    slips = {
        "eps does nothing: these are the hard labels": hot,
        "the label gets eps and the rest 1 − eps: swap the two": (eps * hot + (1 - eps) / classes),
        "eps goes to the wrong classes alone here; spread it over all of them, the right one too": (
            (1 - eps) * hot + eps / (classes - 1) * (1 - hot)
        ),
        "a row adds up to less than 1: the right class gets its own eps / classes too": (
            (1 - eps) * hot + eps / classes * (1 - hot)
        ),
        "a row adds up to more than 1: take eps off the label before you spread it": (
            hot + eps / classes
        ),
        "each class got all of eps: share it, eps / classes": (1 - eps) * hot + eps,
        "eps is shared by the images here: share it by the classes": (
            (1 - eps) * hot + eps / len(labels)
        ),
        "these are logarithms: the targets are probabilities": right.log(),
        "nothing is left of the label: all classes are equal": torch.full_like(hot, 1 / classes),
        "the label's share is left, and the spread is missing": (1 - eps) * hot,
    }
    for sentence, wrong in slips.items():
        if torch.allclose(found.float(), wrong, atol=1e-6):
            return sentence
    if torch.allclose(found.float(), right):
        again = attempt(labels[:2], 4 + classes, 0.3)
        expected = smooth(labels[:2], 4 + classes, 0.3)
        if again.shape != expected.shape or not torch.allclose(again.float(), expected):
            return "right for ten classes and eps = 0.1 only: use the arguments"
        return ""
    return (
        f"the label of the first row should get 0.91 and each other 0.01, got {found[0].tolist()}"
    )


# --- 04.2 stop_early ---


def stop_early(curve):
    """The epoch at which validation is best; the earliest where several are."""
    return max(sorted(curve), key=lambda epoch: curve[epoch])


RISES_DIPS_FALLS = {1: 74.4, 2: 88.9, 4: 88.1, 8: 90.2, 16: 90.2, 30: 88.7, 60: 83.8}


def _stop(attempt):
    value = attempt(dict(RISES_DIPS_FALLS))
    if not isinstance(value, (int, float)):
        return f"expected one epoch, a key of the curve, got {type(value).__name__}"
    slips = {
        60: "the last epoch: that is no early stop",
        1: "the worst epoch: validation accuracy should be large",
        2: "it stopped at the first dip; a curve may fall a little and rise again",
        16: "two epochs are equally good: take the earlier, it costs less",
        30: "one checkpoint before the last: look for the best",
        90.2: "that is the best accuracy; the epoch at which it was reached is asked for",
        3: "that is a place in the list; give back the epoch, the key",
        4: "that is the second place where it dips: take the best of all",
    }
    if value != 8:
        return slips.get(value, f"at epoch 8 it was best, 90.2, got {value}")
    turned = dict(reversed(RISES_DIPS_FALLS.items()))
    if attempt(turned) != 8:
        return "of two equal ones take the smaller epoch, in whatever order they come"
    if attempt({5: 60.0, 10: 61.0, 20: 62.0}) != 20:
        return "a curve that only rises is best at its end: nothing was to be stopped"
    return ""


# --- 04.3 share_of_gap ---


def share_of_gap(student, labels, teacher):
    """(student − labels) / (teacher − labels), of the means over splits: one number."""
    return (student.mean() - labels.mean()) / (teacher.mean() - labels.mean())


def _share(attempt):
    student = torch.tensor([92.0, 90.5, 93.0, 91.0])
    labels = torch.tensor([86.0, 88.0, 85.0, 87.5])
    teacher = torch.tensor([97.0, 88.5, 98.0, 97.5])  # split 2: hardly a gap at all
    value = attempt(student, labels, teacher)
    size = getattr(value, "numel", lambda: 1)()
    if size != 1:
        return f"expected one number for all splits, got {size}: take the means first"
    found = float(value)
    s, low, t = (float(x.mean()) for x in (student, labels, teacher))
    right = (s - low) / (t - low)
    slips = {
        "a mean of ratios: where a split has hardly a gap, its ratio explodes. Take the means "
        "first, then divide": float(((student - labels) / (teacher - labels)).mean()),
        "this is the share that is still open: the student's way starts at the labels": (
            (t - s) / (t - low)
        ),
        "this compares whole accuracies; only the way beyond the labels counts": s / t,
        "the gain in points: divide it by the gap, teacher − labels": s - low,
        "a share, not per cent: 0.5 is half of the gap": 100 * right,
        "upside down: the gap stands below the line": 1 / right,
        "divided by the teacher's accuracy: the gap is teacher − labels": (s - low) / t,
        "divided by the labels' accuracy: the gap is teacher − labels": (s - low) / low,
        "the sign is turned": -right,
        "the gap runs from the labels to the teacher, not from the student": (s - low) / (t - s),
    }
    for sentence, wrong in slips.items():
        if math.isclose(found, wrong, rel_tol=1e-4):
            return sentence
    if not math.isclose(found, right, rel_tol=1e-4):
        return f"expected {right:.3f} on the check's four splits, got {found:.3f}"
    beyond = float(attempt(teacher + 2, labels, teacher))
    below = float(attempt(labels - 2, labels, teacher))
    if beyond <= 1 or below >= 0:
        return "don't cut it off: a student may pass its teacher, or fall behind the labels"
    return ""


# --- 04.4 pays_after ---


def pays_after(training, teacher, student):
    """Predictions after which the student's training is paid by what each of them saves."""
    return training / (teacher - student)


def _pays(attempt):
    value = attempt(3e9, 176_128, 9_472)
    try:
        found = float(value)
    except (TypeError, ValueError):
        return f"expected one number of predictions, got {type(value).__name__}"
    training, teacher, student = 3e9, 176_128, 9_472
    right = training / (teacher - student)
    slips = {
        "that would be so if the student answered for nothing: it saves teacher − student": (
            training / teacher
        ),
        "each prediction saves what the teacher costs beyond the student": training / student,
        "the costs are added up: a prediction saves their difference": (
            training / (teacher + student)
        ),
        "the sign is turned: it saves teacher − student": -right,
        "that is what one prediction saves: how many pay for the training?": teacher - student,
        "upside down: the training stands above the line": 1 / right,
        "that is how often the student is cheaper, whatever the training cost": teacher / student,
        "multiplied: divide the training by what a prediction saves": (
            training * (teacher - student)
        ),
        "each training step was counted three times more: training is given as a total": 3 * right,
        "that is the training itself: divide it by what each prediction saves": training,
    }
    for sentence, wrong in slips.items():
        if math.isclose(found, wrong, rel_tol=1e-4):
            return sentence
    if not math.isclose(found, right, rel_tol=1e-4):
        return f"expected {right:,.0f} predictions for the check's numbers, got {found:,.0f}"
    return ""


EXERCISES = (
    Exercise(
        "04.1",
        _smooth,
        (
            "F.one_hot(labels, classes) is 1 at the label and 0 elsewhere.",
            "Keep 1 − eps of it, and add eps / classes to every class. Each row adds up to 1.",
        ),
        smooth,
        {
            "hard labels": lambda y, c, e: F.one_hot(y, c).float(),
            "swap": lambda y, c, e: e * F.one_hot(y, c) + (1 - e) / c,
            "wrong classes alone": lambda y, c, e: torch.where(
                F.one_hot(y, c) > 0, 1 - e, e / (c - 1)
            ),
            "less than 1": lambda y, c, e: torch.where(F.one_hot(y, c) > 0, 1 - e, e / c),
            "more than 1": lambda y, c, e: F.one_hot(y, c) + e / c,
            "all of eps": lambda y, c, e: (1 - e) * F.one_hot(y, c) + e,
            "by the images": lambda y, c, e: (1 - e) * F.one_hot(y, c) + e / len(y),
            "logarithms": lambda y, c, e: smooth(y, c, e).log(),
            "all classes are equal": lambda y, c, e: torch.full((len(y), c), 1 / c),
            "spread is missing": lambda y, c, e: (1 - e) * F.one_hot(y, c),
            "a row an image": lambda y, c, e: smooth(y, c, e).T,
            "use the arguments": lambda y, c, e: 0.9 * F.one_hot(y, 10) + 0.01,
        },
    ),
    Exercise(
        "04.2",
        _stop,
        (
            "max(curve, key=…) gives a key of a dictionary.",
            "key=lambda epoch: curve[epoch] compares the accuracies; sorted(curve) puts the "
            "earlier of two equal ones first.",
        ),
        stop_early,
        {
            "no early stop": lambda curve: max(curve),
            "worst": lambda curve: min(curve, key=curve.get),
            "first dip": lambda curve: next(
                a for a, b in zip(list(curve), list(curve)[1:], strict=False) if curve[b] < curve[a]
            ),
            "take the earlier": lambda curve: max(reversed(list(curve)), key=curve.get),
            "before the last": lambda curve: sorted(curve)[-2],
            "best accuracy": lambda curve: max(curve.values()),
            "place in the list": lambda curve: list(curve.values()).index(max(curve.values())),
            "whatever order": lambda curve: max(curve, key=curve.get),
            "only rises": lambda curve: max(sorted(curve)[:-1], key=curve.get),
            "one epoch": lambda curve: [max(curve, key=curve.get)],
        },
    ),
    Exercise(
        "04.3",
        _share,
        (
            "0 is the student on labels, 1 is the teacher: how far did this student come?",
            "x.mean() of each of the three first; then (student − labels) / (teacher − labels).",
        ),
        share_of_gap,
        {
            "mean of ratios": lambda s, a, t: ((s - a) / (t - a)).mean(),
            "still open": lambda s, a, t: (t.mean() - s.mean()) / (t.mean() - a.mean()),
            "whole accuracies": lambda s, a, t: s.mean() / t.mean(),
            "gain in points": lambda s, a, t: (s - a).mean(),
            "not per cent": lambda s, a, t: 100 * share_of_gap(s, a, t),
            "upside down": lambda s, a, t: 1 / share_of_gap(s, a, t),
            "teacher's accuracy": lambda s, a, t: (s - a).mean() / t.mean(),
            "labels' accuracy": lambda s, a, t: (s - a).mean() / a.mean(),
            "sign": lambda s, a, t: -share_of_gap(s, a, t),
            "from the student": lambda s, a, t: (s - a).mean() / (t - s).mean(),
            "cut it off": lambda s, a, t: share_of_gap(s, a, t).clamp(0, 1),
            "one number": lambda s, a, t: (s - a) / (t - a),
        },
    ),
    Exercise(
        "04.4",
        _pays,
        (
            "Each prediction of the student in the teacher's place saves teacher − student.",
            "How many such savings add up to the training?",
        ),
        pays_after,
        {
            "for nothing": lambda training, teacher, student: training / teacher,
            "beyond the student": lambda training, teacher, student: training / student,
            "difference": lambda training, teacher, student: training / (teacher + student),
            "sign": lambda training, teacher, student: training / (student - teacher),
            "one prediction saves": lambda training, teacher, student: teacher - student,
            "upside down": lambda training, teacher, student: (teacher - student) / training,
            "how often": lambda training, teacher, student: teacher / student,
            "multiplied": lambda training, teacher, student: training * (teacher - student),
            "three times": lambda training, teacher, student: 3 * training / (teacher - student),
            "training itself": lambda training, teacher, student: training,
        },
    ),
)

QUESTIONS = {
    "04.a": Question(
        "1,000 labels, 40 % of them wrong. A student trains on them, ever longer. Its accuracy…",
        ("rises and stays", "rises, then falls", "never gets past 60 %"),
        1,
        "First it learns what most labels agree on. Then it learns the wrong ones by heart, one by "
        "one, and gives back a good part of what it knew.",
    ),
    "04.b": Question(
        "1,000 labels, all clean. Which arm wins?",
        ("labels", "distilled", "teacher shuffled", "label smoothing"),
        3,
        "It gains nearly two points, without any teacher, and ends above the teacher itself, which "
        "leads labels by about one. Little is left for distillation to close.",
    ),
    "04.c": Question(
        "A taught student is trained on with 100 labels alone, no teacher. Its accuracy…",
        (
            "falls to that of labels alone",
            "falls somewhat, and stays clearly above",
            "rises to the teacher's",
        ),
        1,
        "It gives back some points at once and keeps the rest. The labels do not drive the "
        "network to where they would have led it from scratch.",
    ),
}
