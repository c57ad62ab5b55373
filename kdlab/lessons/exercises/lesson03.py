"""Exercises of lesson 03: soften probabilities, write the soft gradient, place T² rightly."""

import torch
from torch.nn import functional as F

from kdlab.lessons.exercises import Exercise, Question


def _soften(soften):
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    for T in (1.0, 2.0, 5.0):
        found = torch.as_tensor(soften(p, T), dtype=torch.float64)
        expected = F.softmax(p.log() / T, -1)
        if found.shape != p.shape or abs(found.sum().item() - 1) > 1e-6:
            return (
                f"at T = {T:g} the result must be 3 probabilities that sum to 1, "
                f"got {found.tolist()}"
            )
        if torch.allclose(found, F.softmax(p / T, -1), atol=1e-6):
            return (
                "you divided the probabilities, not the logits: "
                "up to a constant the logits are log p"
            )
        if torch.allclose(found, F.softmax(p.log() * T, -1), atol=1e-6) and T != 1:
            return f"at T = {T:g} your distribution became sharper: divide by T"
        if not torch.allclose(found, expected, atol=1e-6):
            return (
                f"at T = {T:g} expected {[round(v, 3) for v in expected.tolist()]}, "
                f"got {found.tolist()}"
            )
    return ""


def _gradient(gradient):
    generator = torch.Generator().manual_seed(0)
    s, t = torch.randn(2, 6, 5, dtype=torch.float64, generator=generator) * 2
    for T in (1.0, 3.0):
        z = s.clone().requires_grad_()
        log_q, log_p = F.log_softmax(z / T, -1), F.log_softmax(t / T, -1)
        (expected,) = torch.autograd.grad(
            F.kl_div(log_q, log_p, log_target=True, reduction="sum"), z
        )
        found = torch.as_tensor(gradient(s, t, T))
        if found.shape != s.shape:
            return (
                f"expected a gradient for every logit, shape {tuple(s.shape)}, "
                f"got {tuple(found.shape)}"
            )
        if torch.allclose(found, -expected):
            return (
                "the sign is turned: "
                "the loss falls where the student's probability moves to the teacher's"
            )
        if T != 1 and torch.allclose(found, expected * T):
            return (
                f"at T = {T:g} it is {T:g} times too large: "
                "z / T inside the softmax leaves a factor 1/T"
            )
        if T != 1 and torch.allclose(found, F.softmax(s, -1) - F.softmax(t, -1)):
            return "these are the probabilities at T = 1: both softmaxes take logits divided by T"
        if not torch.allclose(found, expected):
            return (
                f"at T = {T:g} it differs from autograd by up "
                f"to {(found - expected).abs().max().item():.3f}"
            )
    return ""


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
    expected = alpha * T * T * soft + (1 - alpha) * hard
    if abs(given.item() - expected.item()) >= 1e-6:
        return f"expected {expected.item():.4f} on the test batch, got {given.item():.4f}"
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
        """
def attempt(p, T):
    q = p ** (1 / T)
    return q / q.sum()
""",
        {
            "not the logits": "def attempt(p, T):\n    return torch.softmax(p / T, -1)",
            "sharper": "def attempt(p, T):\n    return torch.softmax(p.log() * T, -1)",
            "sum to 1": "def attempt(p, T):\n    return p ** (1 / T)",
        },
    ),
    Exercise(
        "03.2",
        _gradient,
        (
            "The gradient of KL(p ‖ q) by the softmax's own inputs u = z / T is q − p.",
            "By the chain rule du/dz = 1/T.",
        ),
        """
def attempt(student_logits, teacher_logits, T):
    return (torch.softmax(student_logits / T, -1) - torch.softmax(teacher_logits / T, -1)) / T
""",
        {
            "too large": (
                "def attempt(s, t, T):\n"
                "    return torch.softmax(s / T, -1) - torch.softmax(t / T, -1)"
            ),
            "sign": (
                "def attempt(s, t, T):\n"
                "    return (torch.softmax(t / T, -1) - torch.softmax(s / T, -1)) / T"
            ),
            "at T = 1": (
                "def attempt(s, t, T):\n    return torch.softmax(s, -1) - torch.softmax(t, -1)"
            ),
        },
    ),
    Exercise(
        "03.3",
        _loss,
        (
            'The soft term: F.kl_div(log q_T, log p_T, log_target=True, reduction="batchmean").',
            "alpha · T² · soft + (1 − alpha) · F.cross_entropy(student_logits, labels).",
        ),
        _slip("alpha * T**2 * soft + (1 - alpha) * F.cross_entropy(s, y)"),
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
            "student stays": _term(
                "F.kl_div(F.log_softmax(s, -1), F.log_softmax(t / T, -1), log_target=True, "
                'reduction="batchmean")'
            ),
            "teacher stays": _term(
                "F.kl_div(F.log_softmax(s / T, -1), F.log_softmax(t, -1), log_target=True, "
                'reduction="batchmean")'
            ),
            "swapped": _term(
                "F.kl_div(F.log_softmax(t / T, -1), F.log_softmax(s / T, -1), log_target=True, "
                'reduction="batchmean")'
            ),
            "not softmax": _term(
                "F.kl_div(F.softmax(s / T, -1), F.log_softmax(t / T, -1), log_target=True, "
                'reduction="batchmean")'
            ),
            "side is a log": _term(
                "F.kl_div(F.log_softmax(s / T, -1), F.softmax(t / T, -1), log_target=True, "
                'reduction="batchmean")'
            ),
            "dim=0": _term(
                "F.kl_div(F.log_softmax(s / T, 0), F.log_softmax(t / T, 0), log_target=True, "
                'reduction="batchmean")'
            ),
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
        "T = 4, alpha = 1, with T² and without. Where does leaving T² out lower the accuracy?",
        ("with Adam and with SGD", "with SGD only", "with neither"),
        1,
        (
            "Without T² the gradient is 16 times smaller: for SGD a learning rate 16 times too "
            "low, for Adam nothing."
        ),
    ),
}
