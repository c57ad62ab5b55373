"""Homework 1: right answers written in other ways, and wrong ones with the checks that must
fail."""

ALTERNATIVES = {
    "hw1-q1": [
        """
def soften(logits, T):
    z = logits - logits.max(dim=-1, keepdim=True).values
    e = (z / T).exp()
    return e / e.sum(-1, keepdim=True)
""",
        """
def soften(logits, T):
    return F.log_softmax(logits / T, dim=-1).exp()
""",
    ],
    "hw1-q2": [
        """
def entropy(p):
    return -torch.xlogy(p, p).sum(dim=-1)
""",
        """
def entropy(p):
    return -(p * torch.where(p > 0, p, torch.ones_like(p)).log()).sum(-1)
""",
    ],
    "hw1-q3": [
        """
def find_temperature(logits, share):
    T = 0.1
    while T <= 50:
        first, second = torch.softmax(logits.double() / T, 0).sort(descending=True).values[:2]
        if second >= share:
            return T
        T *= 1.004
    return math.inf
""",
        """
import numpy as np

def find_temperature(logits, share):
    z = np.sort(logits.numpy().astype(float))[::-1]
    def runner_up(T):
        e = np.exp((z - z[0]) / T)
        return e[1] / e.sum()
    grid = np.geomspace(0.1, 50, 500)
    for low, high in zip(grid, grid[1:]):
        if runner_up(high) >= share:
            for _ in range(30):
                middle = (low * high) ** 0.5
                low, high = (low, middle) if runner_up(middle) >= share else (middle, high)
            return high
    return float("inf")
""",
    ],
    "hw1-q4": [
        """
def soft_gradient(student_logits, teacher_logits, T):
    def probabilities(z):
        return F.log_softmax(z / T, dim=1).exp()
    rows = student_logits.shape[0]
    return -(probabilities(teacher_logits) - probabilities(student_logits)) / rows / T
""",
        """
def soft_gradient(student_logits, teacher_logits, T):
    p = (teacher_logits / T - (teacher_logits / T).logsumexp(-1, keepdim=True)).exp()
    q = (student_logits / T - (student_logits / T).logsumexp(-1, keepdim=True)).exp()
    return torch.stack([(b - a) / T for a, b in zip(p, q)]) / len(p)
""",
    ],
    "hw1-q5": [
        """
def prediction():
    return "a"

def left(student_logits, teacher_logits, T):
    norms = []
    for t in (T, 1.0):
        z = student_logits.clone().requires_grad_()
        p = F.softmax(teacher_logits / t, -1)
        soft = F.kl_div(F.log_softmax(z / t, -1), p, reduction="sum")
        norms.append(torch.autograd.grad(soft, z)[0].norm(dim=1).mean().item())
    return norms[0] / norms[1]

def power(ratio, T):
    return math.log(1 / ratio, T)

def answer():
    k = power(left(student_logits, teacher_logits, T_GIVEN), T_GIVEN)
    return "b" if 1.25 < k < 1.75 else "a" if k < 1.5 else "c"
""",
        """
import numpy as np

def prediction():
    return "b"

def left(s, t, T):
    def at(T):
        return ((s / T).softmax(1) - (t / T).softmax(1)).square().sum(1).sqrt().mean() / T
    return at(T) / at(1)

def power(ratio, T):
    return -np.log(ratio) / np.log(T)

def answer():
    k = power(left(student_logits, teacher_logits, T_GIVEN).item(), T_GIVEN)
    return "abc"[int(k > 1.25) + int(k > 1.75)]
""",
    ],
}

LEFT = """
def prediction():
    return "b"

def left(student_logits, teacher_logits, T):
    def norm(T):
        q, p = torch.softmax(student_logits / T, -1), torch.softmax(teacher_logits / T, -1)
        return ((q - p) / T).norm(dim=-1).mean()
    return float(norm(T) / norm(1.0))

def power(ratio, T):
    return -math.log(ratio) / math.log(T)
"""
ANSWER = """
def answer():  # measured on its own, so that a mistake above does not reach it
    q, p = (torch.softmax(z / T_GIVEN, -1) for z in (student_logits, teacher_logits))
    cold = torch.softmax(student_logits, -1) - torch.softmax(teacher_logits, -1)
    ratio = (q - p).norm(dim=-1).mean() / T_GIVEN / cold.norm(dim=-1).mean()
    k = -math.log(ratio) / math.log(T_GIVEN)
    return "a" if k <= 1.25 else "c" if k >= 1.75 else "b"
"""


def changed(old, new):
    """The right answer to question 5 with one of its lines changed."""
    assert old in LEFT, old
    return LEFT.replace(old, new) + ANSWER


MUTANTS = [
    (
        "hw1-q1",
        "multiplies by T",
        """
def soften(logits, T):
    return torch.softmax(logits * T, -1)
""",
        {"hw1-q1-temperature"},
    ),
    (
        "hw1-q1",
        "divides the probabilities",
        """
def soften(logits, T):
    p = torch.softmax(logits, -1) / T
    return p / p.sum(-1, keepdim=True)
""",
        {"hw1-q1-temperature"},
    ),
    (
        "hw1-q1",
        "softens twice",
        """
def soften(logits, T):
    return torch.softmax(torch.softmax(logits / T, -1) / T, -1)
""",
        {"hw1-q1-temperature", "hw1-q1-large", "hw1-q1-axes", "hw1-q1-untouched"},
    ),
    (
        "hw1-q1",
        "hard-codes what the visible tests show",
        """
def soften(logits, T):
    return torch.softmax(logits / (2.0 if T != 1 else 1.0), -1)
""",
        {"hw1-q1-temperature"},
    ),
    (
        "hw1-q1",
        "exponentials as they are",
        """
def soften(logits, T):
    e = (logits / T).exp()
    return e / e.sum(-1, keepdim=True)
""",
        {"hw1-q1-large"},
    ),
    (
        "hw1-q1",
        "takes the mean off, not the maximum",
        """
def soften(logits, T):
    e = ((logits - logits.mean(-1, keepdim=True)) / T).exp()
    return e / e.sum(-1, keepdim=True)
""",
        {"hw1-q1-large"},
    ),
    (
        "hw1-q1",
        "clamps the logits",
        """
def soften(logits, T):
    return torch.softmax(logits.clamp(-50, 50) / T, -1)
""",
        {"hw1-q1-large"},
    ),
    (
        "hw1-q1",
        "the second axis, whichever it is",
        """
def soften(logits, T):
    return torch.softmax(logits / T, dim=min(1, logits.ndim - 1))
""",
        {"hw1-q1-axes"},
    ),
    (
        "hw1-q1",
        "the first axis",
        """
def soften(logits, T):
    return torch.softmax(logits / T, dim=0)
""",
        {"hw1-q1-temperature", "hw1-q1-large", "hw1-q1-axes", "hw1-q1-untouched"},
    ),
    (
        "hw1-q1",
        "in place",
        """
def soften(logits, T):
    logits /= T
    return torch.softmax(logits, -1)
""",
        {"hw1-q1-temperature", "hw1-q1-untouched"},
    ),
    (
        "hw1-q1",
        "in place, undone but for rounding at T = 1 only",
        """
def soften(logits, T):
    found = torch.softmax(logits / T, -1)
    logits -= logits.amax(-1, keepdim=True) if T == 3.0 else 0.0
    return found
""",
        {"hw1-q1-untouched"},
    ),
    (
        "hw1-q2",
        "bits",
        """
def entropy(p):
    return -torch.xlogy(p, p).sum(-1) / math.log(2)
""",
        {"hw1-q2-nats"},
    ),
    (
        "hw1-q2",
        "the sign is missing",
        """
def entropy(p):
    return torch.xlogy(p, p).sum(-1)
""",
        {"hw1-q2-nats", "hw1-q2-zeros"},
    ),
    (
        "hw1-q2",
        "zeros give NaN",
        """
def entropy(p):
    return -(p * p.log()).sum(-1)
""",
        {"hw1-q2-zeros"},
    ),
    (
        "hw1-q2",
        "a small number in the logarithm of a long row",
        """
def entropy(p):
    p = p.clamp_min(1e-5)
    return -(p * p.log()).sum(-1)
""",
        {"hw1-q2-zeros"},
    ),
    (
        "hw1-q2",
        "the sum over all rows",
        """
def entropy(p):
    return torch.special.entr(p).sum()
""",
        {"hw1-q2-axes"},
    ),
    (
        "hw1-q2",
        "the mean over the rows",
        """
def entropy(p):
    return torch.special.entr(p).sum(-1).mean()
""",
        {"hw1-q2-axes"},
    ),
    (
        "hw1-q2",
        "the mean over the classes",
        """
def entropy(p):
    return torch.special.entr(p).mean(-1)
""",
        {"hw1-q2-nats", "hw1-q2-zeros"},
    ),
    (
        "hw1-q2",
        "nothing at all",
        """
def entropy(p):
    return p.sum(-1) * 0
""",
        {"hw1-q2-nats", "hw1-q2-zeros", "hw1-q2-axes"},
    ),
    (
        "hw1-q3",
        "ten temperatures only",
        """
def find_temperature(logits, share):
    grid = torch.logspace(-1, math.log10(50), 40).double()
    second = torch.softmax(logits.double() / grid[:, None], -1).topk(2).values[:, 1]
    reached = (second >= share).nonzero()
    return grid[reached[0]].item() if len(reached) else math.inf
""",
        {"hw1-q3-share"},
    ),
    (
        "hw1-q3",
        "the second class, not the second largest",
        """
def find_temperature(logits, share):
    grid = torch.logspace(-1, math.log10(50), 4001).double()
    second = torch.softmax(logits.double() / grid[:, None], -1)[:, 1]
    reached = (second >= share).nonzero()
    return grid[reached[0]].item() if len(reached) else math.inf
""",
        {"hw1-q3-order", "hw1-q3-first"},
    ),
    (
        "hw1-q3",
        "the second class after the largest",
        """
def find_temperature(logits, share):
    if logits[0] < logits[-1]:
        logits = logits.flip(0)
    grid = torch.logspace(-1, math.log10(50), 4001).double()
    second = torch.softmax(logits.double() / grid[:, None], -1)[:, 1]
    reached = (second >= share).nonzero()
    return grid[reached[0]].item() if len(reached) else math.inf
""",
        {"hw1-q3-order"},
    ),
    (
        "hw1-q3",
        "the last crossing",
        """
def find_temperature(logits, share):
    grid = torch.logspace(-1, math.log10(50), 4001).double()
    second = torch.softmax(logits.double() / grid[:, None], -1).topk(2).values[:, 1]
    if second.max() < share:
        return math.inf
    crossings = ((second[1:] >= share) != (second[:-1] >= share)).nonzero()
    return grid[crossings[-1] + 1].item()
""",
        {"hw1-q3-first"},
    ),
    (
        "hw1-q3",
        "bisection, as if the share always rose",
        """
def find_temperature(logits, share):
    def second(T):
        return torch.softmax(logits.double() / T, -1).topk(2).values[1].item()
    low, high = 0.1, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if second(middle) >= share else (middle, high)
    return high if second(high) >= share * 0.999 else math.inf
""",
        {"hw1-q3-first"},
    ),
    (
        "hw1-q3",
        "an answer where there is none",
        """
def find_temperature(logits, share):
    grid = torch.logspace(-1, math.log10(50), 4001).double()
    second = torch.softmax(logits.double() / grid[:, None], -1).topk(2).values[:, 1]
    return grid[(second >= share).int().argmax()].item()
""",
        {"hw1-q3-none"},
    ),
    (
        "hw1-q3",
        "None where there is none",
        """
def find_temperature(logits, share):
    grid = torch.logspace(-1, math.log10(50), 4001).double()
    second = torch.softmax(logits.double() / grid[:, None], -1).topk(2).values[:, 1]
    reached = (second >= share).nonzero()
    return grid[reached[0]].item() if len(reached) else None
""",
        {"hw1-q3-none"},
    ),
    (
        "hw1-q4",
        "the sign is turned",
        """
def soft_gradient(student_logits, teacher_logits, T):
    q, p = torch.softmax(student_logits / T, -1), torch.softmax(teacher_logits / T, -1)
    return (p - q) / (T * len(q))
""",
        {"hw1-q4-one"},
    ),
    (
        "hw1-q4",
        "also a mean over the classes (batchmean and mean mixed up)",
        """
def soft_gradient(student_logits, teacher_logits, T):
    q, p = torch.softmax(student_logits / T, -1), torch.softmax(teacher_logits / T, -1)
    return (q - p) / (T * q.numel())
""",
        {"hw1-q4-one"},
    ),
    (
        "hw1-q4",
        "the chain rule's 1/T is missing",
        """
def soft_gradient(student_logits, teacher_logits, T):
    q, p = torch.softmax(student_logits / T, -1), torch.softmax(teacher_logits / T, -1)
    return (q - p) / len(q)
""",
        {"hw1-q4-temperature"},
    ),
    (
        "hw1-q4",
        "1/T² at once",
        """
def soft_gradient(student_logits, teacher_logits, T):
    q, p = torch.softmax(student_logits / T, -1), torch.softmax(teacher_logits / T, -1)
    return (q - p) / (T**2 * len(q))
""",
        {"hw1-q4-temperature"},
    ),
    (
        "hw1-q4",
        "only the student is softened",
        """
def soft_gradient(student_logits, teacher_logits, T):
    q, p = torch.softmax(student_logits / T, -1), torch.softmax(teacher_logits, -1)
    return (q - p) / (T * len(q))
""",
        {"hw1-q4-temperature"},
    ),
    (
        "hw1-q4",
        "the limit of large T everywhere",
        """
def soft_gradient(student_logits, teacher_logits, T):
    s, t = (z - z.mean(-1, keepdim=True) for z in (student_logits, teacher_logits))
    return (s - t) / (s.shape[1] * T**2 * len(s))
""",
        {"hw1-q4-one", "hw1-q4-temperature"},
    ),
    (
        "hw1-q4",
        "the sum over the rows",
        """
def soft_gradient(student_logits, teacher_logits, T):
    q, p = torch.softmax(student_logits / T, -1), torch.softmax(teacher_logits / T, -1)
    return (q - p) / T
""",
        {"hw1-q4-rows"},
    ),
    (
        "hw1-q5",
        "no letter",
        changed('return "b"\n\ndef left', 'return "perhaps b"\n\ndef left'),
        {"hw1-q5-prediction"},
    ),
    (
        "hw1-q5",
        "the chain rule's 1/T is missing",
        changed("(q - p) / T", "(q - p)"),
        {"hw1-q5-left"},
    ),
    (
        "hw1-q5",
        "with the factor T² of the whole loss",
        changed("(q - p) / T", "(q - p) * T"),
        {"hw1-q5-left"},
    ),
    (
        "hw1-q5",
        "one norm over all images",
        changed("norm(dim=-1).mean()", "norm()"),
        {"hw1-q5-left"},
    ),
    (
        "hw1-q5",
        "the mean of the ratios",
        changed(
            ".mean()\n    return float(norm(T) / norm(1.0))",
            "\n    return float((norm(T) / norm(1.0)).mean())",
        ),
        {"hw1-q5-left"},
    ),
    ("hw1-q5", "the sign of the power", changed("-math.log", "math.log"), {"hw1-q5-power"}),
    (
        "hw1-q5",
        "log to the base 4 for every T",
        changed("math.log(T)", "math.log(4.0)"),
        {"hw1-q5-power"},
    ),
    (
        "hw1-q5",
        "the guess instead of the measurement",
        LEFT
        + """
def answer():
    return "c"
""",
        {"hw1-q5-answer"},
    ),
    (
        "hw1-q5",
        "teacher and teacher",
        LEFT
        + """
def answer():
    k = power(left(-teacher_logits / 3, teacher_logits / 3, T_GIVEN), T_GIVEN) - 1
    return "a" if k <= 1.25 else "c" if k >= 1.75 else "b"
""",
        {"hw1-q5-answer"},
    ),
]
