"""Lesson 09: each position beside the token that came next, and the two KL divergences."""

import torch

from kdlab.lessons.exercises import Exercise, Question

# --- 09.1 beside ---


def beside(logits, ids):
    """Each position's logits beside the token that came next: (B, L, V), (B, L) → (N, V), (N,)."""
    return logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()


def _beside(attempt):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, generator=draw).requires_grad_()
    ids = torch.tensor([[5, 1, 2, 3], [0, 4, 3, 1]])
    rows, came = beside(logits.detach(), ids)
    found = attempt(logits, ids)
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        return "expected two tensors: the logits as rows, and the tokens beside them"
    if not all(map(torch.is_tensor, found)):
        return "expected two tensors: the logits as rows, and the tokens beside them"
    given, tokens = found
    if given.ndim == 3:
        return f"still a row of tokens a text, {tuple(given.shape)}: flatten texts and positions"
    if tuple(given.shape) != tuple(rows.shape) or tokens.numel() != came.numel():
        if given.shape[0] == ids.numel():
            return (
                "all 8 positions are there: the last of a text has no next token, and its first "
                "token no prediction, so 6 are left"
            )
        return (
            f"expected (6, 6) and (6,) of 2 texts of 4 tokens, got {tuple(given.shape)} and "
            f"{tuple(tokens.shape)}"
        )
    if not torch.equal(tokens.flatten(), came):
        if torch.equal(tokens.flatten(), ids[:, :-1].flatten()):
            return "these are the tokens that were read, not those that came next: ids[:, 1:]"
        return f"expected the tokens {came.tolist()}, got {tokens.flatten().tolist()}"
    if tokens.shape != came.shape:
        return f"expected the tokens as one row, (6,), got {tuple(tokens.shape)}"
    if torch.equal(given.detach(), logits.detach()[:, 1:].flatten(0, 1)):
        return "a position that has read the token can't be asked for it: logits[:, :-1]"
    if torch.equal(given.detach(), rows.softmax(-1)):
        return "these are probabilities: give the logits as they are"
    if not torch.equal(given.detach(), rows):
        return "the rows are in another order than the tokens, or other numbers: logits[:, :-1]"
    if not given.requires_grad:
        return "cut off from the student: no gradient would flow back; leave out detach and no_grad"
    return ""


# --- 09.2 and 09.3: the two divergences ---


def forward_kl(student_logits, teacher_logits):
    """KL(teacher ‖ student) of each row, in nats: (N, V) twice → (N,)."""
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def reverse_kl(student_logits, teacher_logits):
    """KL(student ‖ teacher) of each row, in nats: (N, V) twice → (N,)."""
    log_q, log_p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def _rows():
    draw = torch.Generator().manual_seed(1)
    q, p = (2 * torch.randn(3, 5, generator=draw) for _ in range(2))
    return q.requires_grad_(), p.requires_grad_()


def _divergence(attempt, right, other, swapped):
    q, p = _rows()
    student, teacher = q.detach(), p.detach()
    expected, found = right(student, teacher), attempt(q, p)
    if not torch.is_tensor(found):
        return f"expected a tensor, one number a row, got {type(found).__name__}"
    given = found.detach()
    if found.ndim == 0:
        return "one number for all: the lesson wants one a row, so sum over the last axis alone"
    if tuple(found.shape) != (3,):
        return f"expected one number a row, shape (3,), got {tuple(found.shape)}"
    slips = {swapped: other(student, teacher)} | _divergence_slips(right, student, teacher)
    for sentence, wrong in slips.items():
        if torch.allclose(given, wrong, rtol=1e-4, atol=1e-6):
            return sentence
    if not torch.allclose(given, expected, rtol=1e-4, atol=1e-6):
        return f"expected {expected[0]:.4f} in the first row, got {given[0]:.4f}"
    if not found.requires_grad:
        return "no gradient: the student learns nothing from it"
    (slope,) = torch.autograd.grad(found.sum(), q, allow_unused=True)
    if slope is None:
        return "no gradient reaches the student: it is the teacher that would move"
    again = student.clone().requires_grad_()
    (meant,) = torch.autograd.grad(right(again, teacher).sum(), again)
    if not torch.allclose(slope, meant, rtol=1e-3, atol=1e-6):
        return "the value is right and the gradient is not: nothing of the student is detached"
    return ""


def _divergence_slips(right, student, teacher):
    """{what is wrong: the values that it gives}, of the KL that `right` is."""
    log_q, log_p = student.log_softmax(-1), teacher.log_softmax(-1)
    expected = right(student, teacher)
    weight = log_p.exp() if right is forward_kl else log_q.exp()
    ratio = log_p - log_q if right is forward_kl else log_q - log_p
    return {
        "the mean over the vocabulary is 5 times too small here, and 1,024 times in the lesson: "
        "sum": expected / 5,
        "the sign is turned: this would drive the student away": -expected,
        "cross-entropy: the same gradient, but it is not 0 where the two agree; take off the "
        "first one's own entropy": -(weight * (log_q if right is forward_kl else log_p)).sum(-1),
        "logits are no log-probabilities: log_softmax over the vocabulary first": (
            weight * (teacher - student if right is forward_kl else student - teacher)
        ).sum(-1),
        "the weights must be probabilities: exp of the log-probabilities": (
            (log_p if right is forward_kl else log_q) * ratio
        ).sum(-1),
        "probabilities without their logarithm: the ratio is log p − log q": (
            weight * (weight - (log_q.exp() if right is forward_kl else log_p.exp()))
        ).sum(-1),
        "in bits: take the natural logarithm": expected / torch.tensor(2.0).log(),
        "softmax over the rows and not over the vocabulary: the last axis, −1": _over_rows(
            right, student, teacher
        ),
    }


def _over_rows(right, student, teacher):
    """The divergence with a softmax over the batch, where it does not belong."""
    log_q, log_p = student.log_softmax(0), teacher.log_softmax(0)
    if right is reverse_kl:
        log_q, log_p = log_p, log_q
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _forward(attempt):
    swapped = "that is KL(student ‖ teacher): here the teacher's probabilities are the weights"
    return _divergence(attempt, forward_kl, reverse_kl, swapped)


def _reverse(attempt):
    swapped = "that is KL(teacher ‖ student): here the student's probabilities are the weights"
    return _divergence(attempt, reverse_kl, forward_kl, swapped)


def _wrong(body):
    """A wrong divergence in a line, with q and p at hand as log-probabilities."""
    return (
        "def attempt(student, teacher):\n"
        "    q, p = student.log_softmax(-1), teacher.log_softmax(-1)\n"
        f"    {body}"
    )


EXERCISES = (
    Exercise(
        "09.1",
        _beside,
        (
            "Position i has read tokens 0 to i, and answers for token i + 1.",
            "Drop the last position of the logits and the first token of the ids.",
            "flatten(0, 1) makes (B, L, V) to rows of V.",
        ),
        beside,
        {
            "all 8 positions": lambda logits, ids: (logits.flatten(0, 1), ids.flatten()),
            "that were read": lambda logits, ids: (
                logits[:, :-1].flatten(0, 1),
                ids[:, :-1].flatten(),
            ),
            "can't be asked": lambda logits, ids: (
                logits[:, 1:].flatten(0, 1),
                ids[:, 1:].flatten(),
            ),
            "flatten texts": lambda logits, ids: (logits[:, :-1], ids[:, 1:]),
            "as one row": lambda logits, ids: (logits[:, :-1].flatten(0, 1), ids[:, 1:]),
            "expected the tokens": lambda logits, ids: (
                logits[:, :-1].flatten(0, 1),
                ids[:, 1:].T.flatten(),
            ),
            "another order": lambda logits, ids: (
                logits[:, :-1].transpose(0, 1).flatten(0, 1),
                ids[:, 1:].flatten(),
            ),
            "these are probabilities": lambda logits, ids: (
                logits[:, :-1].flatten(0, 1).softmax(-1),
                ids[:, 1:].flatten(),
            ),
            "cut off": lambda logits, ids: (
                logits[:, :-1].detach().flatten(0, 1),
                ids[:, 1:].flatten(),
            ),
            "two tensors": lambda logits, ids: logits[:, :-1].flatten(0, 1),
        },
    ),
    Exercise(
        "09.2",
        _forward,
        (
            "log_softmax(-1) of both. The teacher's probabilities are the weights.",
            "The weighted sum of log p − log q over the vocabulary, for each row.",
        ),
        forward_kl,
        {
            "student ‖ teacher": reverse_kl,
            "mean over the vocabulary": _wrong("return (p.exp() * (p - q)).mean(-1)"),
            "one number for all": _wrong("return (p.exp() * (p - q)).sum()"),
            "the sign is turned": _wrong("return (p.exp() * (q - p)).sum(-1)"),
            "cross-entropy": _wrong("return -(p.exp() * q).sum(-1)"),
            "logits are no log-probabilities": _wrong(
                "return (p.exp() * (teacher - student)).sum(-1)"
            ),
            "exp of the log-probabilities": _wrong("return (p * (p - q)).sum(-1)"),
            "without their logarithm": _wrong("return (p.exp() * (p.exp() - q.exp())).sum(-1)"),
            "in bits": _wrong("return (p.exp() * (p - q)).sum(-1) / math.log(2)"),
            "over the rows": (
                "def attempt(student, teacher):\n"
                "    q, p = student.log_softmax(0), teacher.log_softmax(0)\n"
                "    return (p.exp() * (p - q)).sum(-1)"
            ),
            "shape (3,)": _wrong("return F.kl_div(q, p.exp(), reduction='none')"),
            "no gradient:": _wrong("return (p.exp() * (p - q)).sum(-1).detach()"),
            "the teacher that would move": _wrong("return (p.exp() * (p - q.detach())).sum(-1)"),
        },
    ),
    Exercise(
        "09.3",
        _reverse,
        (
            "As before, with the two in each other's place.",
            "The student's probabilities are the weights, and they learn too.",
        ),
        reverse_kl,
        {
            "teacher ‖ student": forward_kl,
            "mean over the vocabulary": _wrong("return (q.exp() * (q - p)).mean(-1)"),
            "one number for all": _wrong("return (q.exp() * (q - p)).sum()"),
            "the sign is turned": _wrong("return (q.exp() * (p - q)).sum(-1)"),
            "cross-entropy": _wrong("return -(q.exp() * p).sum(-1)"),
            "logits are no log-probabilities": _wrong(
                "return (q.exp() * (student - teacher)).sum(-1)"
            ),
            "exp of the log-probabilities": _wrong("return (q * (q - p)).sum(-1)"),
            "the gradient is not": _wrong("return (q.exp().detach() * (q - p)).sum(-1)"),
            "no gradient:": _wrong("return (q.exp() * (q - p)).sum(-1).detach()"),
            "expected": _wrong("return (q.exp() * (q - p)).abs().sum(-1)"),
        },
    ),
)


QUESTIONS = {
    "09.a": Question(
        "Trained by the forward KL, where does a student with one bell put its peak?",
        ("on the taller peak", "on the nearer peak", "between the peaks", "anywhere"),
        2,
        (
            "Missing a peak costs much, and standing where the teacher puts nothing costs "
            "little: it covers both."
        ),
    ),
    "09.b": Question(
        "Which student predicts unread text best?",
        (
            "the one taught by labels",
            "by the reverse KL",
            "by the forward KL",
            "all alike",
        ),
        2,
        (
            "The measure punishes every word left out, and so does the forward KL. Labels name one "
            "word of the many that could have come."
        ),
    ),
    "09.c": Question(
        "Now the text is Python code, which this teacher has hardly read. What teaches best?",
        ("the teacher's logits, still", "the text's own tokens", "both alike"),
        1,
        (
            "A teacher passes on what it believes. Where it knows less than the text says, the "
            "text is the better teacher."
        ),
    ),
}
