"""Exercises of lesson 01: the softmax, the loss, the step, the exam; and five loops with a bug."""

import torch
from torch import nn

from kdlab.lessons.exercises import Exercise, Question

# --- what the learner writes ---


def soften(logits, T):
    """Probabilities at temperature T: (N, C) → (N, C)."""
    return torch.softmax(logits / T, dim=-1)


def soft_loss(student_logits, teacher_logits, T):
    """T² · KL(teacher ‖ student), the mean over the images: one number."""
    p = torch.softmax(teacher_logits / T, dim=-1)
    log_p = torch.log_softmax(teacher_logits / T, dim=-1)
    log_q = torch.log_softmax(student_logits / T, dim=-1)
    return T * T * (p * (log_p - log_q)).sum(-1).mean()


def train_step(student, optimiser, loss, x, teacher_logits, T):
    """One step down loss(student_logits, teacher_logits, T) → its value, a float."""
    student.train()
    optimiser.zero_grad()
    value = loss(student(x), teacher_logits, T)
    value.backward()
    optimiser.step()
    return value.item()


def evaluate(student, data):
    """The share of data.x that the student reads as data.y."""
    student.eval()
    with torch.no_grad():
        answers = student(data.x).argmax(dim=-1)
    student.train()
    return (answers == data.y).float().mean().item()


# --- 01.1 ---


def _logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 6, 5, dtype=torch.float64, generator=generator) * 3


def _test_soften(attempt):
    z, T = _logits()[0], 4.0
    given = z.clone()
    found, right = attempt(given, T), soften(z, T)
    if not torch.is_tensor(found):
        return f"the result must be a tensor of probabilities, got {type(found).__name__}"
    if not torch.equal(given, z):
        return "your code changes the logits it was given: write logits / T, not logits /= T"
    if found.shape != z.shape:
        return (
            f"one probability for each logit: expected {tuple(z.shape)}, got {tuple(found.shape)}"
        )
    for sentence, wrong in _soften_slips(z, T).items():
        if torch.allclose(found, wrong):
            return sentence
    if not torch.allclose(found, right):
        return f"the first row should be {_shown(right[0])}, got {_shown(found[0])}"
    if not torch.isfinite(attempt(z * 1000, 1.0)).all():
        return "large logits overflow exp: torch.softmax takes the largest off first"
    return ""


def _soften_slips(z, T):
    return {
        "these are logits divided by T: the softmax is still to come": z / T,
        "T is not used: every answer is as sharp as at T = 1": torch.softmax(z, -1),
        "times T sharpens the answers: divide by it": torch.softmax(z * T, -1),
        "divide the logits before the softmax; after it, a row adds up to 1 / T": (
            torch.softmax(z, -1) / T
        ),
        "these are logs of probabilities: softmax, not log_softmax": torch.log_softmax(z / T, -1),
        "the softmax runs down the images: classes lie along dim=-1": torch.softmax(z / T, 0),
        "all images share one softmax: each row adds up to 1 by itself, with dim=-1": (
            torch.softmax((z / T).flatten(), 0).view_as(z)
        ),
        "exp is there, but the rows don't add up to 1: divide by their sum": (z / T).exp(),
        "the logits are divided by T² here: T² belongs to the loss": torch.softmax(z / T**2, -1),
        "softened twice: the second softmax takes probabilities for logits": torch.softmax(
            torch.softmax(z / T, -1), -1
        ),
    }


def _shown(row):
    return [round(v, 3) for v in row.tolist()]


# --- 01.2 ---


def _test_soft_loss(attempt):
    (s, t), T = _logits(), 4.0
    s.requires_grad_()
    found, right = attempt(s, t, T), soft_loss(s, t, T)
    if not torch.is_tensor(found):
        return f"a loss must stay a tensor, so that it has a gradient; got {type(found).__name__}"
    if found.ndim:
        return f"a loss is one number: end with .mean() over the rows; got {tuple(found.shape)}"
    for sentence, wrong in _soft_loss_slips(s, t, T).items():
        if any(torch.allclose(found, value) for value in wrong):
            return sentence
    if not torch.allclose(found, right):
        return f"on the test batch the loss is {right.item():.4f}, yours gives {found.item():.4f}"
    if not found.requires_grad:
        return (
            "the number is right, but no gradient leads back to the student: something cuts it off"
        )
    theirs, mine = (torch.autograd.grad(v, s)[0] for v in (right, found))
    if not torch.allclose(mine, theirs):
        return "the number is right, its gradient is not: a part of the student is detached"
    if not torch.isfinite(attempt(s * 1000, t * 1000, 1.0)):
        return "very sure answers give log(0): log_softmax never takes the log of a 0"
    return ""


def _soft_loss_slips(s, t, T):
    """{what to say: [values that show it]}."""
    slips = _one_slip(s, t, T)
    p, q = torch.softmax(t / T, -1), torch.softmax(s / T, -1)
    bare = (p * (p.log() - q)).sum(-1).mean()
    # F.kl_div by its defaults: a mean over classes too, and often without T²
    said = "the student's probabilities stand where their logs belong: log_softmax, not softmax"
    each = [bare * scale / size for scale in (1, T * T) for size in (1, s.shape[-1])]
    return {sentence: [value] for sentence, value in slips.items()} | {said: each}


def _one_slip(s, t, T):
    p, q = torch.softmax(t / T, -1), torch.softmax(s / T, -1)
    log_p, log_q, log_1 = p.log(), q.log(), torch.log_softmax(s, -1)
    kl = (p * (log_p - log_q)).sum(-1).mean()
    p_1 = torch.softmax(t, -1)
    return {
        "the KL runs the wrong way: the teacher's probabilities weight the sum": (
            T * T * (q * (log_q - log_p)).sum(-1).mean()
        ),
        "the student stays at T = 1: soften both sides": (
            T * T * (p * (log_p - log_1)).sum(-1).mean()
        ),
        "the teacher stays at T = 1: soften both sides": (
            T * T * (p_1 * (p_1.log() - log_q)).sum(-1).mean()
        ),
        "the factor T² is missing": kl,
        "the factor is T², here it is T": T * kl,
        "the mean runs over the classes too: sum over classes, mean over rows": (
            T * T * kl / s.shape[-1]
        ),
        "the rows are added up: take their mean, or a larger batch takes larger steps": (
            T * T * kl * len(s)
        ),
        "this is the cross-entropy, which is not 0 where both agree: subtract log q from log p": (
            -T * T * (p * log_q).sum(-1).mean()
        ),
        "a sign is turned: training would drive the two apart": -T * T * kl,
        "probabilities stand where logs belong: log p − log q, not p − q": (
            T * T * (p * (p - q)).sum(-1).mean()
        ),
        "the softmax runs down the images, dim=0: classes lie along dim=-1": _down(s, t, T),
    }


def _down(s, t, T):
    log_p, log_q = torch.log_softmax(t / T, 0), torch.log_softmax(s / T, 0)
    return T * T * (log_p.exp() * (log_p - log_q)).sum(-1).mean()


# --- 01.3 ---


class _Watched(nn.Module):
    """A small student that notes the mode in which it answers, and whether it learns."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5))
        self.seen = []

    def forward(self, x):
        self.seen.append((self.training, torch.is_grad_enabled()))
        return self.layers(x)


def _two_steps(step, T=4.0):
    """(student, [values]) after two steps of plain gradient descent, begun in eval mode."""
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    student, z = _Watched().eval(), _logits()[1].float()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.05)
    return student, [step(student, optimiser, soft_loss, x, z, T) for _ in range(2)]


def _apart(student, other):
    """The largest difference of two students' weights."""
    pairs = zip(student.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def _test_train_step(attempt):
    student, values = _two_steps(attempt)
    right, expected = _two_steps(train_step)
    if not student.seen:
        return "the student was never asked: student(x) gives its logits"
    if not student.seen[0][1]:
        return "a step needs gradients: no torch.no_grad() here"
    if _apart(student, _Watched()) == 0:
        return "no weight moved: .backward() on the loss, then optimiser.step()"
    if not all(training for training, _ in student.seen):
        return "the student is still in eval mode, where dropout is off: student.train() first"
    for sentence, slip in _STEP_SLIPS.items():
        if _apart(student, _two_steps(slip)[0]) < 1e-5:
            return sentence
    if _apart(student, right) > 1e-5:
        return "after two steps the weights differ: the loss is loss(student(x), teacher_logits, T)"
    if torch.is_tensor(values[0]):
        return "return value.item(): a tensor would keep the whole step in memory"
    if abs(values[0] - expected[0]) > 1e-4:
        return f"the first step's loss is {expected[0]:.3f}, your step returns {values[0]:.3f}"
    return ""


def _stepped(student, optimiser, value, zero=True, times=1):
    if zero:
        optimiser.zero_grad()
    value.backward()
    for _ in range(times):
        optimiser.step()
    return value.item()


def _no_zero_grad(student, optimiser, loss, x, teacher_logits, T):
    return _stepped(student.train(), optimiser, loss(student(x), teacher_logits, T), zero=False)


def _steps_twice(student, optimiser, loss, x, teacher_logits, T):
    return _stepped(student.train(), optimiser, loss(student(x), teacher_logits, T), times=2)


def _swaps(student, optimiser, loss, x, teacher_logits, T):
    return _stepped(student.train(), optimiser, loss(teacher_logits, student(x), T))


def _at_one(student, optimiser, loss, x, teacher_logits, T):
    return _stepped(student.train(), optimiser, loss(student(x), teacher_logits, 1.0))


def _softens_first(student, optimiser, loss, x, teacher_logits, T):
    z = torch.softmax(student.train()(x), -1)
    return _stepped(student, optimiser, loss(z, teacher_logits, T))


def _softens_teacher(student, optimiser, loss, x, teacher_logits, T):
    p = torch.softmax(teacher_logits, -1)
    return _stepped(student.train(), optimiser, loss(student(x), p, T))


def _divides_first(student, optimiser, loss, x, teacher_logits, T):
    value = loss(student.train()(x) / T, teacher_logits / T, T)
    return _stepped(student, optimiser, value)


_STEP_SLIPS = {
    "the old gradient is still there at the second step: optimiser.zero_grad() first": (
        _no_zero_grad
    ),
    "one gradient, two steps: call optimiser.step() once": _steps_twice,
    "the sides are swapped: loss(student(x), teacher_logits, T), student first": _swaps,
    "T never reaches the loss: pass it on": _at_one,
    "the student's logits are softened before the loss, which does that itself": _softens_first,
    "the teacher's logits are softened before the loss, which does that itself": _softens_teacher,
    "the logits are divided by T twice: the loss does that itself": _divides_first,
}


# --- 01.4 ---


class _Exam:
    """Twelve images of five classes, as `kd.Data` has them; unlike answers along either axis."""

    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
    y = torch.tensor([2, 2, 0, 4, 2, 1, 4, 2, 1, 3, 4, 2])


def _test_evaluate(attempt):
    data, student = _Exam, _Watched()
    optimiser = torch.optim.SGD(student.parameters(), lr=1.0)
    for parameter in student.parameters():
        parameter.grad = torch.ones_like(parameter)
    found, right = attempt(student.train(), data), evaluate(_Watched(), data)
    if not student.seen:
        return "the student was never asked: student(data.x) gives its logits"
    if any(training for training, _ in student.seen):
        return "the exam is taken in train mode, with dropout on: student.eval() first"
    if any(learning for _, learning in student.seen):
        return "an exam needs no gradients: answer inside `with torch.no_grad():`"
    if not student.training:
        return "the student is left in eval mode: student.train() before you return"
    if not torch.is_grad_enabled():
        torch.set_grad_enabled(True)
        return "gradients are off for good: `with torch.no_grad():` turns them on again at its end"
    del optimiser
    if _apart(student, _Watched()) > 0:
        return "the exam changed the weights: it only reads"
    if torch.is_tensor(found) and found.numel() != 1:
        return "accuracy is one number: the mean over the images"
    found = float(found)
    logits = _Watched().eval()(data.x).detach()
    for sentence, wrong in _exam_slips(logits, data.y, right).items():
        if abs(found - wrong) < 1e-6:
            return sentence
    return "" if abs(found - right) < 1e-6 else f"the share is {right:.3f}, you return {found:.3f}"


def _exam_slips(logits, y, right):
    p = torch.softmax(logits, -1)
    return {
        "this is the number of right answers: divide by the number of images": right * len(y),
        "this is in per cent: return the share, between 0 and 1": right * 100,
        "this is the share of wrong answers": 1 - right,
        "the answer is the class with the largest logit; argmin takes the smallest": (
            (logits.argmin(-1) == y).float().mean().item()
        ),
        "this is the mean probability of the right class: count right answers": (
            p.gather(1, y[:, None]).mean().item()
        ),
        "this is the mean of the largest probability, how sure it is: compare with data.y": (
            p.max(-1).values.mean().item()
        ),
        "the right answers are divided by the number of classes": right * len(y) / p.shape[-1],
    }


def _exam_source(body, before="student.eval()", after="student.train()"):
    """A wrong attempt at 01.4, its lines around one that counts."""
    return f"""
def attempt(student, data):
    {before}
    with torch.no_grad():
        logits = student(data.x)
    {after}
    return {body}
"""


_SHARE = "(logits.argmax(-1) == data.y).float().mean().item()"


# --- 01.5: five loops, each with one bug ---

BUGS = {
    "zero_grad": "the old gradient is never cleared",
    "order": "the teacher's answers lie in another order than the images",
    "swapped": "the KL runs from student to teacher",
    "T = 1": "the student's logits are not divided by T",
    "eval": "the student learns in eval mode, without its dropout",
}
LETTERS = {"A": "swapped", "B": "order", "C": "eval", "D": "T = 1", "E": "zero_grad"}


def _in_eval_mode(student, optimiser, loss, x, teacher_logits, T):
    return _stepped(student.eval(), optimiser, loss(student(x), teacher_logits, T))


def reverse(student_logits, teacher_logits, T):
    """The bug called "swapped"."""
    return soft_loss(teacher_logits, student_logits, T)


def student_at_1(student_logits, teacher_logits, T):
    """The bug called "T = 1"."""
    return soft_loss(student_logits * T, teacher_logits, T)


def broken_loops(answers):
    """{letter: what that loop hands to `fit`}: loss, targets (N, C) and step."""
    mixed = torch.randperm(len(answers), generator=torch.Generator().manual_seed(5))
    right = {"loss": soft_loss, "targets": answers, "step": train_step}
    bug = {
        "zero_grad": {"step": _no_zero_grad},
        "order": {"targets": answers[mixed]},
        "swapped": {"loss": reverse},
        "T = 1": {"loss": student_at_1},
        "eval": {"step": _in_eval_mode},
    }
    return {letter: right | bug[name] for letter, name in LETTERS.items()}


_CLUES = {
    "zero_grad": "with old gradients left in, it begins like the others and then comes undone",
    "order": "with answers of other images there is nothing to learn: accuracy stays at one in ten",
    "swapped": "a swapped KL starts slowly and ends near the right loop, only its soft loss higher",
    "T = 1": "a student left at T = 1 reads well, and its soft loss stays far up",
    "eval": "without dropout its training loss falls below the right one's; little else moves",
}


def _test_loops(attempt):
    if not isinstance(attempt, dict) or sorted(attempt) != sorted(LETTERS):
        return f"the answer is a dictionary with a bug for each of {', '.join(LETTERS)}"
    unknown = [v for v in attempt.values() if v not in BUGS]
    if unknown:
        return f"expected names of {', '.join(BUGS)}; got {unknown[0]!r}"
    mistaken = [letter for letter in LETTERS if attempt[letter] != LETTERS[letter]]
    if not mistaken:
        return ""
    clue = _CLUES[attempt[mistaken[0]]]
    return f"mistaken: {', '.join(mistaken)}. Look at {mistaken[0]} again: {clue}"


def _naming(**changed):
    return f"attempt = {LETTERS | changed!r}"


# --- the mistakes that the tests plant ---


def _loss_source(body):
    return f"""
def attempt(s, t, T):
    p, q = torch.softmax(t / T, -1), torch.softmax(s / T, -1)
    log_p, log_q = torch.log_softmax(t / T, -1), torch.log_softmax(s / T, -1)
    kl = (p * (log_p - log_q)).sum(-1).mean()
    return {body}
"""


def _step_source(body):
    lines = "\n    ".join(body.split("; "))
    return f"def attempt(student, optimiser, loss, x, teacher_logits, T):\n    {lines}\n"


_VALUE = "value = loss(student(x), teacher_logits, T)"
_REST = "value.backward(); optimiser.step(); return value.item()"


EXERCISES = (
    Exercise(
        "01.1",
        _test_soften,
        (
            "Divide the logits by T first.",
            "torch.softmax wants to know along which dimension a row adds up to 1.",
        ),
        soften,
        {
            "still to come": "def attempt(z, T):\n    return z / T",
            "not used": "def attempt(z, T):\n    return torch.softmax(z, -1)",
            "sharpens": "def attempt(z, T):\n    return torch.softmax(z * T, -1)",
            "before the softmax": "def attempt(z, T):\n    return torch.softmax(z, -1) / T",
            "logs of": "def attempt(z, T):\n    return torch.log_softmax(z / T, -1)",
            "down the images": "def attempt(z, T):\n    return torch.softmax(z / T, 0)",
            "share one softmax": (
                "def attempt(z, T):\n    return torch.softmax((z / T).flatten(), 0).view_as(z)"
            ),
            "divide by their sum": "def attempt(z, T):\n    return torch.exp(z / T)",
            "T² belongs": "def attempt(z, T):\n    return torch.softmax(z / T**2, -1)",
            "softened twice": (
                "def attempt(z, T):\n    return torch.softmax(torch.softmax(z / T, -1), -1)"
            ),
            "overflow": (
                "def attempt(z, T):\n    e = (z / T).exp()\n    return e / e.sum(-1, keepdim=True)"
            ),
            "changes the logits": "def attempt(z, T):\n    z /= T\n    return torch.softmax(z, -1)",
        },
    ),
    Exercise(
        "01.2",
        _test_soft_loss,
        (
            "KL(p ‖ q) is Σ p · (log p − log q), with p the teacher's, q the student's, both at T.",
            "torch.log_softmax gives log q. Sum over classes, mean over rows, times T².",
        ),
        soft_loss,
        {
            "wrong way": _loss_source("T * T * (q * (log_q - log_p)).sum(-1).mean()"),
            "student stays": _loss_source(
                "T * T * (p * (log_p - torch.log_softmax(s, -1))).sum(-1).mean()"
            ),
            "teacher stays": _loss_source(
                "T * T * (torch.softmax(t, -1) * (torch.log_softmax(t, -1) - log_q)).sum(-1).mean()"
            ),
            "missing": _loss_source("kl"),
            "here it is T": _loss_source("T * kl"),
            "over the classes too": _loss_source(
                'T * T * F.kl_div(log_q, log_p, log_target=True, reduction="none").mean()'
            ),
            "added up": _loss_source("T * T * (p * (log_p - log_q)).sum()"),
            "cross-entropy": _loss_source("-T * T * (p * log_q).sum(-1).mean()"),
            "sign": _loss_source("T * T * (p * (log_q - log_p)).sum(-1).mean()"),
            "log p − log q": _loss_source("T * T * (p * (p - q)).sum(-1).mean()"),
            "student's probabilities": _loss_source(
                'T * T * F.kl_div(q, p, reduction="batchmean")'
            ),
            "dim=0": (
                "def attempt(s, t, T):\n"
                "    log_p, log_q = (torch.log_softmax(z / T, 0) for z in (t, s))\n"
                "    return T * T * (log_p.exp() * (log_p - log_q)).sum(-1).mean()"
            ),
            "one number": _loss_source("T * T * (p * (log_p - log_q)).sum(-1)"),
            "stay a tensor": _loss_source("(T * T * kl).item()"),
            "no gradient": _loss_source("T * T * kl.detach()"),
            "log(0)": _loss_source("T * T * (p * (p.log() - q.log())).sum(-1).mean()"),
        },
    ),
    Exercise(
        "01.3",
        _test_train_step,
        (
            "Six lines: train mode, clear the old gradient, loss, backward, step, return.",
            "The loss is loss(student(x), teacher_logits, T); give back its .item().",
        ),
        train_step,
        {
            "never asked": _step_source("return 0.0"),
            "no torch.no_grad": _step_source(
                "student.train(); torch.set_grad_enabled(False); student(x); "
                "torch.set_grad_enabled(True); return 0.0"
            ),
            "no weight moved": _step_source(
                f"student.train(); optimiser.zero_grad(); {_VALUE}; value.backward(); "
                "return value.item()"
            ),
            "eval mode": _step_source(f"optimiser.zero_grad(); {_VALUE}; {_REST}"),
            "old gradient": _step_source(f"student.train(); {_VALUE}; {_REST}"),
            "two steps": _steps_twice,
            "swapped": _swaps,
            "pass it on": _at_one,
            "student's logits are softened": _softens_first,
            "teacher's logits are softened": _softens_teacher,
            "twice": _divides_first,
            "weights differ": _step_source(
                "student.train(); optimiser.zero_grad(); "
                "value = loss(student(x), teacher_logits, T) / len(x); " + _REST
            ),
            "in memory": _step_source(
                f"student.train(); optimiser.zero_grad(); {_VALUE}; value.backward(); "
                "optimiser.step(); return value"
            ),
            "your step returns": _step_source(
                f"student.train(); optimiser.zero_grad(); {_VALUE}; value.backward(); "
                "optimiser.step(); return loss(student(x), teacher_logits, T).item()"
            ),
        },
    ),
    Exercise(
        "01.4",
        _test_evaluate,
        (
            "Three acts: eval mode, answers without gradients, train mode again.",
            "The answer is student(data.x).argmax(dim=-1); compare it with data.y.",
        ),
        evaluate,
        {
            "never asked": "def attempt(student, data):\n    return 0.5",
            "in train mode": _exam_source(_SHARE, before="student.train()"),
            "no gradients": (
                "def attempt(student, data):\n    student.eval()\n    logits = student(data.x)\n"
                f"    student.train()\n    return {_SHARE}"
            ),
            "left in eval": _exam_source(_SHARE, after="pass"),
            "for good": (
                "def attempt(student, data):\n    student.eval()\n"
                "    torch.set_grad_enabled(False)\n    logits = student(data.x)\n"
                f"    student.train()\n    return {_SHARE}"
            ),
            "mean over the images": _exam_source("(logits.argmax(-1) == data.y).float()"),
            "number of right": _exam_source("(logits.argmax(-1) == data.y).sum().item()"),
            "per cent": _exam_source(f"100 * {_SHARE}"),
            "wrong answers": _exam_source(f"1 - {_SHARE}"),
            "argmin": _exam_source("(logits.argmin(-1) == data.y).float().mean().item()"),
            "probability of the right": _exam_source(
                "torch.softmax(logits, -1).gather(1, data.y[:, None]).mean().item()"
            ),
            "how sure": _exam_source("torch.softmax(logits, -1).max(-1).values.mean().item()"),
            "number of classes": _exam_source(
                "(logits.argmax(-1) == data.y).sum().item() / logits.shape[-1]"
            ),
        },
    ),
    Exercise(
        "01.5",
        _test_loops,
        (
            "Two of the five can be told from accuracy alone.",
            "For the other three compare both losses with the right loop's, at the end.",
        ),
        _naming(),
        {
            "dictionary": 'attempt = "ABCDE"',
            "names of": _naming(A="Adam"),
            "mistaken: A, C": _naming(A="eval", C="swapped"),
            "nothing to learn": _naming(A="order", B="swapped"),
            "comes undone": _naming(B="zero_grad", E="order"),
            "far up": _naming(A="T = 1", D="swapped"),
        },
    ),
)


QUESTIONS = {
    "01.a": Question(
        (
            "Soon your loop and the library train a student each, from the same seed. By how much "
            "will their logits differ after 480 steps?"
        ),
        ("by rounding", "by some tenths; only the accuracies agree", "it depends on luck"),
        0,
        (
            "A seed fixes the first weights and the order of the images, and all the rest is "
            "arithmetic. What is left is rounding."
        ),
    ),
    "01.b": Question(
        "Each of the five loops has one bug. How many of them does the accuracy curve give away?",
        ("all five", "two", "none"),
        1,
        (
            "Only the two that ruin the training. The other three read about as well as the right "
            "loop, one of them even better."
        ),
    ),
}
