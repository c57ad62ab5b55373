"""Homework 6: right answers written in other ways, and wrong ones with the checks that must fail on
each."""

# a network that takes longer than the teacher does so in fewer calls and on fewer images too
LESS = {
    "calls=300": "calls=60",
    "digits(5151, 4000)": "digits(5151, 800)",
    # and one teacher is that of all answers
    "teacher = train_teacher(SEED)": (
        "import run\nteacher = run.kept(('the teacher', SEED), train_teacher, SEED)"
    ),
}
NET = """nn.Sequential(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
                            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
                            nn.Linear(256, 10))"""

# copies of the images, moved or as they are; what they are taught; what becomes of the student
TRAIN = """
def trained(train, teacher, seed):
    torch.manual_seed(seed)
    student = {net}
    x = torch.cat([torch.roll(train.x, (i, j), (2, 3)) for i in {moves} for j in {moves}])
    y, z = train.y.repeat(len(x) // len(train.y)), kd.outputs.logits(teacher, x)
    total = {epochs} * (-(-len(x) // 100))
    optimiser = torch.optim.Adam(student.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=total)
    for _ in range({epochs}):
        for rows in torch.randperm(len(x)).split(100):
            optimiser.zero_grad()
            answer = student(x[rows])
            {loss}.backward()
            optimiser.step()
            schedule.step()
    return student
"""
BUILD = """
def build(train, teacher, seed):
    student = trained(train, teacher, seed)
    {end}
"""
# the same training need not be done for each answer that spoils what comes after it
KEPT = """
import run
fresh = trained
def trained(train, teacher, seed):
    return run.kept(({key!r}, seed), fresh, train, teacher, seed, anew={anew})
"""
# right by two points more than is asked after three epochs; the mean squared error takes six
TAUGHT = "kd.KDLoss(temperature=2.0, alpha=0.95)(answer, z[rows], y[rows])"
LABELS = "F.cross_entropy(answer, y[rows])"


def build(
    net=NET,
    moves=(-1, 0, 1),
    epochs=3,
    loss=TAUGHT,
    end="return student.eval()",
    kept=True,
):
    """The code of an answer to question 1; without arguments a right one.

    kept: whether one training serves all answers that train alike; without, this one trains each
    time, and the others may use what came out."""
    train = TRAIN.format(net=net, moves=moves, epochs=epochs, loss=loss)
    return train + KEPT.format(key=train, anew=not kept) + BUILD.format(end=end)


def wrapped(forward, inside=""):
    """The end of a build that returns the student inside a module with this forward."""
    lines = [
        "class Wrapped(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        f"        self.net = student{inside}",
        "    def forward(self, x):",
        f"        {forward}",
        "return Wrapped().eval()",
    ]
    return "\n    ".join(lines)


# each count asked once: scipy takes a millisecond
COUNTED = """
import functools
def forecast(right):
    return bounds(int(right.sum()), len(right))
@functools.cache
def bounds(hits, n):
    from scipy import stats
"""
WILSON = f"""{COUNTED}
    found = stats.binomtest(hits, n).proportion_ci(method="wilson")
    return found.low, found.high
"""
JEFFREYS = f"""{COUNTED}
    low, high = stats.beta.interval(0.95, hits + 0.5, n - hits + 0.5)
    return (0.0 if hits == 0 else float(low)), (1.0 if hits == n else float(high))
"""

ALTERNATIVES = {
    "hw6-q1": [
        build(kept=False),
        build(epochs=6, loss="F.mse_loss(answer, z[rows])"),
    ],
    "hw6-q3": [WILSON, JEFFREYS],
}

ACCURACY = {f"hw6-q1-accuracy{a}" for a in (65, 82, 91)}
# what a student that guesses earns nothing for
FORM = {f"hw6-q1-{a}" for a in ("deterministic", "eval", "alone", "bytes", "latency")}
GUESSES = ACCURACY | FORM

MUTANTS = [
    (
        "hw6-q1",
        "twelve columns for ten classes",
        build(end=wrapped("return F.pad(self.net(x), (0, 2), value=-50.0)")),
        {"hw6-q1-module"},
    ),
    (
        "hw6-q1",
        "something is drawn that is not seeded",
        build(
            end="torch.seed()\n    for weight in student.parameters():\n"
            "        weight.data += 0.003 * torch.randn(weight.shape)\n    return student.eval()"
        ),
        {"hw6-q1-deterministic"},
    ),
    ("hw6-q1", "returned in train mode", build(end="return student.train()"), {"hw6-q1-eval"}),
    (
        "hw6-q1",
        "the batch's mean is subtracted",
        build(end=wrapped("return (lambda z: z - z.mean(0) / 8)(self.net(x))")),
        {"hw6-q1-alone"},
    ),
    (
        "hw6-q1",
        "more channels than the budget holds",
        build(NET.replace("8,", "11,").replace("16,", "24,").replace("256", "384")),
        {"hw6-q1-bytes"},
    ),
    (
        "hw6-q1",
        "the training images kept in an attribute, out of the state dict",
        build(end=wrapped("return self.net(x)", "; self.kept = [train.x]")),
        {"hw6-q1-bytes"},
    ),
    (
        "hw6-q1",
        "the training images behind a method",
        build(end=wrapped("return self.net(x) + 0 * train.x.numel()")),
        {"hw6-q1-bytes"},
    ),
    (
        "hw6-q1",
        "the mean over nine moved images, one after another",
        build(
            end=wrapped(
                "return sum(self.net(torch.roll(x, (i, j), (2, 3))) "
                "for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9"
            )
        ),
        {"hw6-q1-latency"},
    ),
    (
        "hw6-q1",
        "the teacher itself, asked twice",  # once, its time is the teacher's: too near the bound
        "class Twice(nn.Module):\n"
        "    def __init__(self, net):\n        super().__init__()\n        self.net = net\n"
        "    def forward(self, x):\n        return (self.net(x) + self.net(x)) / 2\n"
        "def build(train, teacher, seed):\n    return Twice(copy.deepcopy(teacher)).eval()",
        {"hw6-q1-bytes", "hw6-q1-latency"},
    ),
    (
        "hw6-q1",
        "labels alone, on moved images",
        build(epochs=2, loss=LABELS),
        {"hw6-q1-accuracy91"},
    ),
    (
        "hw6-q1",
        "labels alone, on few moved images",
        build(moves=(0, 1), epochs=3, loss=LABELS),
        {"hw6-q1-accuracy82", "hw6-q1-accuracy91"},
    ),
    (
        "hw6-q1",
        "the teacher's answers in another order than the images",
        build(epochs=1, loss="F.mse_loss(answer, z[torch.randperm(len(z))[rows]])"),
        GUESSES,
    ),
    (
        "hw6-q1",
        "labels alone, on images as they are, for two epochs",
        build(moves=(0,), epochs=2, loss=LABELS),
        ACCURACY,
    ),
    (
        "hw6-q1",
        "not trained",
        f"def build(train, teacher, seed):\n    torch.manual_seed(seed)\n    return {NET}.eval()",
        GUESSES,
    ),
    (
        "hw6-q1",
        "the same class for every image",
        build(epochs=1, end=wrapped("return 0 * self.net(x) + torch.eye(10)[3]"), loss=LABELS),
        GUESSES,
    ),
    (
        "hw6-q1",
        "images of its own, with true labels",
        (
            "def build(train, teacher, seed):\n    from kdlab.data import digits\n    return"
            " digits.digits(seed, 10)\n"
        ),
        {
            f"hw6-q1-{a}"
            for a in (
                "module",
                "deterministic",
                "eval",
                "alone",
                "bytes",
                "latency",
                "accuracy65",
                "accuracy82",
                "accuracy91",
            )
        },
    ),
    (
        "hw6-q3",
        "one standard error each way",
        (
            "def forecast(right):\n    n, p = len(right) + 4, (right.sum().item() + 2) /"
            " (len(right) + 4)\n    half = (p * (1 - p) / n) ** 0.5\n    return max(0, p - half),"
            " min(1, p + half)"
        ),
        {"hw6-q3-covers"},
    ),
    (
        "hw6-q3",
        "no wrong answer, no doubt",
        (
            "def forecast(right):\n    n, p = len(right), right.double().mean().item()\n"
            "    half = 1.96 * (p * (1 - p) / n) ** 0.5\n    return p - half, p + half"
        ),
        {"hw6-q3-edges"},
    ),
    (
        "hw6-q3",
        "bounds that leave [0, 1]",
        (
            "def forecast(right):\n    n, p = len(right) + 4, (right.sum().item() + 2) /"
            " (len(right) + 4)\n    half = 1.96 * (p * (1 - p) / n) ** 0.5\n    return p - half, p"
            " + half"
        ),
        {"hw6-q3-edges"},
    ),
]
