"""Exercises of lesson 03: soften, the whole loss, a lecture's loss, the gradient."""

import torch
from torch.nn import functional as F

from kdlab.lessons.exercises import Exercise, Question

# --- 03.1 ---


def soften(probabilities, T):
    """Probabilities at T = 1, (..., C) → probabilities at temperature T."""
    return torch.softmax(probabilities.log() / T, dim=-1)


def _soften(attempt):
    p = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]], dtype=torch.float64)
    for T in (1.0, 2.0, 5.0):
        found, right = torch.as_tensor(attempt(p, T)).double(), soften(p, T)
        if found.shape != p.shape:
            return f"one probability for each given: {tuple(p.shape)}, got {tuple(found.shape)}"
        if T == 1:
            continue
        power = p ** (1 / T)
        slips = {
            "you divided the probabilities, not the logits: the logits are log p": (
                torch.softmax(p / T, -1)
            ),
            "your distribution became sharper: divide log p by T": torch.softmax(p.log() * T, -1),
            "the right powers, but each row must add up to 1: divide by its sum": power,
            "divide by the sum of each row, sum(-1, keepdim=True); here all rows share one": (
                power / power.sum()
            ),
            "the softmax runs over the rows; the classes are dim=-1": (
                torch.softmax(p.log() / T, 0)
            ),
            "T has no effect: dividing every probability by T and normalising gives them back": p,
            "a row no longer adds up to 1: it is log p that T divides": p / T,
            "these are log-probabilities": torch.log_softmax(p.log() / T, -1),
            "T divides once; here it is T²": torch.softmax(p.log() / T**2, -1),
            "that mixes in a uniform answer, as label smoothing does; T divides the log-odds": (
                p / T + (1 - 1 / T) / p.shape[-1]
            ),
        }
        for sentence, wrong in slips.items():
            if torch.allclose(found, wrong, atol=1e-6):
                return sentence
        if not torch.allclose(found, right, atol=1e-6):
            expected, came = ([round(v, 3) for v in row.tolist()] for row in (right[0], found[0]))
            return f"at T = {T:g}, 0.7, 0.2, 0.1 should give {expected}, got {came}"
    return ""


# --- 03.2 ---


def distillation_loss(student_logits, teacher_logits, labels, T, alpha):
    """alpha · T² · KL(teacher ‖ student, both at T) + (1 − alpha) · cross-entropy, one number."""
    log_p = F.log_softmax(teacher_logits / T, dim=-1)
    log_q = F.log_softmax(student_logits / T, dim=-1)
    soft = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    hard = F.cross_entropy(student_logits, labels)
    return alpha * T**2 * soft + (1 - alpha) * hard


def _kl(log_p, log_q):
    """KL(p ‖ q), the mean over the rows."""
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def _soft_slips(s, t, T):
    """What the field writes in the soft term's place, and what to say of it."""
    log_q, log_p = F.log_softmax(s / T, -1), F.log_softmax(t / T, -1)
    return {
        "the student's logits too are divided by T; here the student stays at T = 1": _kl(
            log_p, F.log_softmax(s, -1)
        ),
        "the teacher's logits too are divided by T; here the teacher stays at T = 1": _kl(
            F.log_softmax(t, -1), log_q
        ),
        "the two sides are swapped: the teacher's probabilities weight the sum": _kl(log_q, log_p),
        "F.kl_div wants the log of the student's probabilities: log_softmax, not softmax": _kl(
            log_p, log_q.exp()
        ),
        "with log_target=True the teacher's side is a log too": _kl(log_p.exp(), log_q),
        "the softmax runs over the classes, dim=-1; here it runs over the images, dim=0": _kl(
            F.log_softmax(t / T, 0), F.log_softmax(s / T, 0)
        ),
        "a sum over the batch: divide by its rows, as batchmean does": _kl(log_p, log_q) * len(s),
        'the mean also runs over the classes: reduction="batchmean" divides by the rows alone': (
            _kl(log_p, log_q) / s.shape[-1]
        ),
        "this is the cross-entropy to the teacher, not the KL: it is not 0 where the two agree": (
            -(log_p.exp() * log_q).sum(-1).mean()
        ),
    }


def _weight_slips(soft, hard, hard_at_T, T, alpha):
    """What the field does with the weights of the two terms."""
    return {
        "the factor is T², here it is T": alpha * T * soft + (1 - alpha) * hard,
        "is the T² on the soft term? It is missing": alpha * soft + (1 - alpha) * hard,
        "is the T² on the soft term? Here it multiplies both": (
            T * T * (alpha * soft + (1 - alpha) * hard)
        ),
        "alpha weights the soft term; here it weights the labels": (
            (1 - alpha) * T * T * soft + alpha * hard
        ),
        "the hard term has no temperature": alpha * T * T * soft + (1 - alpha) * hard_at_T,
    }


def _loss(loss):
    generator = torch.Generator().manual_seed(0)
    s, t = torch.randn(2, 8, 5, dtype=torch.float64, generator=generator) * 2
    y, T, alpha = torch.randint(0, 5, (8,), generator=generator), 4.0, 0.7
    s.requires_grad_()
    given = torch.as_tensor(loss(s, t, y, T, alpha))
    if given.ndim:
        return f"the loss is one number, the mean over the batch; got shape {tuple(given.shape)}"
    soft, hard = _kl(F.log_softmax(t / T, -1), F.log_softmax(s / T, -1)), F.cross_entropy(s, y)
    slips = {
        sentence: alpha * T * T * term + (1 - alpha) * hard
        for sentence, term in _soft_slips(s, t, T).items()
    } | _weight_slips(soft, hard, F.cross_entropy(s / T, y), T, alpha)
    for sentence, value in slips.items():
        if abs(given.item() - value.item()) < 1e-6:
            return sentence
    expected = distillation_loss(s, t, y, T, alpha)
    if abs(given.item() - expected.item()) >= 1e-6:
        return f"expected {expected.item():.4f} on the test batch, got {given.item():.4f}"
    return _gradient_of(given, expected, s)


def _gradient_of(given, expected, s):
    """What is wrong with the gradient of a loss whose value is right."""
    if not given.requires_grad:
        return (
            "the number is right, but it has no gradient: nothing is learnt from it; leave out "
            ".item(), .detach() and float()"
        )
    found, right = (torch.autograd.grad(value, s)[0] for value in (given, expected))
    if not torch.allclose(found, right, atol=1e-6):
        return "the number is right, its gradient is not: is one of the two terms detached?"
    return ""


def _slip(body):
    return f"""
def attempt(s, t, y, T, alpha):
    soft = F.kl_div(F.log_softmax(s / T, -1), F.log_softmax(t / T, -1), \
log_target=True, reduction="batchmean")
    return {body}
"""


def _term(soft):
    """An attempt whose soft term is this."""
    return f"""
def attempt(s, t, y, T, alpha):
    soft = {soft}
    return alpha * T**2 * soft + (1 - alpha) * F.cross_entropy(s, y)
"""


def _kl_div(student, teacher):
    """F.kl_div of these two as the soft term."""
    return _term(f'F.kl_div({student}, {teacher}, log_target=True, reduction="batchmean")')


# --- 03.3 ---


def lecture_loss(student_logits, T):
    """KL(student at T ‖ the same student at 1), the mean over rows: no teacher, no label."""
    log_soft = F.log_softmax(student_logits / T, dim=-1)
    log_plain = F.log_softmax(student_logits, dim=-1)
    return (log_soft.exp() * (log_soft - log_plain)).sum(-1).mean()


def _lecture(attempt):
    """Either direction of the KL will do, with T² or without: all are 0 for constant logits."""
    z, T = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), 4.0
    z = (2 * z).requires_grad_()
    given = torch.as_tensor(attempt(z, T))
    if given.ndim:
        return f"the loss is one number, the mean over the batch; got shape {tuple(given.shape)}"
    soft, plain = F.log_softmax(z / T, -1), F.log_softmax(z, -1)
    right = [_kl(soft, plain), _kl(plain, soft)]
    right += [T * T * value for value in right]
    for value in right:
        if abs(given.item() - value.item()) < 1e-6:
            return _lecture_gradient(given, value, z)
    for sentence, value in _lecture_slips(z, T, soft, plain).items():
        if abs(given.item() - value.item()) < 1e-6:
            return sentence
    return f"expected {right[0].item():.4f} on the test batch, got {given.item():.4f}"


def _lecture_slips(z, T, soft, plain):
    return {
        "both softmaxes are at the same T, so this is 0 whatever the student answers": (
            torch.tensor(0.0)
        ),
        "this is the cross-entropy: subtract the entropy, so that it is 0 where the two agree": (
            -(soft.exp() * plain).sum(-1).mean()
        ),
        "this is the cross-entropy, of the plain answer; subtract its entropy": (
            -(plain.exp() * soft).sum(-1).mean()
        ),
        "a sum over the batch: take the mean over its rows": _kl(soft, plain) * len(z),
        "the mean runs over the classes too: add up over classes, then take the mean of the rows": (
            _kl(soft, plain) / z.shape[-1]
        ),
        "the softmax runs over the images, dim=0; the classes are dim=-1": _kl(
            F.log_softmax(z / T, 0), F.log_softmax(z, 0)
        ),
        "multiplying by T sharpens; divide by it": _kl(F.log_softmax(z * T, -1), plain),
        "F.kl_div wants the log of its first argument": _kl(soft, plain.exp()),
        "the sign is turned: it would push the two apart": -_kl(soft, plain),
        "this is a squared distance of the logits; compare the probabilities": (
            (z / T - z).square().sum(-1).mean()
        ),
    }


def _lecture_gradient(given, value, z):
    if not given.requires_grad:
        return (
            "the number is right, but it has no gradient: leave out .item(), .detach() and float()"
        )
    found, whole = (torch.autograd.grad(v, z, retain_graph=True)[0] for v in (given, value))
    if torch.allclose(found, whole, atol=1e-6):
        return ""
    return "one of the two answers is detached: both are the student's, and both learn"


# --- 03.4 ---


def soft_gradient(student_logits, teacher_logits, T):
    """The gradient of KL(teacher ‖ student, both at T) by each row's student logits, (N, C)."""
    q = torch.softmax(student_logits / T, dim=-1)
    p = torch.softmax(teacher_logits / T, dim=-1)
    return (q - p) / T


def _gradient(attempt):
    s, t = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    for T in (3.0, 1.0):
        z = s.clone().requires_grad_()
        (right,) = torch.autograd.grad(
            _kl(F.log_softmax(t / T, -1), F.log_softmax(z / T, -1)) * len(s), z
        )
        found = torch.as_tensor(attempt(s, t, T)).double()
        if found.shape != s.shape:
            return (
                f"a gradient for every logit: shape {tuple(s.shape)}, got {tuple(found.shape)}; "
                "add nothing up"
            )
        for sentence, wrong in _gradient_slips(s, t, T, right).items() if T != 1 else ():
            if torch.allclose(found, wrong):
                return f"at T = {T:g}: {sentence}"
        if not torch.allclose(found, right):
            most = (found - right).abs().max().item()
            return f"at T = {T:g} it differs from autograd by up to {most:.3f}"
    return ""


def _gradient_slips(s, t, T, right):
    q, p = torch.softmax(s / T, -1), torch.softmax(t / T, -1)
    return {
        "the sign is turned: the loss falls where the student's answer moves to the teacher's": (
            -right
        ),
        f"it is {T:g} times too large: z / T inside the softmax leaves a factor 1/T": right * T,
        "the T² is in it already; here the bare gradient is asked for": right * T * T,
        "1/T comes once, from z / T; here it stands twice": right / T,
        "each row for itself: here it is divided by the number of rows": right / len(s),
        "these are the probabilities at T = 1: both softmaxes take logits divided by T": (
            torch.softmax(s, -1) - torch.softmax(t, -1)
        ),
        "the student's softmax too is at T": (torch.softmax(s, -1) - p) / T,
        "the teacher's softmax too is at T": (q - torch.softmax(t, -1)) / T,
        "the softmax runs over the rows; the classes are dim=-1": (
            (torch.softmax(s / T, 0) - torch.softmax(t / T, 0)) / T
        ),
        "these are differences of the logits; the gradient is one of probabilities": (s - t) / T,
        "these are differences of log-probabilities; the gradient is one of probabilities": (
            q.log() - p.log()
        )
        / T,
        "this is the loss of each class, not its derivative": p * (p.log() - q.log()),
    }


EXERCISES = (
    Exercise(
        "03.1",
        _soften,
        (
            "The logits of a softmax are known up to a constant: log p.",
            (
                "So softened probabilities are softmax(log p / T), "
                "which is the same as p ** (1/T), normalised."
            ),
        ),
        soften,
        {
            "not the logits": lambda p, T: torch.softmax(p / T, -1),
            "sharper": lambda p, T: torch.softmax(p.log() * T, -1),
            "right powers": lambda p, T: p ** (1 / T),
            "all rows share": lambda p, T: p ** (1 / T) / (p ** (1 / T)).sum(),
            "over the rows": lambda p, T: torch.softmax(p.log() / T, 0),
            "no effect": lambda p, T: (p / T) / (p / T).sum(-1, keepdim=True),
            "no longer adds up": lambda p, T: p / T,
            "log-probabilities": lambda p, T: torch.log_softmax(p.log() / T, -1),
            "here it is T²": lambda p, T: torch.softmax(p.log() / T**2, -1),
            "label smoothing": lambda p, T: p / T + (1 - 1 / T) / p.shape[-1],
            "one probability for each": lambda p, T: torch.softmax(p.log() / T, -1)[0],
        },
    ),
    Exercise(
        "03.2",
        _loss,
        (
            'Soft: F.kl_div(log q, log p, log_target=True, reduction="batchmean"), both at T.',
            "alpha · T² · soft + (1 − alpha) · F.cross_entropy(student_logits, labels).",
        ),
        distillation_loss,
        {
            "It is missing": _slip("alpha * soft + (1 - alpha) * F.cross_entropy(s, y)"),
            "multiplies both": _slip("T**2 * (alpha * soft + (1 - alpha) * F.cross_entropy(s, y))"),
            "weights the labels": _slip(
                "(1 - alpha) * T**2 * soft + alpha * F.cross_entropy(s, y)"
            ),
            "no temperature": _slip(
                "alpha * T**2 * soft + (1 - alpha) * F.cross_entropy(s / T, y)"
            ),
            "no gradient": _slip(
                "float(alpha * T**2 * soft + (1 - alpha) * F.cross_entropy(s, y))"
            ),
            "terms detached": _slip(
                "alpha * T**2 * soft.detach() + (1 - alpha) * F.cross_entropy(s, y)"
            ),
            "student stays": _kl_div("F.log_softmax(s, -1)", "F.log_softmax(t / T, -1)"),
            "teacher stays": _kl_div("F.log_softmax(s / T, -1)", "F.log_softmax(t, -1)"),
            "swapped": _kl_div("F.log_softmax(t / T, -1)", "F.log_softmax(s / T, -1)"),
            "not softmax": _kl_div("F.softmax(s / T, -1)", "F.log_softmax(t / T, -1)"),
            "side is a log": _kl_div("F.log_softmax(s / T, -1)", "F.softmax(t / T, -1)"),
            "dim=0": _kl_div("F.log_softmax(s / T, 0)", "F.log_softmax(t / T, 0)"),
            "here it is T": _slip("alpha * T * soft + (1 - alpha) * F.cross_entropy(s, y)"),
            "divide by its rows": _slip(
                "alpha * T**2 * soft * len(s) + (1 - alpha) * F.cross_entropy(s, y)"
            ),
            "one number": _slip("alpha * T**2 * soft + (1 - alpha) * (s - t).square()"),
            "over the classes": _slip(
                "alpha * T**2 * soft / 5 + (1 - alpha) * F.cross_entropy(s, y)"
            ),
            "not the KL": _slip(
                "alpha * T**2 * F.cross_entropy(s / T, "
                "torch.softmax(t / T, -1)) + (1 - alpha) * F.cross_entropy(s, y)"
            ),
        },
    ),
    Exercise(
        "03.3",
        _lecture,
        (
            "Two softmaxes of the same logits: student_logits / T, and student_logits.",
            "Σ p · (log p − log q) over the classes, the mean over rows. Either may be p.",
        ),
        lecture_loss,
        {
            "same T": lambda z, T: _kl(F.log_softmax(z / T, -1), F.log_softmax(z / T, -1)),
            "this is the cross-entropy: subtract": lambda z, T: F.cross_entropy(
                z, torch.softmax(z / T, -1)
            ),
            "of the plain answer": lambda z, T: F.cross_entropy(z / T, torch.softmax(z, -1)),
            "a sum over the batch": lambda z, T: lecture_loss(z, T) * len(z),
            "over the classes too": lambda z, T: lecture_loss(z, T) / z.shape[-1],
            "dim=0": lambda z, T: _kl(F.log_softmax(z / T, 0), F.log_softmax(z, 0)),
            "sharpens": lambda z, T: _kl(F.log_softmax(z * T, -1), F.log_softmax(z, -1)),
            "wants the log": lambda z, T: _kl(F.log_softmax(z / T, -1), F.softmax(z, -1)),
            "sign is turned": lambda z, T: -lecture_loss(z, T),
            "squared distance": lambda z, T: (z / T - z).square().sum(-1).mean(),
            "no gradient": lambda z, T: float(lecture_loss(z, T)),
            "is detached": lambda z, T: _kl(
                F.log_softmax(z / T, -1).detach(), F.log_softmax(z, -1)
            ),
            "one number": lambda z, T: F.log_softmax(z / T, -1) - F.log_softmax(z, -1),
        },
    ),
    Exercise(
        "03.4",
        _gradient,
        (
            "The gradient of KL(p ‖ q) by the softmax's own inputs u = z / T is q − p.",
            "By the chain rule du/dz = 1/T.",
        ),
        soft_gradient,
        {
            "too large": lambda s, t, T: torch.softmax(s / T, -1) - torch.softmax(t / T, -1),
            "sign": lambda s, t, T: -soft_gradient(s, t, T),
            "in it already": lambda s, t, T: T * T * soft_gradient(s, t, T),
            "stands twice": lambda s, t, T: soft_gradient(s, t, T) / T,
            "each row for itself": lambda s, t, T: soft_gradient(s, t, T) / len(s),
            "at T = 1": lambda s, t, T: torch.softmax(s, -1) - torch.softmax(t, -1),
            "student's softmax too": lambda s, t, T: (
                (torch.softmax(s, -1) - torch.softmax(t / T, -1)) / T
            ),
            "teacher's softmax too": lambda s, t, T: (
                (torch.softmax(s / T, -1) - torch.softmax(t, -1)) / T
            ),
            "over the rows": lambda s, t, T: (
                (torch.softmax(s / T, 0) - torch.softmax(t / T, 0)) / T
            ),
            "of the logits": lambda s, t, T: (s - t) / T,
            "of log-probabilities": lambda s, t, T: (
                (F.log_softmax(s / T, -1) - F.log_softmax(t / T, -1)) / T
            ),
            "not its derivative": lambda s, t, T: (
                torch.softmax(t / T, -1) * (F.log_softmax(t / T, -1) - F.log_softmax(s / T, -1))
            ),
            "add nothing up": lambda s, t, T: soft_gradient(s, t, T).norm(),
        },
    ),
)


QUESTIONS = {
    "03.a": Question(
        (
            "On its own training images, how far from sure is the teacher? Measure by entropy: 0"
            " nats is certainty, 2.3 nats is ten classes alike."
        ),
        ("0.01 nats", "0.2 nats", "1 nat"),
        0,
        (
            "It was trained until it was sure of nearly every one of these images, and they are "
            "what students see."
        ),
    ),
    "03.b": Question(
        (
            "Train a student to agree, at T = 4, with nobody but itself at T = 1. The loss goes to"
            " 0. What does the student then read?"
        ),
        ("most digits", "about half", "no more than by guessing"),
        2,
        (
            "Whoever answers every image with ten equal logits agrees with itself at every T. "
            "No label and no teacher stand in that loss, so nothing about digits is learnt."
        ),
    ),
    "03.c": Question(
        (
            "Three students learn from the teacher's answers: one is never shown a 3, one has 100"
            " images, one has all 1,000. Whom does T = 4 help, beside T = 1?"
        ),
        ("all three", "the first two", "only the one without 3s", "nobody"),
        1,
        (
            "Soft answers help where the student's images leave something open: a class that is "
            "missing, or hundreds of images that it lacks. With all images little is left to say."
        ),
    ),
    "03.d": Question(
        "T = 4, alpha = 1, with T² and without. Where does leaving T² out lower the accuracy?",
        ("with Adam and with SGD", "with SGD only", "with neither"),
        1,
        (
            "Without T² the gradient is 16 times smaller: for SGD a learning rate 16 times too "
            "low, for Adam nothing."
        ),
    ),
}
