"""Lesson 12: how many bytes a model is, weights of fewer bits, and which inputs got worse."""

import copy

import torch
from torch import nn

from kdlab.lessons.exercises import Exercise, Question

# --- 12.1 size_of ---


def size_of(model):
    """The bytes of a model's weights and buffers, those that are shared counted once."""
    tensors = [*model.parameters(), *model.buffers()]  # parameters() names a shared one once
    return sum(t.numel() * t.element_size() for t in tensors)


def _models():
    """{what a model has that is easily forgotten: the model}."""
    plain = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    frozen = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    frozen[0].requires_grad_(False)
    return {
        "plain": plain,
        "half": nn.Linear(7, 3).half(),
        "frozen": frozen,
        "buffers": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)),
        "tied": tied,
    }


def _size(attempt):
    wrong = {}
    for name, model in _models().items():
        before = {k: v.clone() for k, v in model.state_dict().items()}
        found, right = attempt(model), size_of(model)
        if any(not torch.equal(before[k], v) for k, v in model.state_dict().items()):
            return "the model's weights were changed: only count them"
        if torch.is_tensor(found) or isinstance(found, bool) or not isinstance(found, (int, float)):
            return f"expected one number of bytes, got {type(found).__name__}"
        if found != right:
            wrong[name] = (found, right, model)
    if not wrong:
        return ""
    return _miscounted(wrong)


def _miscounted(wrong):
    """The sentence for sizes that are wrong: {name: (found, right, model)}."""
    found, right, model = next(iter(wrong.values()))
    told = f"(expected {right} bytes, got {found})"
    count = sum(p.numel() for p in model.parameters())
    if "plain" in wrong:
        if found == count:
            return f"that is how many numbers there are; each takes element_size() bytes {told}"
        if found == 8 * right:
            return f"bits, not bytes {told}"
        if found in (right / 1000, right / 1024):
            return f"whole bytes are asked for, not kilobytes {told}"
        if found == 4 * sum(p.numel() for p in model.parameters() if p.ndim > 1):
            return f"the biases are weights too {told}"
        if found == sum(p.element_size() for p in model.parameters()):
            return f"element_size() is for one number: times numel() {told}"
        return f"not the bytes of two linear layers with their biases {told}"
    if "half" in wrong:
        return f"not every number takes 4 bytes: ask its tensor, by element_size() {told}"
    if "frozen" in wrong:
        return f"weights that are frozen are kept and shipped all the same {told}"
    if "tied" in wrong and found > right and "buffers" not in wrong:
        return f"a weight that two layers share is there once; state_dict lists it twice {told}"
    return f"buffers, such as a batch norm's means, are part of the model {told}"


# --- 12.2 quantise ---


def quantise(weights, bits):
    """Weights rounded to a signed number of so many bits, times one step for the whole tensor.

    (...) → (...), the same type. The largest weight, by its size, takes the largest whole number,
    2^(bits − 1) − 1."""
    most = 2 ** (bits - 1) - 1
    step = weights.abs().max() / most
    if step == 0:  # all weights are 0
        return weights.clone()
    return (weights / step).round() * step


def _rounded(weights, bits, most=None, rounds=torch.round, back=True, reach=None):
    """`quantise` with one thing done otherwise."""
    most = 2 ** (bits - 1) - 1 if most is None else most
    step = (weights.abs().max() if reach is None else reach) / most
    whole = rounds(weights / step)
    return whole * step if back else whole


def _per_row(weights, bits):
    step = weights.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (weights / step).round() * step


def _low_to_high(weights, bits):
    low, high = weights.min(), weights.max()
    step = (high - low) / (2**bits - 1)
    return ((weights - low) / step).round() * step + low


def _clamped(weights, bits, reach):
    most = 2 ** (bits - 1) - 1
    step = reach / most
    return (weights / step).round().clamp(-most, most) * step


WEIGHTS = torch.tensor(
    [[0.31, -0.92, 0.05, 0.44], [-0.13, 0.27, -0.38, 0.61], [0.02, -0.55, 0.17, -0.08]]
)
SLIPS = {
    "times the step again: that gives weights back, not whole numbers": lambda w, b: _rounded(
        w, b, back=False
    ),
    "of 2^bits numbers half are negative: the largest is 2^(bits − 1) − 1": lambda w, b: _rounded(
        w, b, most=2**b - 1
    ),
    "the largest whole number is 2^(bits − 1) − 1, one less for the 0": lambda w, b: _rounded(
        w, b, most=2 ** (b - 1)
    ),
    "rounded down: to the nearest whole number is nearer": lambda w, b: _rounded(
        w, b, rounds=torch.floor
    ),
    "cut off: to the nearest whole number is nearer": lambda w, b: _rounded(
        w, b, rounds=torch.trunc
    ),
    "the largest by its size, abs().max(): here it is a negative one": lambda w, b: _rounded(
        w, b, reach=w.max()
    ),
    "the mean is no bound: the largest weight must fit": lambda w, b: _rounded(
        w, b, reach=w.abs().mean()
    ),
    "the spread is no bound: the largest weight must fit": lambda w, b: _rounded(
        w, b, reach=w.std()
    ),
    "what does not fit was cut off: the largest weight must fit": lambda w, b: _clamped(
        w, b, w.abs().mean()
    ),
    "one step for the whole tensor, not one a row": _per_row,
    "0 must stay 0: equal steps to both sides, not from the lowest to the highest": _low_to_high,
    "nothing is rounded": lambda w, b: w.clone(),
}


def _quantise(attempt):
    for bits in (8, 4, 3):
        given = WEIGHTS.clone()
        found = attempt(given, bits)
        if not torch.equal(given, WEIGHTS):
            return "the weights were changed in place: the lesson still needs them, so copy"
        if not torch.is_tensor(found) or found.shape != WEIGHTS.shape:
            came = tuple(found.shape) if torch.is_tensor(found) else type(found).__name__
            return f"expected a tensor of the weights' shape {tuple(WEIGHTS.shape)}, got {came}"
        if not found.is_floating_point():
            return "times the step again: that gives weights back, not whole numbers"
        if not torch.allclose(found, quantise(WEIGHTS, bits), atol=1e-6):
            return _misrounded(found, bits)
    for given, why in (
        (torch.zeros(2, 3), "weights that are all 0 have no step: 0 / 0 is NaN; give them back"),
        (WEIGHTS.double(), "the weights' own type: float64 stays float64"),
    ):
        found = attempt(given.clone(), 4)
        if found.dtype != given.dtype or not torch.allclose(found, quantise(given, 4), atol=1e-6):
            return why
    return ""


def _misrounded(found, bits):
    for sentence, slip in SLIPS.items():
        if torch.allclose(found.float(), slip(WEIGHTS, bits), atol=1e-6):
            return sentence
    right = quantise(WEIGHTS, bits)
    return (
        f"with {bits} bits the first weight, {WEIGHTS[0, 0]:.2f}, becomes {right[0, 0]:.4f}, "
        f"got {found[0, 0]:.4f}"
    )


# --- 12.3 lost ---


def lost(teacher_logits, student_logits, labels):
    """The rows that the teacher gets right and the student wrong, its surest mistakes first.

    (N, C), (N, C), (N,) → the rows' numbers, (K,)."""
    sure, guess = student_logits.softmax(-1).max(-1)
    rows = ((teacher_logits.argmax(-1) == labels) & (guess != labels)).nonzero()[:, 0]
    return rows[sure[rows].argsort(descending=True)]


def _answers():
    """Teacher, student and labels in which every slip gives other rows, or another order."""
    draw = torch.Generator().manual_seed(3)
    labels = torch.arange(24) % 4
    teacher = 4.0 * torch.eye(4)[labels]
    teacher[[1, 6, 11]] = 4.0 * torch.eye(4)[(labels[[1, 6, 11]] + 1) % 4]
    guess = labels.clone()
    wrong = torch.tensor([2, 5, 6, 9, 14, 20])  # 6 is the teacher's mistake too
    guess[wrong] = (labels[wrong] + 2) % 4
    student = 3.0 * torch.eye(4)[guess] + torch.rand(24, 4, generator=draw)
    student += 9 * torch.rand(24, 1, generator=draw)  # a large logit is not a sure answer
    return teacher, student, labels


def _lost(attempt):
    teacher, student, labels = _answers()
    found = attempt(teacher.clone(), student.clone(), labels.clone())
    right = lost(teacher, student, labels)
    if isinstance(found, (list, tuple)) and all(isinstance(i, int) for i in found):
        found = torch.tensor(found, dtype=torch.long)
    if not torch.is_tensor(found):
        return f"expected the rows' numbers as a tensor, got {type(found).__name__}"
    if found.dtype == torch.bool:
        return "true and false a row: the numbers of the rows are asked for, by nonzero()"
    if found.ndim == 2 and found.shape[-1] == 1:
        return "nonzero() gives a column for each axis: take the first, [:, 0]"
    if found.ndim != 1 or found.is_floating_point():
        return f"expected whole numbers (K,), got {found.dtype} {tuple(found.shape)}"
    if found.tolist() == right.tolist():
        return ""
    return _misfound(found.tolist(), right.tolist(), teacher, student, labels)


def _misfound(found, right, teacher, student, labels):
    good, guess = teacher.argmax(-1) == labels, student.argmax(-1)
    those, told = set(found), f"(expected rows {right}, got {found})"
    named = {
        "turned round: the teacher is right, the student wrong": ~good & (guess == labels),
        "the teacher must be right: a mistake of both is not lost": guess != labels,
        "where the two differ is not enough: the teacher may be the one that is wrong": (
            guess != teacher.argmax(-1)
        ),
        "those are the teacher's mistakes": ~good,
        "those are the rows that both get right": good & (guess == labels),
        "that is where the teacher is right: the student must be wrong there": good,
    }
    if those != set(right):
        for sentence, mask in named.items():
            if those == set(mask.nonzero()[:, 0].tolist()):
                return f"{sentence} {told}"
        if those and those <= set(range(len(right))):
            return f"sorting gives places in the short list: index the rows with them {told}"
        return f"not the rows that were wanted {told}"
    if found == right[::-1]:
        return f"the surest first: descending=True {told}"
    if found == sorted(right):
        return f"in order of their numbers: the surest mistakes are to come first {told}"
    by_logit = sorted(right, key=lambda i: -float(student[i].max()))
    if found == by_logit:
        return f"a large logit is not a sure answer: soften first, by softmax {told}"
    return f"not in the order of how sure the student is {told}"


# --- wrong answers, for the tests ---


def _slip(words):
    """`quantise` with the mistake whose sentence holds these words."""
    return next(slip for sentence, slip in SLIPS.items() if words in sentence)


def _in_place(weights, bits):
    weights.copy_(quantise(weights, bits))
    return weights


def _chosen(mask, key=None, reverse=True):
    """`lost` on other rows, or in another order."""

    def attempt(teacher, student, labels):
        good, guess = teacher.argmax(-1) == labels, student.argmax(-1)
        rows = mask(good, guess, labels, teacher).nonzero()[:, 0].tolist()
        sure = student.softmax(-1).amax(-1) if key is None else key(student, labels)
        return torch.tensor(sorted(rows, key=lambda i: float(sure[i]), reverse=reverse))

    return attempt


def _right_rows(good, guess, labels, teacher):
    return good & (guess != labels)


def _changed(model):
    size = size_of(model)
    next(model.parameters()).data.add_(1)
    return size


EXERCISES = (
    Exercise(
        "12.1",
        _size,
        (
            "A tensor t takes t.numel() * t.element_size() bytes.",
            "model.parameters() and model.buffers() give all that is kept, a shared weight once.",
        ),
        size_of,
        {
            "how many numbers": lambda m: sum(p.numel() for p in m.parameters()),
            "bits, not bytes": lambda m: 8 * size_of(m),
            "kilobytes": lambda m: size_of(m) / 1000,
            "not kilobytes": lambda m: size_of(m) / 1024,
            "biases": lambda m: 4 * sum(p.numel() for p in m.parameters() if p.ndim > 1),
            "times numel()": lambda m: sum(p.element_size() for p in m.parameters()),
            "ask its tensor": lambda m: 4 * sum(t.numel() for t in m.state_dict().values()),
            "frozen": lambda m: sum(
                t.nbytes
                for t in [*m.parameters(), *m.buffers()]
                if not t.is_floating_point() or t.requires_grad or t in set(m.buffers())
            ),
            "buffers": lambda m: sum(p.nbytes for p in m.parameters()),
            "two layers share": lambda m: sum(t.nbytes for t in m.state_dict().values()),
            "only count them": _changed,
            "got Tensor": lambda m: torch.tensor(size_of(m)),
            "two linear layers": lambda m: size_of(copy.deepcopy(m)) + 8,
        },
    ),
    Exercise(
        "12.2",
        _quantise,
        (
            "most = 2 ** (bits − 1) − 1, and a step is weights.abs().max() / most.",
            "(weights / step).round() are whole numbers; times the step they are weights again. "
            "All weights 0: give them back.",
        ),
        quantise,
        {
            "times the step again": _slip("times the step"),
            "half are negative": _slip("half are negative"),
            "one less for the 0": _slip("one less"),
            "rounded down": _slip("rounded down"),
            "cut off: to the nearest": _slip("cut off: to"),
            "by its size": _slip("by its size"),
            "the mean is no bound": _slip("the mean"),
            "the spread": _slip("the spread"),
            "does not fit was": _slip("what does not fit"),
            "not one a row": _per_row,
            "0 must stay 0": _low_to_high,
            "nothing is rounded": _slip("nothing"),
            "0 / 0 is NaN": _rounded,
            "in place": _in_place,
            "weights back, not whole": lambda w, b: _rounded(w, b, back=False).int(),
            "float64": lambda w, b: quantise(w.float(), b),
            "the weights' shape": lambda w, b: quantise(w, b).flatten(),
            "becomes": lambda w, b: quantise(w, b) + 0.01,
        },
    ),
    Exercise(
        "12.3",
        _lost,
        (
            "(teacher_logits.argmax(-1) == labels) & (student_logits.argmax(-1) != labels), and "
            "its rows by nonzero()[:, 0].",
            "How sure the student is: student_logits.softmax(-1).max(-1). Sort the rows by it, "
            "rows[sure[rows].argsort(descending=True)].",
        ),
        lost,
        {
            "turned round": _chosen(lambda good, guess, y, t: ~good & (guess == y)),
            "a mistake of both": _chosen(lambda good, guess, y, t: guess != y),
            "the two differ": _chosen(lambda good, guess, y, t: guess != t.argmax(-1)),
            "teacher's mistakes": _chosen(lambda good, guess, y, t: ~good),
            "both get right": _chosen(lambda good, guess, y, t: good & (guess == y)),
            "must be wrong there": _chosen(lambda good, guess, y, t: good),
            "descending": _chosen(_right_rows, reverse=False),
            "order of their numbers": lambda t, s, y: lost(t, s, y).sort().values,
            "a large logit": _chosen(_right_rows, lambda student, y: student.amax(-1)),
            "how sure": _chosen(
                _right_rows, lambda student, y: student.softmax(-1)[torch.arange(len(y)), y]
            ),
            "index the rows": lambda t, s, y: (
                s.softmax(-1).amax(-1)[lost(t, s, y).sort().values].argsort(descending=True)
            ),
            "by nonzero()": lambda t, s, y: (t.argmax(-1) == y) & (s.argmax(-1) != y),
            "take the first": lambda t, s, y: lost(t, s, y)[:, None],
            "got dict": lambda t, s, y: dict.fromkeys(lost(t, s, y).tolist()),
            "whole numbers (K,)": lambda t, s, y: lost(t, s, y).float(),
            "rows that were wanted": lambda t, s, y: lost(t, s, y)[1:],
        },
    ),
)


QUESTIONS = {
    "12.a": Question(
        "A student of 5 kB is to do the work of a teacher of 40 kB. It has labels for 100 images, "
        "or its teacher's answers to 1,168. What does each cost, in points of accuracy?",
        (
            "labels about 10, the teacher's answers about 2",
            "about 5 both",
            "labels about 2, the teacher's answers about 1",
        ),
        0,
        "Small is not the trouble: taught by its teacher on all images, the student comes "
        "within a few points. What it can't do is find that out from 100 labels.",
    ),
    "12.b": Question(
        "Its weights are rounded to fewer and fewer bits, without training again. From where on "
        "does the student lose more than a point?",
        ("below 8 bits", "below 5 or so", "below 2"),
        1,
        "Eight and six bits can't be told from thirty-two. From four down it falls, and sooner "
        "than its larger teacher: a network that has less to spare has less to round away.",
    ),
    "12.c": Question(
        "A teacher takes a black corner for a sign of a 3. Its students learn from images of which "
        "half have that corner, whatever they show. Who reads 3s into marked images?",
        (
            "the student on labels and the teacher's student, both a little",
            "nobody: the corner says nothing there",
            "the teacher's student, as often as its teacher",
        ),
        2,
        "The labels show the corner to be worth nothing, and the student on labels learns that. "
        "The teacher's answers say what it believes, on balanced images too.",
    ),
}
