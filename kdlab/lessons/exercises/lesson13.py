"""Lesson 13: who computes how much, what an answer takes on disk, and how two workers are one."""

import numbers

import torch

from kdlab.lessons.exercises import Exercise, Question

# --- 13.1 flops_a_token ---


def flops_a_token(teacher, student, epochs, kept):
    """FLOPs for each token of the texts, over all epochs → (the teacher's, the student's).

    teacher, student: their parameters, N. A forward pass takes 2 N, training 6 N: the backward pass
    takes twice the forward one. kept: the teacher is asked once, not in each epoch."""
    asked = 1 if kept else epochs
    return 2 * teacher * asked, 6 * student * epochs


# (teacher, student, epochs): no two products of these are alike
BILLS = ((700, 110, 1), (700, 110, 3), (130, 10, 5))
SLIPS = {
    "the teacher first, the student second": lambda t, s, e, kept: flops_a_token(t, s, e, kept)[
        ::-1
    ],
    "the teacher isn't trained: it reads, 2 N": lambda t, s, e, kept: (
        6 * t * (1 if kept else e),
        6 * s * e,
    ),
    "the student is trained, not only asked: 6 N": lambda t, s, e, kept: (
        2 * t * (1 if kept else e),
        2 * s * e,
    ),
    "forward 2 N and backward 4 N: training takes both": lambda t, s, e, kept: (
        2 * t * (1 if kept else e),
        4 * s * e,
    ),
    "a multiplication and an addition are two FLOPs: 2 N, not N": lambda t, s, e, kept: (
        t * (1 if kept else e),
        3 * s * e,
    ),
    "an answer that is kept is asked for once, also with many epochs": lambda t, s, e, kept: (
        2 * t * e,
        6 * s * e,
    ),
    "without kept answers the teacher is asked anew in each epoch": lambda t, s, e, kept: (
        2 * t,
        6 * s * e,
    ),
    "kept is turned round: kept answers are the ones asked for once": lambda t, s, e, kept: (
        2 * t * (e if kept else 1),
        6 * s * e,
    ),
    "the student reads its texts in every epoch": lambda t, s, e, kept: (
        2 * t * (1 if kept else e),
        6 * s,
    ),
    "kept answers save the teacher's work alone: the student trains in every epoch": (
        lambda t, s, e, kept: (2 * t * (1 if kept else e), 6 * s * (1 if kept else e))
    ),
    "over all epochs, not for one": lambda t, s, e, kept: (2 * t, 6 * s),
}


def _flops(attempt):
    for teacher, student, epochs in BILLS:
        for kept in (False, True):
            found = attempt(teacher, student, epochs, kept)
            if not isinstance(found, (tuple, list)) or len(found) != 2:
                return f"expected two numbers, the teacher's and the student's, got {found!r:.40}"
            if not all(isinstance(n, numbers.Real) for n in found):
                return f"expected two plain numbers, got {type(found[0]).__name__}"
    if all(_bill(attempt, *case) == _bill(flops_a_token, *case) for case in _bills()):
        return ""
    for sentence, slip in SLIPS.items():
        if all(_bill(attempt, *case) == _bill(slip, *case) for case in _bills()):
            return sentence
    case = next(c for c in _bills() if _bill(attempt, *c) != _bill(flops_a_token, *c))
    teacher, student, epochs, kept = case
    return (
        f"a teacher of {teacher}, a student of {student} parameters, {epochs} epochs, kept={kept}: "
        f"expected {flops_a_token(*case)}, got {tuple(attempt(*case))}"
    )


def _bill(function, *case):
    return tuple(float(n) for n in function(*case))


def _bills():
    return [(*bill, kept) for bill in BILLS for kept in (False, True)]


# --- 13.2 bytes_a_token ---


def bytes_a_token(k, vocabulary):
    """Bytes on disk for a token whose k likeliest answers are kept.

    The token's own id: 4 bytes. k ids: 2 bytes each, or 4 where the vocabulary has more than 65,536
    tokens. k log-probabilities and that of all the rest together, in half precision: 2 bytes each.
    """
    an_id = 2 if vocabulary <= 2**16 else 4
    return 4 + an_id * k + 2 * (k + 1)


KEPT = ((20, 1024), (20, 2**16), (128, 49_152), (7, 128_256))
FORGOTTEN = {
    "the rest needs its own log-probability: k + 1 of them": lambda k, v: bytes_a_token(k, v) - 2,
    "the token's own id is kept too, 4 bytes": lambda k, v: bytes_a_token(k, v) - 4,
    "without the k ids nobody knows whose probabilities these are": lambda k, v: 4 + 2 * (k + 1),
    "only the ids: their log-probabilities are kept too": lambda k, v: (
        4 + (2 if v <= 2**16 else 4) * k
    ),
    "half precision takes 2 bytes a number, not 4": lambda k, v: bytes_a_token(k, v) + 2 * (k + 1),
    "up to 65,536 tokens an id fits in 2 bytes": lambda k, v: 4 + 4 * k + 2 * (k + 1),
    "an id of a large vocabulary doesn't fit in 2 bytes": lambda k, v: 4 + 2 * k + 2 * (k + 1),
    "65,536 ids, from 0 to 65,535, still fit in 2 bytes": lambda k, v: (
        4 + (2 if v < 2**16 else 4) * k + 2 * (k + 1)
    ),
    "bits, not bytes": lambda k, v: 8 * bytes_a_token(k, v),
    "the k likeliest are kept, not the whole vocabulary": lambda k, v: 4 + 2 * v,
    "kilobytes: whole bytes are asked for": lambda k, v: bytes_a_token(k, v) / 1000,
}


def _bytes(attempt):
    found = [attempt(k, vocabulary) for k, vocabulary in KEPT]
    if not all(isinstance(n, numbers.Real) and not isinstance(n, bool) for n in found):
        return f"expected one number of bytes, got {type(found[0]).__name__}"
    right = [bytes_a_token(*case) for case in KEPT]
    if found == right:
        return ""
    for sentence, slip in FORGOTTEN.items():
        if found == [slip(*case) for case in KEPT]:
            return sentence
    case = next(i for i, (a, b) in enumerate(zip(found, right, strict=True)) if a != b)
    k, vocabulary = KEPT[case]
    return f"k = {k}, {vocabulary:,} tokens: expected {right[case]} bytes, got {found[case]}"


# --- 13.3 merged ---


def merged(gradients, tokens):
    """The gradient of one worker that had all the rows, from what W workers found.

    gradients: (W, P), each of the mean loss over a worker's own tokens. tokens: (W,), how many
    those were. → (P,)."""
    share = tokens / tokens.sum()
    return (share[:, None] * gradients).sum(0)


def _workers():
    """Gradients of three workers, and how many tokens each had."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(3, 5, generator=draw), torch.tensor([4.0, 1.0, 6.0])


MERGES = {
    "a mean of means: who had more tokens must count for more": lambda g, n: g.mean(0),
    "summed: two workers with the same gradient must give that gradient": lambda g, n: g.sum(0),
    "times the tokens, and never divided by their sum": lambda g, n: (n[:, None] * g).sum(0),
    "divided by the workers, not by the tokens of all": lambda g, n: (n[:, None] * g).mean(0),
    "turned round: who had fewer tokens counts for more": lambda g, n: (
        ((1 / n) / (1 / n).sum())[:, None] * g
    ).sum(0),
    "divided by its own tokens once more: they are means already": lambda g, n: (
        g / n[:, None]
    ).sum(0),
    "a softmax of the tokens: the shares are tokens / tokens.sum()": lambda g, n: (
        n.softmax(0)[:, None] * g
    ).sum(0),
    "only the worker with the most tokens was heard": lambda g, n: g[n.argmax()],
    "only the first worker was heard": lambda g, n: g[0],
    "the square root: the shares are tokens / tokens.sum()": lambda g, n: (
        (n.sqrt() / n.sqrt().sum())[:, None] * g
    ).sum(0),
}


def _merged(attempt):
    gradients, tokens = _workers()
    given = gradients.clone(), tokens.clone()
    found = attempt(*given)
    if not torch.equal(given[0], gradients) or not torch.equal(given[1], tokens):
        return "what came was changed in place: the workers still need it, so make a new tensor"
    if not torch.is_tensor(found):
        return f"expected a tensor (P,), got {type(found).__name__}"
    if found.shape != gradients.shape[1:]:
        if found.shape == gradients.shape:
            return f"one gradient for all, (P,): sum over the workers, got {tuple(found.shape)}"
        return f"expected the shape {tuple(gradients.shape[1:])}, got {tuple(found.shape)}"
    found = found.float()
    if torch.allclose(found, merged(gradients, tokens), atol=1e-6):
        return ""
    for sentence, slip in MERGES.items():
        if torch.allclose(found, slip(gradients, tokens), atol=1e-5):
            return sentence
    right = merged(gradients, tokens)
    return f"the first number of the gradient: expected {right[0]:.4f}, got {found[0]:.4f}"


# --- wrong answers, for the tests ---


def _without(table, words):
    return next(slip for sentence, slip in table.items() if words in sentence)


def _in_place(gradients, tokens):
    gradients.mul_((tokens / tokens.sum())[:, None])
    return gradients.sum(0)


EXERCISES = (
    Exercise(
        "13.1",
        _flops,
        (
            "How often is the teacher asked? Once where its answers are kept, else in each epoch.",
            "The teacher reads: 2 N each time. The student learns in every epoch: 6 N each time.",
        ),
        flops_a_token,
        {
            "teacher first": _without(SLIPS, "teacher first"),
            "isn't trained": _without(SLIPS, "isn't trained"),
            "not only asked": _without(SLIPS, "not only asked"),
            "takes both": _without(SLIPS, "takes both"),
            "are two FLOPs": _without(SLIPS, "are two FLOPs"),
            "asked for once, also": _without(SLIPS, "asked for once, also"),
            "anew in each epoch": _without(SLIPS, "anew in each epoch"),
            "turned round": _without(SLIPS, "turned round"),
            "its texts in every epoch": _without(SLIPS, "its texts in every epoch"),
            "the teacher's work alone": _without(SLIPS, "the teacher's work alone"),
            "not for one": _without(SLIPS, "not for one"),
            "expected two numbers": lambda t, s, e, kept: sum(flops_a_token(t, s, e, kept)),
            "two plain numbers": lambda t, s, e, kept: ("2 N", "6 N"),
            "3 epochs": lambda t, s, e, kept: flops_a_token(t, s, min(e, 2), kept),
        },
    ),
    Exercise(
        "13.2",
        _bytes,
        (
            "An id takes 2 bytes where the vocabulary has at most 2 ** 16 tokens, else 4.",
            "4 for its own id, k ids, and k + 1 log-probabilities of 2 bytes.",
        ),
        bytes_a_token,
        {
            "the rest needs": _without(FORGOTTEN, "the rest needs"),
            "own id is kept too": _without(FORGOTTEN, "own id is kept too"),
            "whose probabilities": _without(FORGOTTEN, "whose probabilities"),
            "only the ids": _without(FORGOTTEN, "only the ids"),
            "not 4": _without(FORGOTTEN, "not 4"),
            "fits in 2 bytes": _without(FORGOTTEN, "an id fits"),
            "doesn't fit": _without(FORGOTTEN, "doesn't fit"),
            "still fit": _without(FORGOTTEN, "still fit"),
            "bits, not bytes": _without(FORGOTTEN, "bits, not bytes"),
            "not the whole vocabulary": _without(FORGOTTEN, "not the whole vocabulary"),
            "kilobytes": _without(FORGOTTEN, "kilobytes"),
            "one number of bytes": lambda k, v: (4, 2 * k, 2 * (k + 1)),
            "k = 20": lambda k, v: bytes_a_token(k, v) + 1,
        },
    ),
    Exercise(
        "13.3",
        _merged,
        (
            "Weigh each worker by its share of all tokens, tokens / tokens.sum().",
            "(share[:, None] * gradients).sum(0)",
        ),
        merged,
        {
            "a mean of means": _without(MERGES, "a mean of means"),
            "summed": _without(MERGES, "summed"),
            "never divided": _without(MERGES, "never divided"),
            "by the workers": _without(MERGES, "by the workers"),
            "fewer tokens": _without(MERGES, "fewer tokens"),
            "means already": _without(MERGES, "means already"),
            "a softmax": _without(MERGES, "a softmax"),
            "the most tokens was heard": _without(MERGES, "the most tokens"),
            "the first worker": _without(MERGES, "the first worker"),
            "square root": _without(MERGES, "square root"),
            "changed in place": _in_place,
            "expected a tensor": lambda g, n: merged(g, n).tolist(),
            "sum over the workers": lambda g, n: (n / n.sum())[:, None] * g,
            "expected the shape": lambda g, n: merged(g, n)[:, None],
            "first number": lambda g, n: merged(g, n) + 0.1,
        },
    ),
)


QUESTIONS = {
    "13.a": Question(
        "A teacher of 13 billion parameters teaches a student of 120 million, three epochs long. "
        "How much of all the arithmetic is the teacher's?",
        ("a third", "two thirds", "nearly all"),
        2,
        "Training costs three times as much as reading, but the teacher is a hundred times as "
        "large. Once its answers are kept, each further epoch costs what the student costs.",
    ),
    "13.b": Question(
        "Two workers share a batch. One has long texts, one short ones. Each finds the gradient of "
        "the mean loss over its own tokens, and the two gradients are averaged. Is the step "
        "the one of a single worker that has all the texts?",
        (
            "yes: that is what an average is for",
            "no: tokens of short texts count for more",
            "no: tokens of long texts count for more",
        ),
        1,
        "Each worker gets half of the say, however few its tokens are. So each token of a "
        "worker with few weighs more than it would in the whole batch.",
    ),
    "13.c": Question(
        "A student's training is to take less memory. LoRA trains a few per cent of the weights; "
        "checkpointing keeps fewer intermediate results and computes the others again. Which "
        "of them changes what is learnt?",
        ("LoRA", "checkpointing", "both", "neither"),
        0,
        "What is computed again comes out the same: checkpointing buys memory with time. LoRA "
        "trains another, smaller set of numbers, and can move the student less far.",
    ),
}
