"""The items of homework 2's pools: two right tests and two right functions each, and what is wrong
with three others.

WRONG: a test that passes the bug, a test that stops at what is right, a function that is mended but
broken elsewhere."""


def changed(answer, old, new):
    """The answer with one thing changed."""
    assert old in answer, old
    return answer.replace(old, new)


KL = "(log_p.exp() * (log_p - log_q)).sum(-1)"
LOGS = "log_q, log_p = (s / T).log_softmax(-1), (t / T).log_softmax(-1)"
ANY = """    s, t, y = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    log_q, log_p = (s / 2).log_softmax(-1), (t / 2).log_softmax(-1)
    soft, hard = (log_p.exp() * (log_p - log_q)).sum(-1).mean(), F.cross_entropy(s, y)
"""
TESTS, MENDED, WRONG = {}, {}, {}

TESTS[3] = [
    (
        f"{ANY}    assert torch.isclose(f(s, t, y, 2.0, 0.25), 0.25 * 4 * soft + 0.75 * hard,"
        " atol=1e-3)"
    ),
    (
        "    s, t = torch.zeros(1, 3), torch.tensor([[9.0, 0.0, 0.0]])\n    wide = [F.pad(z, (0,"
        " 5), value=-30.0) for z in (s, t)]\n    y = torch.tensor([0])\n    assert abs(f(s, t, y,"
        " 1.0, 1.0) - f(*wide, y, 1.0, 1.0)) < 1e-3, 'classes without probability count'"
    ),
]
MENDED[3] = [
    (
        f"(s, t, y, T, alpha):\n    {LOGS}\n"
        f"    return alpha * T**2 * {KL}.mean() + (1 - alpha) * F.cross_entropy(s, y)"
    ),
    (
        "(s, t, y, T, alpha):\n    soft = F.kl_div((s / T).log_softmax(1), (t / T).softmax(1),"
        " reduction='sum')\n    return alpha * T * T * soft / s.shape[0] + (1 - alpha) *"
        " F.cross_entropy(s, y)"
    ),
]
WRONG[3] = (
    "    z = torch.randn(3, 4)\n    assert abs(f(z, z, torch.tensor([0, 1, 2]), 2.0, 1.0)) < 1e-4",
    f"{ANY}    assert torch.isclose(f(s, t, y, 2.0, 0.25), 0.25 * soft + 0.75 * hard, atol=1e-3)",
    changed(MENDED[3][1], "/ s.shape[0]", ""),
)

HOOK = """    student, teacher, modes = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), []
    student.register_forward_hook(
        lambda m, a, o: modes.append(m.training) if torch.is_grad_enabled() else None)
    f(student, teacher, torch.ones(4, 2), torch.zeros(4, dtype=torch.long), epochs=EPOCHS)
"""
LOOP = """(student, teacher, x, labels, epochs, batch=16, T=4.0, lr=0.1):
    optimiser, history = torch.optim.SGD(student.parameters(), lr), []
    teacher.eval()
    student.train()
    for _ in range(epochs):
        for part in x.split(batch):
            with torch.no_grad():
                p = (teacher(part) / T).softmax(-1)
            loss = T**2 * F.kl_div((student(part) / T).log_softmax(-1), p, reduction="batchmean")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        student.eval()
        with torch.no_grad():
            history.append((student(x).argmax(-1) == labels).float().mean().item())
        student.train()
    return history"""
TESTS[4] = [
    changed(f"{HOOK}    assert all(modes)", "EPOCHS", "2"),
    """    class Noted(torch.nn.Linear):
        modes = []
        def forward(self, x):
            if torch.is_grad_enabled():
                self.modes.append(self.training)
            return super().forward(x)
    x, labels = torch.ones(8, 3), torch.zeros(8, dtype=torch.long)
    f(Noted(3, 2), torch.nn.Linear(3, 2), x, labels, 4, batch=4)
    assert False not in Noted.modes""",
]
MENDED[4] = [
    LOOP,
    changed(
        changed(LOOP, "    student.train()\n    for _", "    for _"),
        "        for part",
        "        student.train(True)\n        for part",
    ),
]
WRONG[4] = (
    changed(f"{HOOK}    assert all(modes)", "EPOCHS", "1"),
    changed(f"{HOOK}    assert all(modes) and student.training", "EPOCHS", "2"),
    changed(LOOP, "        student.eval()\n", ""),
)

TESTS[5] = [
    """    rows = torch.randperm(30)
    for x, labels, logits in f(rows[:, None] * 1.0, rows, F.one_hot(rows), 7, 3):
        assert (logits.argmax(1) == labels).all()""",
    """    x, y, kept = torch.randn(9, 2), torch.arange(9), torch.randn(9, 3)
    for a, b, c in f(x, y, kept, 1, 0):
        assert torch.equal(kept[b], c)""",
]
MENDED[5] = [
    """(x, labels, kept, size, seed):
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, labels, kept = x[order], labels[order], kept[order]
    for i in range(0, len(x), size):
        yield x[i:i + size], labels[i:i + size], kept[i:i + size]""",
    """(x, labels, kept, size, seed):
    import random
    rows = list(range(len(x)))
    random.Random(seed).shuffle(rows)
    return [tuple(v[rows[i:i + size]] for v in (x, labels, kept))
            for i in range(0, len(rows), size)]""",
]
WRONG[5] = (
    (
        "    n = torch.arange(6)\n    for x, y, z in f(n[:, None], n, n[:, None], 4, 0):\n"
        "        assert torch.equal(x[:, 0], y)"
    ),
    (
        "    n = torch.arange(8)\n    order = torch.randperm(8,"
        " generator=torch.Generator().manual_seed(1))\n    assert torch.equal(next(iter(f(n[:,"
        " None], n, n[:, None], 8, 1)))[2][:, 0], order + 0 * n - 1)"
    ),
    """(x, labels, kept, size, seed):
    for i in range(0, len(x), size):
        yield x[i:i + size], labels[i:i + size], kept[i:i + size]""",
)

TESTS[6] = [
    f"""{ANY}    x = torch.arange(4)
    found = f(lambda x: s[x], lambda x: t[x], x, y, 2.0, 1.0)
    assert torch.isclose(found, 4 * soft, atol=1e-3)""",
    """    student, teacher, x = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4), torch.randn(6, 3)
    f(student, teacher, x, torch.zeros(6, dtype=torch.long), 2.0, 1.0).backward()
    assert student.weight.grad.abs().max() > 1e-4""",
]
MENDED[6] = [
    f"""(student, teacher, x, y, T, alpha):
    s, t = student(x), teacher(x).detach()
    {LOGS}
    return alpha * T**2 * {KL}.mean() + (1 - alpha) * F.cross_entropy(s, y)""",
    """(student, teacher, x, y, T, alpha):
    s = student(x)
    with torch.no_grad():
        p = torch.softmax(teacher(x) / T, dim=1)
    kl = torch.nn.KLDivLoss(reduction="batchmean")(torch.log_softmax(s / T, dim=1), p)
    return T**2 * alpha * kl + (1 - alpha) * torch.nn.CrossEntropyLoss()(s, y)""",
]
WRONG[6] = (
    f"""{ANY}    found = f(lambda x: s[x], lambda x: t[x], torch.arange(4), y, 2.0, 0.0)
    assert torch.isclose(found, hard, atol=1e-3)""",
    f"""{ANY}    found = f(lambda x: s[x], lambda x: t[x], torch.arange(4), y, 2.0, 1.0)
    assert torch.isclose(found, soft, atol=1e-3)""",
    changed(MENDED[6][0], "F.cross_entropy(s, y)", "F.cross_entropy(t, y)"),
)

TOKENS = (
    "    s, t, y = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.tensor([[1, 2, -100], [0,"
    " -100, -100]])\n"
)
TESTS[7] = [
    (
        f"{TOKENS}    before = f(s, t, y, 2.0, 1.0)\n    s[y == -100] += torch.randn(3, 4)\n"
        "    assert abs(f(s, t, y, 2.0, 1.0) - before) < 1e-3"
    ),
    (
        f"{TOKENS}    s.requires_grad_()\n    f(s, t, y, 3.0, 0.9).backward()\n"
        "    assert s.grad[y == -100].abs().max() < 1e-4"
    ),
]
MENDED[7] = [
    f"""(s, t, y, T, alpha):
    s, t, y = s[y != -100], t[y != -100], y[y != -100]
    {LOGS}
    return (alpha * T**2 * {KL} + (1 - alpha) * F.cross_entropy(s, y, reduction="none")).mean()""",
    f"""(s, t, y, T, alpha):
    {LOGS}
    soft = torch.where(y == -100, 0.0, {KL})
    hard = F.cross_entropy(s.transpose(1, 2), y, reduction="none", ignore_index=-100)
    return (alpha * T**2 * soft + (1 - alpha) * hard).sum() / (y >= 0).sum()""",
]
WRONG[7] = (
    (
        f"{TOKENS}    before = f(s, t, y, 2.0, 0.0)\n    s[y == -100] += torch.randn(3, 4)\n"
        "    assert abs(f(s, t, y, 2.0, 0.0) - before) < 1e-3"
    ),
    (
        f"{TOKENS}    {LOGS.replace('T', '2')}\n    expected = 4 * {KL}[y != -100].sum() /"
        " y.numel()\n    assert abs(f(s, t, y, 2.0, 1.0) - expected) < 1e-3"
    ),
    changed(MENDED[7][1], "(y >= 0).sum()", "y.numel()"),
)

BATCH = (
    "    s, t = torch.randn(2, 4, 3), torch.randn(2, 4, 3)\n"
    "    y = torch.tensor([[1, 2, 0, 1], [-100, 0, -100, -100]])\n"
)
TESTS[8] = [
    (
        f"{BATCH}    cut = [(s[:, :1], t[:, :1], y[:, :1]), (s[:, 1:], t[:, 1:], y[:, 1:])]\n"
        "    assert abs(f(cut, 2.0) - f([(s, t, y)], 2.0)) < 1e-3"
    ),
    (
        f"{BATCH}    y[1] = -100\n    parts = [(s[:1], t[:1], y[:1]), (s[1:], t[1:], y[1:])]\n   "
        " assert torch.isclose(f(parts, 1.0), f(parts[:1], 1.0), atol=1e-3), 'an empty part has a"
        " weight'"
    ),
]
MENDED[8] = [
    f"""(parts, T):
    s, t, y = (torch.cat([v.flatten(0, 1) for v in column]) for column in zip(*parts))
    {LOGS}
    return T**2 * {KL}[y != -100].mean()""",
    """(parts, T):
    sums = [F.kl_div((s / T).log_softmax(-1)[y >= 0], (t / T).softmax(-1)[y >= 0], reduction="sum")
            for s, t, y in parts]
    return T**2 * sum(sums) / sum((y >= 0).sum() for _, _, y in parts)""",
]
WRONG[8] = (
    (
        f"{BATCH}    y[:] = 0\n    assert abs(f([(s[:1], t[:1], y[:1]), (s[1:], t[1:], y[1:])],"
        " 2.0) - f([(s, t, y)], 2.0)) < 1e-3"
    ),
    (
        f"{BATCH}    one = f([(s[:1], t[:1], y[:1])], 2.0)\n    assert abs(f([(s, t, y)], 2.0) -"
        " one) < 1e-9"
    ),
    changed(MENDED[8][1], "T**2 * ", ""),
)

RULED = (
    "    s = torch.tensor([[2.0, -torch.inf, 1.0, 0.0]], requires_grad=True)\n"
    "    t = torch.tensor([[0.0, -torch.inf, 1.0, 3.0]])\n"
)
TESTS[9] = [
    f"{RULED}    f(s, t).backward()\n    assert not s.grad.isnan().any()",
    (
        f"{RULED}    gradient, = torch.autograd.grad(f(s, t), s)\n    assert gradient.sum().abs() <"
        " 1e-4"
    ),
]
MENDED[9] = [
    """(s, t):
    none = torch.isneginf(s)
    log_q, log_p = (torch.where(none, -1e6, z).log_softmax(-1) for z in (s, t))
    return (log_q.exp() * (log_q - log_p)).sum(-1).mean()""",
    """(s, t):
    log_q, log_p = s.log_softmax(-1), t.log_softmax(-1)
    gap = torch.where(log_q > -torch.inf, log_q - log_p, 0.0)
    return (log_q.exp() * gap).sum() / len(s)""",
]
WRONG[9] = (
    f"{RULED}    assert torch.isfinite(f(s, t))",
    f"{RULED}    assert f(s, t) < 0",
    changed(MENDED[9][0], "(log_q.exp() * (log_q - log_p))", "(log_p.exp() * (log_p - log_q))"),
)

WIDER = "    s, t = torch.randn(3, 4), torch.randn(3, 7)\n"
TESTS[10] = [
    f"{WIDER}    assert abs(f(s, t) - f(s, t[:, :4])) < 1e-4",
    f"{WIDER}    before = f(s, t)\n    t[:, 4:] += 2.0\n    assert abs(f(s, t) - before) < 1e-4",
]
MENDED[10] = [
    """(s, t):
    s, t = s[..., :t.shape[-1]], t[..., :s.shape[-1]]
    s, t = s.log_softmax(-1), t.log_softmax(-1)
    return F.kl_div(s, t, reduction="batchmean", log_target=True)""",
    """(s, t):
    both = range(min(s.shape[1], t.shape[1]))
    p, q = t[:, both].softmax(1), s[:, both].softmax(1)
    return (p * (p / q).log()).sum(1).mean()""",
]
WRONG[10] = (
    "    z = torch.randn(3, 4)\n    assert abs(f(z, z)) < 1e-4",
    f"{WIDER}    assert f(s, t) == f(t, s)",
    """(s, t):
    width = max(s.shape[1], t.shape[1])
    s, t = (F.pad(z, (0, width - z.shape[1]), value=-1e4) for z in (s, t))
    return F.kl_div(s.log_softmax(-1), t.softmax(-1), reduction="batchmean")""",
)

TESTS[11] = [
    (
        "    s, t = torch.tensor([[0.0, 0.0]]), torch.tensor([[8.0, 0.0]])\n"
        "    assert f(s, t, 1.0) < f(t, s, 1.0)"
    ),
    (
        "    s, t = torch.randn(5, 4), torch.randn(5, 4)\n    p, q = (t / 3).softmax(1), (s /"
        " 3).softmax(1)\n    assert torch.isclose(f(s, t, 3.0), 9 * (p * (p /"
        " q).log()).sum(1).mean(), atol=1e-4)"
    ),
]
MENDED[11] = [
    f"(s, t, T):\n    {LOGS}\n    return T**2 * {KL}.mean()",
    (
        "(student_logits, teacher_logits, T):\n    answers = F.log_softmax(student_logits / T,"
        " dim=1)\n    return F.kl_div(answers, F.softmax(teacher_logits / T, dim=1),"
        " reduction='batchmean') * T * T"
    ),
]
WRONG[11] = (
    (
        "    s, t = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])\n"
        "    assert f(s, t, 1.0) > 0 and abs(f(s, s, 2.0)) < 1e-4"
    ),
    (
        "    s, t = torch.tensor([[0.0, 0.0]]), torch.tensor([[8.0, 0.0]])\n"
        "    assert f(s, t, 1.0) > f(t, s, 1.0)"
    ),
    changed(MENDED[11][0], "T**2 * ", ""),
)

PAIR = (
    "    student, teacher = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)\n    x = torch.randn(4,"
    " 3)\n"
)
STEP = """(student, teacher, x, T, optimiser):
    student.train(), teacher.eval()
    t, s = teacher(x).detach(), student(x)
    loss = T**2 * F.kl_div((s / T).log_softmax(-1), (t / T).softmax(-1), reduction="batchmean")
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()"""
TESTS[12] = [
    f"""{PAIR}    before = teacher.weight.detach().clone()
    both = [*student.parameters(), *teacher.parameters()]
    f(student, teacher, x, 2.0, torch.optim.SGD(both, lr=1.0))
    assert torch.equal(before, teacher.weight)""",
    f"""{PAIR}    f(student, teacher, x, 1.0, torch.optim.Adam(student.parameters()))
    assert teacher.bias.grad is None""",
]
MENDED[12] = [
    STEP,
    changed(
        changed(
            STEP,
            "    t, s = teacher(x).detach(), student(x)",
            "    with torch.inference_mode():\n        t = teacher(x)\n    s = student(x)",
        ),
        "(t / T)",
        "(t.clone() / T)",
    ),
]
WRONG[12] = (
    f"""{PAIR}    before = teacher.weight.detach().clone()
    f(student, teacher, x, 2.0, torch.optim.SGD(student.parameters(), lr=1.0))
    assert torch.equal(before, teacher.weight)""",
    f"""{PAIR}    f(student, teacher, x, 2.0, torch.optim.SGD(student.parameters(), lr=1.0))
    assert all(not weight.requires_grad for weight in teacher.parameters())""",
    changed(STEP, "    optimiser.step()\n", ""),
)
