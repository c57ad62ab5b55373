"""Lesson 07: the mean of several networks, the errors that they share, and born-again networks."""

import torch
from torch.nn import functional as F

from kdlab.lessons.exercises import Exercise, Question

# --- 07.1 ensemble ---


def ensemble(members):
    """The mean of K networks' logits (K, N, C) → (N, C)."""
    return members.mean(0)


def _members():
    """Eight networks' logits on 12 images of 5 classes."""
    return 3 * torch.randn(8, 12, 5, generator=torch.Generator().manual_seed(0))


def _ensemble(attempt):
    z = _members()
    found = attempt(z.clone())
    if not torch.is_tensor(found):
        return f"expected a tensor (N, C), got {type(found).__name__}"
    expected = ensemble(z)
    if found.shape == (8, 5):
        return "that is the mean over the images; the networks are the first dimension"
    if found.shape == (8, 12):
        return "that is the mean over the classes; the networks are the first dimension"
    if found.shape == (12,):
        return "one class an image: a student needs the logits, (N, C)"
    if found.shape != expected.shape:
        return f"expected shape {tuple(expected.shape)}, got {tuple(found.shape)}"
    slips = {
        "a sum: eight times too sure, so a student's target would be nearly hard": z.sum(0),
        "that is the first network alone": z[0],
        "that is the last network alone": z[-1],
        "the largest of each: one loud network decides": z.amax(0),
        "the median: a mean is asked for": z.median(0).values,
        "that counts votes: how sure each network is gets lost": _votes(z),
        "those are probabilities: a good ensemble, too, but here the logits are averaged": (
            F.softmax(z, -1).mean(0)
        ),
        "the mean, and then a softmax: give back the logits themselves": F.softmax(expected, -1),
        "divided by the number of images: by the number of networks, or .mean(0)": z.sum(0) / 12,
    }
    for sentence, wrong in slips.items():
        if torch.allclose(found.float(), wrong, atol=1e-5):
            return sentence
    if not torch.allclose(found.float(), expected, atol=1e-5):
        return f"it differs from the mean by up to {(found - expected).abs().max().item():.3f}"
    two = attempt(z[:2].clone())
    if two.shape != expected.shape or not torch.allclose(two, ensemble(z[:2]), atol=1e-5):
        return "right for eight networks only: K is the size of the first dimension"
    return ""


def _votes(z):
    return F.one_hot(z.argmax(-1), z.shape[-1]).float().mean(0)


# --- 07.2 errors_shared ---


def errors_shared(members, labels):
    """Where one network errs, the share of the others that err too; a mean over all errors.

    members (K, N, C) logits, labels (N,) → a number in [0, 1]."""
    wrong = (members.argmax(-1) != labels).double()  # (K, N)
    others = wrong.sum(0) - wrong
    return ((wrong * others).sum() / (len(wrong) - 1) / wrong.sum()).item()


def _told():
    """Three networks on seven images, each right or wrong as written: 4, 2 and 3 errors."""
    wrong = torch.tensor([[1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0], [1, 1, 0, 0, 0, 1, 0]])
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    said = (labels + wrong * torch.tensor([[1], [2], [1]])) % 3
    return 5.0 * F.one_hot(said, 3), labels, wrong.double()


def _sharing_slips(members, wrong, right):
    """{what is wrong: the number that it gives}; wrong (M, N): 1 where a network errs."""
    k, n = wrong.shape
    together, any_wrong = wrong.prod(0).sum(), (wrong.sum(0) > 0).sum()
    pairs = (wrong * (wrong.sum(0) - wrong)).sum()
    agree = (1 - wrong) * ((1 - wrong).sum(0) - (1 - wrong))
    said = members.argmax(-1)
    alike = sum(
        ((said[i] == said[j]) * wrong[i]).sum() for i in range(k) for j in range(k) if i != j
    )
    return {
        "in per cent: a share between 0 and 1 is asked for": 100 * right,
        "each network is compared with itself, too, and shares all of its errors": (
            (wrong * wrong.sum(0)).sum() / k / wrong.sum()
        ),
        "that is the mean error rate: nothing is compared": wrong.mean(),
        "that is the accuracy: look at the errors": 1 - wrong.mean(),
        "only images on which all networks err, of those on which any does": together / any_wrong,
        "only images on which all networks err, of all images": together / n,
        "divided by all images: divide by the errors": pairs / (k - 1) / (k * n),
        "not divided by the number of other networks": pairs / wrong.sum(),
        "what they are right on together: look at the errors": (
            agree.sum() / (k - 1) / (1 - wrong).sum()
        ),
        "the other must err, in whatever way; it need not give the same wrong class": (
            alike / (k - 1) / wrong.sum()
        ),
        "only the first network's errors are counted: take all": (
            (wrong[0] * (wrong[1] + wrong[2])).sum() / (k - 1) / wrong[0].sum()
        ),
        "that is the share that they do not share": 1 - right,
        "the mean of the networks' shares: count every error once, whoever made it": (
            ((wrong * (wrong.sum(0) - wrong)).sum(1) / wrong.sum(1) / (k - 1)).mean()
        ),
    }


def _errors_shared(attempt):
    members, labels, wrong = _told()
    found = attempt(members.clone(), labels.clone())
    try:
        found = float(found)
    except (TypeError, ValueError, RuntimeError):
        return f"expected one number, got {type(found).__name__}"
    right = errors_shared(members, labels)
    slips = _sharing_slips(members, wrong, right)
    for sentence, value in slips.items():
        if abs(found - float(value)) < 1e-6:
            return sentence
    if abs(found - right) > 1e-6:
        return f"three networks with 4, 2 and 3 errors: expected {right:.4f}, got {found:.4f}"
    return ""


# --- 07.3 born_again ---


def born_again(teach, first, count):
    """[first, its student, that one's student, …]: count generations after the first.

    teach: a function that trains a new student of the model it is given, and gives it back."""
    models = [first]
    for _ in range(count):
        models.append(teach(models[-1]))
    return models


def _born_again(attempt):
    taught = []

    def teach(teacher):
        if not isinstance(teacher, str):
            raise _NotAModelError(type(teacher).__name__)
        taught.append(teacher)
        return teacher + "'s student"

    try:
        found = attempt(teach, "A", 3)
    except _NotAModelError as error:
        return f"teach got a {error}: give it one model, the newest"
    right = born_again(lambda teacher: teacher + "'s student", "A", 3)
    if isinstance(found, str):
        return "only one model comes back: keep all of them in a list"
    try:
        found = list(found)
    except TypeError:
        return f"expected a list of models, got {type(found).__name__}"
    if found == [right[0], *[right[1]] * 3]:
        return "every student was taught by the first model: the newest one teaches the next"
    if found == right[1:]:
        return "the first model is missing: generation 0 belongs to the list"
    if found == right[:-1]:
        return "one generation too few: count students follow the first model"
    if found == [*right, right[-1] + "'s student"]:
        return "one generation too many: count students follow the first model"
    if found == right[::-1]:
        return "the order is turned: the first model comes first"
    if found == ["A"]:
        return "nobody was taught: call teach count times"
    if found == ["A"] * 4:
        return "the same model four times: keep what teach gives back"
    if found != right:
        return f"expected 4 models, each taught by the one before it, got {len(found)}"
    if len(taught) != 3:
        return f"teach was called {len(taught)} times for three students: each call is a training"
    if list(attempt(teach, "A", 1)) != right[:2]:
        return "right for three generations only: use `count`"
    return ""


class _NotAModelError(Exception):
    pass


# --- wrong answers, for the tests ---


def _pairs(members, labels):
    """(wrong (K, N), how many of the other networks err, too)."""
    wrong = (members.argmax(-1) != labels).double()
    return wrong, wrong.sum(0) - wrong


def _itself_too(members, labels):
    wrong, _ = _pairs(members, labels)
    return (wrong * wrong.sum(0)).sum() / len(wrong) / wrong.sum()


def _of_all(members, labels):
    wrong, others = _pairs(members, labels)
    return (wrong * others).sum() / (len(wrong) - 1) / wrong.numel()


def _right_together(members, labels):
    right = (members.argmax(-1) == labels).double()
    return (right * (right.sum(0) - right)).sum() / (len(right) - 1) / right.sum()


def _all_err(of):
    def attempt(members, labels):
        wrong, _ = _pairs(members, labels)
        return wrong.prod(0).sum() / of(wrong)

    return attempt


def _first_only(members, labels):
    wrong, others = _pairs(members, labels)
    return (wrong[0] * others[0]).sum() / (len(wrong) - 1) / wrong[0].sum()


def _each_alike(members, labels):
    wrong, others = _pairs(members, labels)
    return ((wrong * others).sum(1) / wrong.sum(1) / (len(wrong) - 1)).mean()


def _same_class(members, labels):
    wrong, _ = _pairs(members, labels)
    said = members.argmax(-1)
    same = (said == said[:, None]).double().sum(0) - 1  # itself
    return (wrong * same).sum() / (len(wrong) - 1) / wrong.sum()


def _always_the_first(teach, first, count):
    return [first, *(teach(first) for _ in range(count))]


def _twice(teach, first, count):
    models = [first]
    for _ in range(count):
        teach(models[-1])
        models.append(teach(models[-1]))
    return models


def _unkept(teach, first, count):
    models = [first]
    for _ in range(count):
        teach(models[-1])
        models.append(models[-1])
    return models


def _whole_list(teach, first, count):
    models = [first]
    for _ in range(count):
        models.append(teach(models))
    return models


EXERCISES = (
    Exercise(
        "07.1",
        _ensemble,
        ("The networks are the first dimension.", "members.mean(0)"),
        ensemble,
        {
            "eight times too sure": lambda z: z.sum(0),
            "over the images": lambda z: z.mean(1),
            "over the classes": lambda z: z.mean(-1),
            "one class an image": lambda z: z.mean(0).argmax(-1),
            "first network": lambda z: z[0],
            "last network": lambda z: z[-1],
            "loud": lambda z: z.amax(0),
            "median": lambda z: z.median(0).values,
            "votes": _votes,
            "probabilities": lambda z: z.softmax(-1).mean(0),
            "then a softmax": lambda z: z.mean(0).softmax(-1),
            "number of images": lambda z: z.sum(0) / z.shape[1],
            "eight networks only": lambda z: z.sum(0) / 8,
            "got list": lambda z: z.mean(0).tolist(),
        },
    ),
    Exercise(
        "07.2",
        _errors_shared,
        (
            "wrong = (members.argmax(-1) != labels).double() is (K, N); wrong.sum(0) counts, for "
            "each image, how many networks err.",
            "wrong.sum(0) − wrong leaves out the network itself. Add that up over all errors; "
            "divide by the number of errors and by K − 1.",
        ),
        errors_shared,
        {
            "per cent": lambda z, y: 100 * errors_shared(z, y),
            "itself": _itself_too,
            "error rate": lambda z, y: (z.argmax(-1) != y).double().mean(),
            "accuracy": lambda z, y: (z.argmax(-1) == y).double().mean(),
            "of those on which any does": _all_err(lambda wrong: (wrong.sum(0) > 0).sum()),
            "of all images": _all_err(lambda wrong: wrong.shape[1]),
            "divided by all images": _of_all,
            "other networks": lambda z, y: 2 * errors_shared(z, y),
            "right on together": _right_together,
            "same wrong class": _same_class,
            "first network": _first_only,
            "do not share": lambda z, y: 1 - errors_shared(z, y),
            "count every error once": _each_alike,
            "one number": lambda z, y: (z.argmax(-1) != y).double(),
        },
    ),
    Exercise(
        "07.3",
        _born_again,
        (
            "Begin with models = [first]; models[-1] is the newest.",
            "count times: models.append(teach(models[-1])).",
        ),
        born_again,
        {
            "taught by the first": _always_the_first,
            "missing": lambda teach, first, count: born_again(teach, first, count)[1:],
            "too few": lambda teach, first, count: born_again(teach, first, count - 1),
            "too many": lambda teach, first, count: born_again(teach, first, count + 1),
            "only one": lambda teach, first, count: born_again(teach, first, count)[-1],
            "turned": lambda teach, first, count: born_again(teach, first, count)[::-1],
            "nobody": lambda teach, first, count: [first],
            "same model": _unkept,
            "each call is a training": _twice,
            "three generations only": lambda teach, first, count: born_again(teach, first, 3),
            "got a list": _whole_list,
            "got int": lambda teach, first, count: count,
        },
    ),
)

QUESTIONS = {
    "07.a": Question(
        "Eight networks, trained alike from other first weights; each reads about 86 % of such "
        "images. How many does the mean of their outputs read?",
        ("about 86 %", "about 93 %", "above 98 %"),
        2,
        "Each has missed some views, but not the same ones. For nearly every view somebody has it.",
    ),
    "07.b": Question(
        "A network teaches a copy of itself that begins from other first weights. It knows no more "
        "than the labels that it learnt from. How well does its student do?",
        ("worse than its teacher", "as well", "better"),
        2,
        "On these data it does better by some three points. On the digits, further below, it does "
        "not.",
    ),
    "07.c": Question(
        "Now shuffle the wrong classes of every answer, so that the teacher's second guesses are "
        "nonsense. What is left of the student's gain?",
        ("nothing", "about a half", "all of it, and more"),
        2,
        "So what the teacher says about the wrong classes is not what carries the gain here.",
    ),
}
