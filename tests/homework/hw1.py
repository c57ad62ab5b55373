"""Homework 1: right answers written in other ways, and wrong ones with the checks that must
fail."""

RIGHT = """
def prediction():
    return "b"

def distil_step(student, optimiser, x, teacher_logits, T):
    student.train()
    log_q = F.log_softmax(student(x) / T, -1)
    p = F.softmax(teacher_logits / T, -1)
    loss = T**2 * F.kl_div(log_q, p, reduction="batchmean")
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()

def distil(student, x, teacher_logits, T, epochs, batch, lr):
    optimiser, losses = torch.optim.Adam(student.parameters(), lr=lr), []
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch):
            losses.append(distil_step(student, optimiser, x[rows], teacher_logits[rows], T))
    return losses

def share_read(student, x, y, digit):
    student.eval()
    with torch.no_grad():
        named = student(x).argmax(-1)
    return (named[y == digit] == digit).float().mean().item()
"""
OTHER = """
from torch.utils.data import DataLoader, TensorDataset

def prediction():
    return "c"

def distil_step(student, optimiser, x, teacher_logits, T):
    optimiser.zero_grad()
    z = student.train()(x) / T
    p = (teacher_logits / T).softmax(1)
    entropy = torch.special.entr(p).sum()
    loss = (F.cross_entropy(z, p, reduction="sum") - entropy) / len(x) * T * T
    loss.backward()
    optimiser.step()
    return float(loss)

def distil(student, x, teacher_logits, T, epochs, batch, lr):
    optimiser = torch.optim.Adam(student.parameters(), lr=lr)
    loader = DataLoader(TensorDataset(x, teacher_logits), batch_size=batch, shuffle=True)
    return [distil_step(student, optimiser, a, b, T) for _ in range(epochs) for a, b in loader]

@torch.no_grad()
def share_read(student, x, y, digit):
    right = sum(int(student.eval()(x[i : i + 1]).argmax()) == digit for i in (y == digit).nonzero())
    return right / int((y == digit).sum())
"""


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
    "hw1-q5": [RIGHT, OTHER],
}


def changed(old, new):
    """The right answer to question 5 with one of its lines changed."""
    assert old in RIGHT, old
    return RIGHT.replace(old, new)


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
    ("hw1-q5", "no letter", changed('return "b"', 'return "perhaps b"'), {"hw1-q5-prediction"}),
    ("hw1-q5", "T² is missing", changed("T**2 * ", ""), {"hw1-q5-step"}),
    ("hw1-q5", "T for T²", changed("T**2 * ", "T * "), {"hw1-q5-step"}),
    (
        "hw1-q5",
        "the student stays at T = 1",
        changed("F.log_softmax(student(x) / T, -1)", "F.log_softmax(student(x), -1)"),
        {"hw1-q5-step"},
    ),
    ("hw1-q5", "a tensor for a number", changed("loss.item()", "loss"), {"hw1-q5-step"}),
    (
        "hw1-q5",
        "the loss after the step",
        changed(
            "return loss.item()",
            "log_q = F.log_softmax(student(x) / T, -1)\n"
            "    return (T**2 * F.kl_div(log_q, p, reduction='batchmean')).item()",
        ),
        {"hw1-q5-step", "hw1-q5-again"},
    ),
    (
        "hw1-q5",
        "divided by the classes too",
        changed('"batchmean"', '"mean"'),
        {"hw1-q5-step", "hw1-q5-again", "hw1-q5-loop"},
    ),
    (
        "hw1-q5",
        "student and teacher swapped",
        changed(
            'F.kl_div(log_q, p, reduction="batchmean")',
            "(log_q.exp() * (log_q - p.log())).sum(-1).mean()",
        ),
        {"hw1-q5-step", "hw1-q5-again", "hw1-q5-loop"},
    ),
    (
        "hw1-q5",
        "gradients pile up",
        changed("    optimiser.zero_grad()\n", ""),
        {"hw1-q5-again", "hw1-q5-loop"},
    ),
    ("hw1-q5", "left in eval mode", changed("    student.train()\n", ""), {"hw1-q5-again"}),
    (
        "hw1-q5",
        "eval mode in the step",
        changed("student.train()", "student.eval()"),
        {"hw1-q5-step", "hw1-q5-again"},
    ),
    (
        "hw1-q5",
        "the answers in another order",
        changed("teacher_logits[rows]", "teacher_logits[: len(rows)]"),
        {"hw1-q5-loop"},
    ),
    (
        "hw1-q5",
        "one order for all epochs",
        changed(
            "    for _ in range(epochs):\n        for rows in torch.randperm(len(x)).split(batch):",
            "    order = torch.randperm(len(x))\n"
            "    for _ in range(epochs):\n        for rows in order.split(batch):",
        ),
        {"hw1-q5-loop"},
    ),
    (
        "hw1-q5",
        "the smaller batch dropped",
        changed(".split(batch):", "[: len(x) // batch * batch].split(batch):"),
        {"hw1-q5-loop"},
    ),
    (
        "hw1-q5",
        "drawn with repeats",
        changed("torch.randperm(len(x))", "torch.randint(len(x), (len(x),))"),
        {"hw1-q5-loop"},
    ),
    (
        "hw1-q5",
        "all images count",
        changed("named[y == digit]", "named"),
        {"hw1-q5-share"},
    ),
    (
        "hw1-q5",
        "of those named so, how many are right",
        changed("(named[y == digit] == digit)", "(y[named == digit] == digit)"),
        {"hw1-q5-share"},
    ),
    (
        "hw1-q5",
        "asked in train mode",
        changed("    student.eval()\n", ""),
        {"hw1-q5-share"},
    ),
]
