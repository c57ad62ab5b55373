"""Homework 2: right answers written in other ways, and wrong ones with the checks that each must
fail.

An item's answer is a test and a mended function: they are in hw2_items.py.
"""

from hw2_items import MENDED, TESTS, WRONG, changed

ROWS = """
def kd_rows(student_logits, teacher_logits, labels, T, alpha):
    s, t = student_logits.float(), teacher_logits.float()
    log_q, log_p = F.log_softmax(s / T, -1), F.log_softmax(t / T, -1)
    soft = (log_p.exp() * (log_p - log_q)).sum(-1)
    hard = F.cross_entropy(s, labels, reduction="none")
    return alpha * T**2 * soft + (1 - alpha) * hard
"""
LOSS = """
def kd_loss(student_logits, teacher_logits, labels, T, alpha):
    counts = labels != -100
    s, t = (torch.where(counts[..., None], z, 0.0).clamp_min(-1e30)
            for z in (student_logits, teacher_logits))
    rows = rows_of(s, t, labels, T, alpha)
    return torch.where(counts, rows, 0.0).sum() / counts.sum().clamp_min(1)
"""


ALTERNATIVES = {
    "hw2-q1": [
        """
def kd_rows(student_logits, teacher_logits, labels, T, alpha):
    s, t = student_logits.to(torch.float64), teacher_logits.to(torch.float64)
    log_q, log_p = (s / T).log_softmax(1), (t / T).log_softmax(1)
    soft = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    hard = s.logsumexp(1) - s[torch.arange(len(s)), labels]
    return (alpha * T * T * soft + (1 - alpha) * hard).float()
""",
        """
def kd_rows(student_logits, teacher_logits, labels, T, alpha):
    def logs(z, T):
        z = z.float() / T
        z = z - z.max(-1, keepdim=True).values
        return z - z.exp().sum(-1, keepdim=True).log()
    p = logs(teacher_logits, T).exp()
    divergence = torch.xlogy(p, p).sum(-1) - (p * logs(student_logits, T)).sum(-1)
    log_label = torch.stack([row[y] for row, y in zip(logs(student_logits, 1), labels)])
    return torch.lerp(-log_label, T**2 * divergence, alpha)
""",
    ],
    "hw2-q2": [
        """
def kd_loss(student_logits, teacher_logits, labels, T, alpha):
    counts = labels != -100
    s, t = (torch.nan_to_num(z[counts], neginf=-1e20) for z in (student_logits, teacher_logits))
    return rows_of(s, t, labels[counts], T, alpha).sum() / max(1, int(counts.sum()))
""",
        """
def kd_loss(student_logits, teacher_logits, labels, T, alpha):
    C = student_logits.shape[-1]
    s, t, y = student_logits.reshape(-1, C), teacher_logits.reshape(-1, C), labels.reshape(-1)
    rows = (y != -100).nonzero()[:, 0]
    if not len(rows):
        return 0.0 * s[rows].sum()
    s, t = (z[rows].masked_fill(torch.isneginf(z[rows]), -1e9) for z in (s, t))
    return rows_of(s, t, y[rows], T, alpha).mean()
""",
    ],
}
MUTANTS = [
    (
        "hw2-q1",
        "cross-entropy called KL (torchtune, an early PyTorch tutorial)",
        changed(ROWS, "(log_p - log_q)", "(-log_q)"),
        {"hw2-q1-zero", "hw2-q1-soft", "hw2-q1-scale"},
    ),
    (
        "hw2-q1",
        "probabilities first, then their logarithm",
        changed(
            ROWS,
            "F.log_softmax(s / T, -1), F.log_softmax(t / T, -1)",
            "F.softmax(s / T, -1).log(), F.softmax(t / T, -1).log()",
        ),
        {"hw2-q1-zero"},
    ),
    (
        "hw2-q1",
        "probabilities where kl_div wants their logarithm (ProDA 20)",
        changed(ROWS, "(log_p.exp() * (log_p - log_q))", "(log_p.exp() * (log_p - log_q.exp()))"),
        {"hw2-q1-zero", "hw2-q1-soft", "hw2-q1-scale"},
    ),
    (
        "hw2-q1",
        "the other direction (an early Keras example)",
        changed(ROWS, "(log_p.exp() * (log_p - log_q))", "(log_q.exp() * (log_q - log_p))"),
        {"hw2-q1-soft"},
    ),
    (
        "hw2-q1",
        "divided by the classes too (haitongli 2)",
        changed(ROWS, ".sum(-1)", ".mean(-1)"),
        {"hw2-q1-soft"},
    ),
    ("hw2-q1", "no T² (TRL, Liger, distiller 122)", changed(ROWS, " * T**2", ""), {"hw2-q1-scale"}),
    ("hw2-q1", "T for T²", changed(ROWS, "T**2", "T"), {"hw2-q1-scale"}),
    (
        "hw2-q1",
        "T² on both terms",
        changed(
            ROWS,
            "alpha * T**2 * soft + (1 - alpha) * hard",
            "T**2 * (alpha * soft + (1 - alpha) * hard)",
        ),
        {"hw2-q1-hard"},
    ),
    (
        "hw2-q1",
        "the label sees softened logits",
        changed(ROWS, "cross_entropy(s, ", "cross_entropy(s / T, "),
        {"hw2-q1-hard"},
    ),
    (
        "hw2-q1",
        "T² on the wrong term",
        changed(ROWS, "T**2 * soft + (1 - alpha) * hard", "soft + (1 - alpha) * T**2 * hard"),
        {"hw2-q1-scale", "hw2-q1-hard"},
    ),
    (
        "hw2-q1",
        "alpha weighs the labels",
        changed(
            ROWS,
            "alpha * T**2 * soft + (1 - alpha) * hard",
            "(1 - alpha) * T**2 * soft + alpha * hard",
        ),
        {"hw2-q1-zero", "hw2-q1-soft", "hw2-q1-hard"},
    ),
    (
        "hw2-q1",
        "labels never lose weight",
        changed(ROWS, "(1 - alpha) * hard", "hard"),
        {"hw2-q1-zero", "hw2-q1-soft"},
    ),
    (
        "hw2-q1",
        "alpha applied twice",
        changed(ROWS, "alpha * T**2 * soft", "alpha * T**2 * alpha * soft"),
        {"hw2-q1-mix"},
    ),
    ("hw2-q1", "computed in what comes in", changed(ROWS, ".float()", ""), {"hw2-q1-precision"}),
    (
        "hw2-q1",
        "float32 only at the end",
        changed(changed(ROWS, ".float()", ""), "(1 - alpha) * hard", "(1 - alpha) * hard.float()"),
        {"hw2-q1-precision"},
    ),
    (
        "hw2-q1",
        "one number for the batch",
        changed(ROWS, "* hard\n", "* hard.mean()\n"),
        {"hw2-q1-hard"},
    ),
    (
        "hw2-q1",
        "kdlab's own loss",
        """
def kd_rows(student_logits, teacher_logits, labels, T, alpha):
    return kd.KDLoss(T, alpha)(student_logits, teacher_logits, labels, reduction="rows")
""",
        {f"hw2-q1-{check}" for check in ("zero", "soft", "scale", "hard", "mix", "precision")},
    ),
    (
        "hw2-q2",
        "divided by all rows",
        changed(LOSS, "counts.sum().clamp_min(1)", "counts.numel()"),
        {"hw2-q2-count"},
    ),
    (
        "hw2-q2",
        "rows that don't count leak in (Liger 974)",
        changed(
            LOSS,
            "torch.where(counts, rows, 0.0).sum()",
            "rows_of(student_logits.nan_to_num(0.0, 0.0, -1e30), "
            "teacher_logits.nan_to_num(0.0, 0.0, -1e30), labels, T, alpha).sum()",
        ),
        {"hw2-q2-count", "hw2-q2-none", "hw2-q2-junk"},
    ),
    (
        "hw2-q2",
        "each sentence weighs the same",
        changed(
            LOSS,
            "torch.where(counts, rows, 0.0).sum() / counts.sum().clamp_min(1)",
            "(torch.where(counts, rows, 0.0).sum(-1) / counts.sum(-1).clamp_min(1)).mean()",
        ),
        {"hw2-q2-axes"},
    ),
    (
        "hw2-q2",
        "the mean of nothing",
        changed(
            LOSS,
            "torch.where(counts, rows, 0.0).sum() / counts.sum().clamp_min(1)",
            "rows[counts].mean()",
        ),
        {"hw2-q2-none"},
    ),
    (
        "hw2-q2",
        "masked by multiplying",
        changed(
            changed(LOSS, "torch.where(counts[..., None], z, 0.0)", "z"),
            "torch.where(counts, rows, 0.0)",
            "(rows * counts)",
        ),
        {"hw2-q2-junk"},
    ),
    (
        "hw2-q2",
        "masked after the loss only",
        changed(LOSS, "torch.where(counts[..., None], z, 0.0)", "z"),
        {"hw2-q2-junk"},
    ),
    ("hw2-q2", "−inf goes in (TRL 5594)", changed(LOSS, ".clamp_min(-1e30)", ""), {"hw2-q2-ruled"}),
    (
        "hw2-q2",
        "NaN swept away at the end",
        changed(
            changed(LOSS, ".clamp_min(-1e30)", ""),
            "torch.where(counts, rows, 0.0)",
            "rows.nan_to_num(0.0)",
        ),
        {"hw2-q2-ruled"},
    ),
]


def answer(k, test, mended):
    """The whole code of an item's solution cell."""
    return f"def test_q{k}(f):\n{test}\n\n\ndef mended_q{k}{mended}\n"


for k in range(3, 13):
    checks = ["bonus-a", "bonus-a", "bonus-b"] if k > 8 else ["a", "b", "c"]
    ALTERNATIVES[f"hw2-q{k}"] = [answer(k, *pair) for pair in zip(TESTS[k], MENDED[k], strict=True)]
    (weak, strict, unmended), test, mended = WRONG[k], TESTS[k][0], MENDED[k][0]
    for what, code, check in [
        ("a test that passes the bug", answer(k, weak, mended), checks[0]),
        ("a test that stops at what is right", answer(k, strict, mended), checks[1]),
        ("mended in one way, broken in another", answer(k, test, unmended), checks[2]),
    ]:
        MUTANTS.append((f"hw2-q{k}", what, code, {f"hw2-q{k}-{check}"}))
