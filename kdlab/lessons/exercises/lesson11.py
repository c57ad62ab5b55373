"""Lesson 11: which tokens of a bought answer are learnt, a KL from the top few, keeping what is
right."""

from collections import Counter

import torch

from kdlab.lessons.exercises import Exercise, Question

# --- 11.1 row ---


def row(prompt, answer, ended, eos):
    """Ids of a prompt and of its answer → ids (L,) and labels (L,), −100 where nothing is learnt.

    ended: whether the answer came to its end, which is then a token to learn, eos."""
    ids = torch.tensor([*prompt, *answer, *([eos] if ended else [])])
    labels = ids.clone()
    labels[: len(prompt)] = -100
    return ids, labels


# eos begins the prompts too, and one answer holds a 0: in many vocabularies it is also the padding
ROWS = (
    ([0, 5, 6], [7, 8, 9, 4], True, 0),
    ([0, 5], [3, 0, 3], False, 0),
    ([2, 5], [0, 6], True, 2),
)


def _row(attempt):
    for given in ROWS:
        prompt, answer, ended, eos = given
        mine = list(prompt), list(answer)
        found = attempt(*mine, ended, eos)
        if mine != (prompt, answer):
            return (
                "the prompt or the answer was changed, and the lesson still needs both: copy first"
            )
        if not isinstance(found, tuple) or len(found) != 2:
            return f"expected two tensors, ids and labels, got {type(found).__name__}"
        if not all(torch.is_tensor(part) for part in found):
            return f"expected two tensors, got {' and '.join(type(x).__name__ for x in found)}"
        if any(part.is_floating_point() for part in found):
            return "ids are whole numbers, and so are labels"
        if any(part.dtype != torch.long for part in found):
            return f"ids are torch.long, as the models take them, got {found[0].dtype}"
        right = row(*given)
        if all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(found, right, strict=True)):
            continue
        return _misread(found, right, given)
    return ""


def _misread(found, right, given):
    """The sentence for a row that is wrong: found and right (ids, labels), given as in ROWS."""
    (ids, labels), (wanted_ids, wanted), (prompt, answer, ended, eos) = found, right, given
    told = f"(expected ids {wanted_ids.tolist()} and labels {wanted.tolist()}, got {ids.tolist()} "
    told += f"and {labels.tolist()})"
    if ids.tolist() == wanted.tolist() and labels.tolist() == wanted_ids.tolist():
        return f"ids come first, then labels {told}"
    sentence = _misread_ids(ids, prompt, answer, ended, eos)
    if not sentence and not torch.equal(ids, wanted_ids):
        sentence = "not the ids that were wanted"
    if not sentence and labels.shape != ids.shape:
        sentence = "a label for every id, so that both have the same length"
    return f"{sentence or _misread_labels(labels, wanted, len(prompt), ended)} {told}"


def _misread_ids(ids, prompt, answer, ended, eos):
    """What is wrong with the ids; None where it has no name."""
    whole = [*prompt, *answer]
    if ids.tolist() == whole and ended:
        return "this answer came to its end: without the token eos no student learns to stop"
    if ids.tolist() == [*whole, eos] and not ended:
        return "this answer was cut off, it has no end to learn: eos only where it ended"
    if ids.tolist() == [*prompt, eos, *answer]:
        return "the end stands behind the answer, not before it"
    if ids.tolist() == [*answer, *([eos] if ended else [])]:
        return "the student must read the prompt as well: its ids come before the answer's"
    if (ids == -100).any():
        return "−100 is no token: only the labels hold it, so clone the ids first"
    if ended and len(ids) == len(whole) and ids[-1] == eos:
        return "the end comes behind the answer's last token, not in its place"
    return None


def _misread_labels(labels, wanted, n, ended):
    """What is wrong with the labels of a prompt of n tokens and its answer."""
    if torch.equal(labels[:-1], wanted[1:]):
        return "already shifted: that is next_token's business, here label i is token i"
    if set(labels[:n].tolist()) == {-1}:
        return "−1 is no sign of it: what is not learnt has the label −100"
    if (labels[:n] != -100).any() and (labels[n:] == -100).all():
        return "turned round: the answer is learnt, and the prompt has the label −100"
    if (labels[:n] == 0).all():
        return "0 is a token like any other: what is not learnt has the label −100"
    if (labels[:n] != -100).any():
        return "the prompt is not to be learnt: the teacher did not write it"
    if ended and labels[-1] == -100:
        return "the end is a token to learn, else no answer stops"
    if labels[n] == -100:
        return "the answer's first token is learnt too"
    if labels[-1] == -100:
        return "the answer's last token is learnt too"
    if (labels[n:] == -100).any():
        return "mask by place, not by id: a token like eos may stand inside an answer"
    return "not the labels that were wanted"


# --- 11.2 tail_kl ---


def tail_kl(log_q, ids, top):
    """KL(teacher ‖ student) of the teacher's k tokens and one outcome more, "something else".

    log_q (N, V): the student's log-probabilities. ids, top (N, k): the teacher's likeliest tokens
    and their log-probabilities. → (N,)"""
    own = log_q.gather(-1, ids)
    kept = (top.exp() * (top - own)).sum(-1)
    # in float32 a sum of probabilities may end above 1: what is left is never below a tiny number
    rest_p, rest_q = ((1 - part.exp().sum(-1)).clamp_min(1e-6) for part in (top, own))
    return kept + rest_p * (rest_p / rest_q).log()


def _slips(log_q, ids, top):
    """{what is wrong: the values that it gives}."""
    own, p = log_q.gather(-1, ids), top.exp()
    kept, rest_p, rest_q = (p * (top - own)).sum(-1), 1 - p.sum(-1), 1 - own.exp().sum(-1)
    rest = rest_p * (rest_p / rest_q).log()
    scaled, k = p / p.sum(-1, keepdim=True), ids.shape[-1]
    others = log_q.shape[-1] - k
    theirs = log_q.topk(k).values
    placed = log_q[..., :k]
    return {
        "the rest is missing: without it this is no divergence and can fall below 0": kept,
        "don't scale the teacher's few to sum to 1: that asks the student to give everything else "
        "nothing": (scaled * (scaled.log() - own)).sum(-1),
        "don't scale both to sum to 1: what is left of each says how much the few count": (
            scaled * (scaled.log() - own.log_softmax(-1))
        ).sum(-1),
        "compare the teacher's rest with the student's: log(rest_p / rest_q)": kept
        + rest_p * rest_p.log(),
        "only the rest is there: add the sum over the few": rest,
        "the rest's term weighs by the teacher's rest, rest_p": kept
        + rest_q * (rest_p / rest_q).log(),
        "the rest is turned round: log(rest_p / rest_q), the teacher's above": kept
        - rest_p * (rest_p / rest_q).log(),
        "swapped: the teacher's probabilities weigh, KL(teacher ‖ student)": (
            own.exp() * (own - top)
        ).sum(-1)
        + rest_q * (rest_q / rest_p).log(),
        "those are the student's own likeliest tokens: take its numbers at the teacher's ids, by "
        "gather": (p * (top - theirs)).sum(-1)
        + rest_p * (rest_p / (1 - theirs.exp().sum(-1))).log(),
        "those are the student's first tokens: take its numbers at the teacher's ids, by gather": (
            p * (top - placed)
        ).sum(-1)
        + rest_p * (rest_p / (1 - placed.exp().sum(-1))).log(),
        "the rest is one outcome, not shared out among the tokens that are not named": kept
        + rest_p * (rest_p.log() - (rest_q / others).log()),
        "that is a cross-entropy: subtract the teacher's own log-probabilities": -(
            (p * own).sum(-1) + rest_p * rest_q.log()
        ),
        "weigh by probabilities, top.exp(), not by their logarithms": (top * (top - own)).sum(-1)
        + rest,
        "a mean over the few: a KL is a sum": (p * (top - own)).mean(-1) + rest,
        "top holds logarithms: the rest is 1 − Σ top.exp()": kept
        + (1 - top.sum(-1)) * ((1 - top.sum(-1)) / rest_q).log(),
        "the rest's term needs a logarithm: rest_p · log(rest_p / rest_q)": kept
        + rest_p * (rest_p / rest_q),
    }


def _tail(attempt):
    draw = torch.Generator().manual_seed(0)
    log_p, log_q = (2 * torch.randn(4, 9, dtype=torch.float64, generator=draw) for _ in range(2))
    log_p, log_q = log_p.log_softmax(-1), log_q.log_softmax(-1).requires_grad_()
    top, ids = log_p.topk(3)
    value = attempt(log_q, ids, top)
    if not torch.is_tensor(value) or tuple(value.shape) != (4,):
        came = tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
        return f"expected one number a row, shape (4,), got {came}"
    right = tail_kl(log_q.detach(), ids, top)
    if not torch.allclose(value.detach().double(), right, atol=1e-5):
        slips = _slips(log_q.detach(), ids, top).items()
        named = (s for s, wrong in slips if torch.allclose(value.detach().double(), wrong))
        return next(named, f"expected {right[0]:.4f} for the first row, got {value[0]:.4f}")
    slope = _slope(value, log_q)
    if slope is None:
        return "no gradient reaches the student: it learns nothing"
    if not torch.allclose(slope, _slope(tail_kl(log_q, ids, top), log_q), atol=1e-6):
        return "the value is right and its gradient is not: is a part of the student's detached?"
    return _in_float32(attempt)


def _slope(value, log_q):
    """The gradient by log_q, None where there is none."""
    if not value.requires_grad:
        return None
    return torch.autograd.grad(value.sum(), log_q, allow_unused=True)[0]


def _in_float32(attempt):
    """A model's own numbers: float32, and rows of which the top few hold all but a rounding."""
    draw = torch.Generator().manual_seed(1)
    log_q, log_p = (12 * torch.randn(400, 9, generator=draw) for _ in range(2))
    log_q, log_p = log_q.log_softmax(-1).requires_grad_(), log_p.log_softmax(-1)
    top, ids = log_p.topk(3)
    found = attempt(log_q, ids, top)
    slope = _slope(found, log_q)
    lost = ~(found.isfinite() & slope.isfinite().all(-1))
    if not lost.any():
        return ""
    return (
        f"of 400 rows in float32, {int(lost.sum())} or their gradients are NaN or infinite: a sum "
        "of probabilities can reach 1 there, or pass it; keep what is left above 0 with clamp_min"
    )


# --- 11.3 keep ---


def keep(questions, answers, right):
    """[(question, answer)] of all answers that are right.

    answers: a list for each question. right(question, answer) → True or False."""
    return [
        (q, a)
        for q, several in zip(questions, answers, strict=True)
        for a in several
        if right(q, a)
    ]


QUESTIONS_ASKED = ["2 + 2", "3 + 5", "5 + 1", "1 + 1", "9 + 0"]
SAID = [["4", "5", "04"], ["8", "9", "8"], ["7", "6", "5"], ["2", "2", "2"], ["0", "8", "9"]]


def _adds_up(question, answer):
    """Whether an answer is right; a question that comes as the answer is told."""
    if "+" in answer or "+" not in question:
        raise ValueError("right asks for the question first, then the answer")
    return sum(map(int, question.split(" + "))) == int(answer)


def _keep(attempt):
    given = [list(several) for several in SAID]
    try:
        found = attempt(list(QUESTIONS_ASKED), given, _adds_up)
    except ValueError as error:
        if "question first" in str(error):
            return str(error)
        raise
    if given != SAID:
        return "the answers were changed: build a new list"
    if not isinstance(found, (list, tuple)):
        return (
            f"expected a list of pairs (question, answer), got {type(found).__name__}; "
            "the lesson counts it and reads it twice"
        )
    wanted = keep(QUESTIONS_ASKED, SAID, _adds_up)
    if not all(isinstance(one, (tuple, list)) and len(one) == 2 for one in found):
        return "expected pairs: each right answer together with its question"
    if any(isinstance(one[1], (list, tuple)) for one in found):
        return "a pair for each right answer, not a question with a list of them"
    return _missing([(str(q), str(a)) for q, a in found], wanted)


def _missing(found, wanted):
    """The sentence for pairs that are not the wanted ones, "" where they are."""
    if Counter(found) == Counter(wanted):
        return ""
    every = [(q, a) for q, several in zip(QUESTIONS_ASKED, SAID, strict=True) for a in several]
    if Counter(found) == Counter(pair for pair in every if pair not in wanted):
        return "turned round: those are the wrong answers"
    if found and all(pair[::-1] in every for pair in found):
        return "the question comes first in a pair, then the answer"
    if any(pair not in every for pair in found):
        pair = next(pair for pair in found if pair not in every)
        return f"{pair} was not said: an answer belongs to its own question"
    if any(pair not in wanted for pair in found):
        pair = next(pair for pair in found if pair not in wanted)
        if len(found) == len(QUESTIONS_ASKED):
            return f"one answer a question, right or not: {pair} is wrong; a question may keep none"
        return f"{pair} is wrong, and was kept"
    if Counter(found) == Counter(set(wanted)):
        return (
            "an answer that came twice counts twice: the surer the teacher, the oftener it says so"
        )
    if len(found) == len({q for q, _ in wanted}):
        return "one right answer a question: keep all that are right"
    if missed := Counter(wanted) - Counter(found):
        return f"{next(iter(missed))} is right, and was not kept each time"
    return f"{next(iter(Counter(found) - Counter(wanted)))} was kept more often than it was said"


# --- wrong answers, for the tests ---


def _labels(change):
    """`row` with its labels wrong: change(labels, prompt length, ids)."""

    def attempt(prompt, answer, ended, eos):
        ids, labels = row(prompt, answer, ended, eos)
        return ids, change(labels, len(prompt), ids)

    return attempt


def _masked(start, end=None):
    def change(labels, n, ids):
        labels[(n if start is None else n + start) : end] = -100
        return labels

    return _labels(change)


def _by_id(prompt, answer, ended, eos):
    ids, labels = row(prompt, answer, ended, eos)
    labels = torch.where(ids == eos, -100, labels)
    return ids, torch.where((torch.arange(len(ids)) == len(ids) - 1) & ended, ids, labels)


def _in_place(prompt, answer, ended, eos):
    n = len(prompt)
    prompt += answer
    ids, labels = row(prompt, [], ended, eos)
    labels[n:] = ids[n:]
    return ids, labels


def _one_tensor(prompt, answer, ended, eos):
    ids, labels = row(prompt, answer, ended, eos)
    ids[: len(prompt)] = -100
    return ids, labels


def _slip(sentence):
    """`tail_kl` with the mistake that a sentence of `_slips` begins to tell."""

    def attempt(log_q, ids, top):
        found = {s: v for s, v in _slips(log_q, ids, top).items() if s.startswith(sentence)}
        return next(iter(found.values()))

    return attempt


def _half_detached(log_q, ids, top):
    own = log_q.gather(-1, ids)
    kept = (top.exp() * (top - own)).sum(-1)
    rest_p, rest_q = ((1 - part.exp().sum(-1)).clamp_min(1e-6) for part in (top, own))
    return kept + rest_p * (rest_p / rest_q.detach()).log()


def _cancels(log_q, ids, top):
    own = log_q.gather(-1, ids)
    p, q = 1 - top.exp().sum(-1), 1 - own.exp().sum(-1)
    return (top.exp() * (top - own)).sum(-1) + p * (p / q).log()


EXERCISES = (
    Exercise(
        "11.1",
        _row,
        (
            "The ids are prompt + answer, and eos behind them only where ended is true: "
            "torch.tensor([...]).",
            "labels = ids.clone(), and −100 in the first len(prompt) places. By place, not by id: "
            "eos may be the id that begins a text, or that pads it.",
        ),
        row,
        {
            "learns to stop": lambda p, a, ended, eos: row(p, a, False, eos),
            "copy first": _in_place,
            "torch.long": lambda *given: tuple(part.int() for part in row(*given)),
            "no sign of it": _labels(lambda labels, n, ids: torch.where(labels < 0, -1, labels)),
            "turned round": _labels(lambda labels, n, ids: torch.where(labels < 0, ids, -100)),
            "not in its place": lambda p, a, ended, eos: row(p, a[:-1] if ended else a, ended, eos),
            "was cut off": lambda p, a, ended, eos: row(p, a, True, eos),
            "behind the answer": lambda p, a, ended, eos: row([*p, eos], a, False, eos),
            "read the prompt": lambda p, a, ended, eos: row([], a, ended, eos),
            "ids come first": lambda *given: row(*given)[::-1],
            "got list and list": lambda *given: tuple(part.tolist() for part in row(*given)),
            "got Tensor": lambda *given: row(*given)[0],
            "whole numbers": lambda *given: tuple(part.float() for part in row(*given)),
            "not to be learnt": _labels(lambda labels, n, ids: ids.clone()),
            "0 is a token": _labels(lambda labels, n, ids: labels.clamp_min(0)),
            "already shifted": _labels(
                lambda labels, n, ids: torch.cat([labels[1:], torch.tensor([-100])])
            ),
            "end is a token to learn": _masked(None, None),
            "first token": _masked(0, -1),
            "by place": _by_id,
            "no token": _one_tensor,
            "same length": _labels(lambda labels, n, ids: labels[n:]),
            "not the ids": lambda p, a, ended, eos: row(a, p, ended, eos),
        },
    ),
    Exercise(
        "11.2",
        _tail,
        (
            "log_q.gather(-1, ids) is what the student gives the teacher's tokens. Theirs is "
            "(top.exp() · (top − own)).sum(-1).",
            "The rest is 1 − Σ exp, for the teacher and for the student, kept above 0 by "
            "clamp_min; its term is rest_p · log(rest_p / rest_q).",
        ),
        tail_kl,
        {
            "rest is missing": _slip("the rest is missing"),
            "don't scale the teacher's": _slip("don't scale the teacher's"),
            "don't scale both": _slip("don't scale both"),
            "compare the teacher's": _slip("compare"),
            "only the rest": _slip("only the rest"),
            "weighs by the teacher's rest": _slip("the rest's term"),
            "turned round": _slip("the rest is turned"),
            "swapped": _slip("swapped"),
            "own likeliest": _slip("those are the student's own"),
            "first tokens": _slip("those are the student's first"),
            "shared out": _slip("the rest is one outcome"),
            "cross-entropy": _slip("that is a cross"),
            "by their logarithms": _slip("weigh by"),
            "a KL is a sum": _slip("a mean over the few"),
            "clamp_min": _cancels,
            "one number a row": lambda log_q, ids, top: tail_kl(log_q, ids, top).mean(),
            "a part of the student's detached": _half_detached,
            "top holds logarithms": _slip("top holds"),
            "needs a logarithm": _slip("the rest's term needs"),
            "no gradient": lambda log_q, ids, top: tail_kl(log_q.detach(), ids, top),
        },
    ),
    Exercise(
        "11.3",
        _keep,
        (
            "zip(questions, answers) gives a question with the list of its answers.",
            "A second loop, over that list, keeps the pair (question, answer) "
            "if right(question, answer).",
        ),
        keep,
        {
            "was kept": lambda q, a, right: keep(q, a, lambda *pair: True),
            "those are the wrong": lambda q, a, right: keep(q, a, lambda *pair: not right(*pair)),
            "one right answer": lambda q, a, right: [
                (x, next(y for y in several if right(x, y)))
                for x, several in zip(q, a, strict=True)
                if any(right(x, y) for y in several)
            ],
            "counts twice": lambda q, a, right: list(dict.fromkeys(keep(q, a, right))),
            "may keep none": lambda q, a, right: [
                (x, several[0]) for x, several in zip(q, a, strict=True)
            ],
            "together with its question": lambda q, a, right: [y for _, y in keep(q, a, right)],
            "then the answer": lambda q, a, right: [(y, x) for x, y in keep(q, a, right)],
            "right asks": lambda q, a, right: keep(q, a, lambda x, y: right(y, x)),
            "its own question": lambda q, a, right: list(
                zip(q, [y for _, y in keep(q, a, right)], strict=False)
            ),
            "got generator": lambda q, a, right: (pair for pair in keep(q, a, right)),
            "not a question with a list": lambda q, a, right: [
                (x, [y for y in several if right(x, y)]) for x, several in zip(q, a, strict=True)
            ],
            "more often than it was said": lambda q, a, right: keep(q, a, right) * 2,
            "got dict": lambda q, a, right: dict(keep(q, a, right)),
            "is right, and was not kept": lambda q, a, right: [
                (x, y)
                for x, several in zip(q, a, strict=True)
                if right(x, several[0])
                for y in several
                if right(x, y)
            ],
            "build a new list": lambda q, a, right: [several.clear() for several in a],
        },
    ),
)


QUESTIONS = {
    "11.a": Question(
        "A student learns from these answers, some of which came to their end. Their text stays, "
        "but the end is left out of what is learnt. How many of the student's own answers end?",
        ("as many as its teacher's", "more than before it was taught", "no more than before"),
        2,
        "To stop is to write a token, and what is never learnt is not written, however short "
        "the texts.",
    ),
    "11.b": Question(
        "What do the twenty likeliest words of each place add to what the text alone teaches?",
        ("nothing: they are in the text", "a little", "as much again"),
        2,
        "A text says which token came. The probabilities say at every place what else could have "
        "come, and how likely that was.",
    ),
    "11.c": Question(
        "Four answers a question are bought, and some two in five are right. From which does a "
        "student learn sooner?",
        ("the right ones, though fewer", "all of them: there are more", "no difference"),
        0,
        "A check throws nearly all slips out at once. Random slips average out too, but that "
        "took five of six students twice the steps.",
    ),
}
