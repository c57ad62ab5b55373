"""Homework 3: right answers written in other ways, and wrong ones with the checks that each must
fail."""


def changed(answer, old, new):
    """The answer with one thing changed."""
    assert old in answer, old
    return answer.replace(old, new)


HINT = """
def make_projector(student_channels, teacher_channels):
    return nn.Conv2d(student_channels, teacher_channels, 1)


def hint_loss(student_layer, teacher_layer, projector):
    return F.mse_loss(projector(student_layer), teacher_layer.detach())
"""
ATTENTION = """
def attention_transfer(student_layer, teacher_layer):
    q = [layer.square().sum(1).flatten(1) for layer in (student_layer, teacher_layer)]
    s, t = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) for x in q)
    return (s - t).square().mean()
"""
SIMILARITY = """
def similarity_loss(student_layer, teacher_layer):
    maps = [q.flatten(1) @ q.flatten(1).T for q in (student_layer, teacher_layer)]
    s, t = (F.normalize(g, dim=1) for g in maps)
    return (s - t).square().sum() / len(s) ** 2
"""
CKA = """
def cka(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
"""
CHOOSE = """
def choose(student_layers, teacher_layers, measure):
    best, found = -float("inf"), None
    for s, mine in student_layers.items():
        for t, theirs in teacher_layers.items():
            if measure(mine, theirs) > best:
                best, found = measure(mine, theirs), (s, t)
    return found
"""
MEASURE = """
from scipy import stats


def prediction():
    return "early"


def gains(runs, layer):
    found = []
    for task in tasks:
        x = task.validation.x
        there = kd.outputs.hidden(teachers.module_of_unit(task), x, [layer])[layer]
        here = kd.outputs.hidden(runs.module(unit=task.unit, seed=0), x, [layer])[layer]
        before = kd.outputs.hidden(plain.module(unit=task.unit, seed=0), x, [layer])[layer]
        found.append(float(kd.cka(here, there) - kd.cka(before, there)))
    return found


def conclusion(of_late, of_early):
    result = stats.ttest_rel(of_late, of_early)
    low, high = result.confidence_interval(0.95)
    return "late" if low > 0 else "early" if high < 0 else "cannot tell"


def finding():
    return conclusion(gains(late, "6"), gains(early, "2"))
"""
ALTERNATIVES = {
    "hw3-q1": [
        """
class PixelMap(nn.Module):
    def __init__(self, student_channels, teacher_channels):
        super().__init__()
        self.mix = nn.Linear(student_channels, teacher_channels)

    def forward(self, layer):
        return self.mix(layer.movedim(1, -1)).movedim(-1, 1)


make_projector = PixelMap


def hint_loss(student_layer, teacher_layer, projector):
    difference = projector(student_layer) - teacher_layer.data
    return (difference * difference).sum() / difference.numel()
""",
        changed(HINT, "teacher_layer.detach()", "torch.as_tensor(teacher_layer.detach().clone())"),
    ],
    "hw3-q2": [
        ATTENTION,
        """
def attention_transfer(student_layer, teacher_layer):
    def look(layer):
        q = torch.einsum("bchw,bchw->bhw", layer, layer)
        size = (q * q).sum((1, 2), keepdim=True)
        return q / torch.where(size > 0, size, 1.0).sqrt()
    return F.mse_loss(look(student_layer), look(teacher_layer))
""",
    ],
    "hw3-q3": [
        SIMILARITY,
        """
def similarity_loss(student_layer, teacher_layer):
    B, terms = len(student_layer), []
    for i in range(B):
        rows = [(q.reshape(B, -1) @ q[i].reshape(-1)) for q in (student_layer, teacher_layer)]
        a, b = (row / row.pow(2).sum().sqrt() for row in rows)
        terms.append(((a - b) ** 2).mean())
    return torch.stack(terms).mean()
""",
    ],
    "hw3-q4": [
        """
def cka(x, y):
    n = len(x)
    H = torch.eye(n) - torch.ones(n, n) / n
    K, L = H @ x @ x.T @ H, H @ y @ y.T @ H
    return (K * L).sum() / ((K * K).sum() * (L * L).sum()).sqrt()
""",
        """
def cka(x, y):
    x, y = (torch.as_tensor(z, dtype=torch.float64) for z in (x, y))
    c = torch.cov(torch.cat([x, y], 1).T)
    d = x.shape[1]
    own = c[:d, :d].square().sum() * c[d:, d:].square().sum()
    return float(c[:d, d:].square().sum() / torch.sqrt(own))
""",
    ],
    "hw3-q5": [
        CHOOSE,
        """
import itertools


def choose(student_layers, teacher_layers, measure):
    scores = {(s, t): -float(measure(student_layers[s], teacher_layers[t]))
              for s, t in itertools.product(student_layers, teacher_layers)}
    return sorted(scores, key=scores.get)[0]
""",
    ],
    "hw3-q6": [
        MEASURE,
        """
import pandas as pd


def prediction():
    return "late"


def gains(runs, layer):
    def alike(of, task):
        here, there = of.module(unit=task.unit, seed=0).eval(), teachers.module_of_unit(task).eval()
        with kd.tap(here, layer) as mine, kd.tap(there, layer) as theirs, torch.no_grad():
            here(task.validation.x), there(task.validation.x)
        return kd.cka(mine[layer], theirs[layer]).item()

    return pd.Series({task.unit: alike(runs, task) - alike(plain, task) for task in tasks}).tolist()


def conclusion(of_late, of_early):
    gap = kd.Estimate(pd.Series(list(of_late)) - pd.Series(list(of_early)), "late − early")
    return {"helps": "late", "hurts": "early"}.get(gap.verdict(), "cannot tell")


def finding():
    return conclusion(gains(late, "6"), gains(early, "2"))
""",
    ],
}
MUTANTS = [
    (
        "hw3-q1",
        "a projector that mixes pixels",
        changed(HINT, "teacher_channels, 1)", "teacher_channels, 3, padding=1)"),
        {"hw3-q1-projector"},
    ),
    (
        "hw3-q1",
        "a sum, which grows with the layer",
        changed(HINT, "teacher_layer.detach()", "teacher_layer.detach(), reduction='sum'"),
        {"hw3-q1-value"},
    ),
    ("hw3-q1", "not squared", changed(HINT, "mse_loss", "l1_loss"), {"hw3-q1-value"}),
    (
        "hw3-q1",
        "the student detached",
        changed(HINT, "projector(student_layer)", "projector(student_layer.detach())"),
        {"hw3-q1-learns"},
    ),
    (
        "hw3-q1",
        "the projector frozen",
        changed(
            HINT,
            "projector(student_layer)",
            "(projector(student_layer).detach() + 0 * student_layer.sum() "
            "+ (student_layer - student_layer.detach()).mean())",
        ),
        {"hw3-q1-learns"},
    ),
    ("hw3-q1", "the teacher moves too (KD_Lib)", changed(HINT, ".detach()", ""), {"hw3-q1-frozen"}),
    (
        "hw3-q1",
        "kdlab's own",
        (
            "make_projector = features.projector\nhint_loss = lambda s, t, r:"
            " features.fitnets(r(s), t)"
        ),
        {"hw3-q1-projector", "hw3-q1-value", "hw3-q1-learns", "hw3-q1-frozen"},
    ),
    (
        "hw3-q2",
        "a sum over pixels",
        changed(ATTENTION, ".mean()", ".sum(1).mean()"),
        {"hw3-q2-value"},
    ),
    (
        "hw3-q2",
        "the distance of the paper, not of the code",
        changed(ATTENTION, "(s - t).square().mean()", "(s - t).norm(dim=1).mean()"),
        {"hw3-q2-value"},
    ),
    (
        "hw3-q2",
        "maps not normalised",
        changed(ATTENTION, "x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)", "x"),
        {"hw3-q2-scale"},
    ),
    (
        "hw3-q2",
        "one length for the batch",
        changed(ATTENTION, "x.norm(dim=1, keepdim=True)", "x.norm()"),
        {"hw3-q2-value", "hw3-q2-scale"},
    ),
    (
        "hw3-q2",
        "absolute values",
        changed(ATTENTION, ".square().sum(1)", ".abs().sum(1)"),
        {"hw3-q2-square"},
    ),
    (
        "hw3-q2",
        "added before they are squared",
        changed(ATTENTION, ".square().sum(1)", ".sum(1).square()"),
        {"hw3-q2-square"},
    ),
    (
        "hw3-q2",
        "0 / 0 for an empty map",
        changed(ATTENTION, ".clamp_min(1e-12)", ""),
        {"hw3-q2-empty"},
    ),
    (
        "hw3-q2",
        "kdlab's own",
        (
            "def attention_transfer(s, t):\n    return features.attention_transfer(s, t,"
            " variant='code')"
        ),
        {f"hw3-q2-{check}" for check in ("value", "scale", "square", "empty")},
    ),
    (
        "hw3-q3",
        "cosines of the images",
        changed(
            changed(SIMILARITY, "F.normalize(g, dim=1)", "g"),
            "q.flatten(1) @ q.flatten(1).T",
            "F.normalize(q.flatten(1), dim=1) @ F.normalize(q.flatten(1), dim=1).T",
        ),
        {"hw3-q3-rows", "hw3-q3-size"},
    ),
    (
        "hw3-q3",
        "cosines of the images, divided by B³",
        changed(
            changed(
                changed(SIMILARITY, "F.normalize(g, dim=1)", "g"),
                "q.flatten(1) @ q.flatten(1).T",
                "F.normalize(q.flatten(1), dim=1) @ F.normalize(q.flatten(1), dim=1).T",
            ),
            "** 2",
            "** 3",
        ),
        {"hw3-q3-rows"},
    ),
    (
        "hw3-q3",
        "rows not normalised",
        changed(SIMILARITY, "F.normalize(g, dim=1)", "g"),
        {"hw3-q3-rows", "hw3-q3-size"},
    ),
    ("hw3-q3", "divided by B", changed(SIMILARITY, "** 2", ""), {"hw3-q3-size"}),
    ("hw3-q3", "not divided", changed(SIMILARITY, "/ len(s) ** 2", ""), {"hw3-q3-size"}),
    (
        "hw3-q3",
        "pixels averaged away",
        changed(
            SIMILARITY,
            "in (student_layer, teacher_layer)]",
            "in (x.flatten(2).mean(2) if x.ndim > 2 else x "
            "for x in (student_layer, teacher_layer))]",
        ),
        {"hw3-q3-shapes"},
    ),
    (
        "hw3-q4",
        "the cross term not squared",
        changed(CKA, ".norm() ** 2", ".norm()"),
        {"hw3-q4-value", "hw3-q4-scale"},
    ),
    (
        "hw3-q4",
        "its square root",
        changed(
            changed(CKA, "return (y.T @ x)", "return ((y.T @ x)"), "norm())\n", "norm())) ** 0.5\n"
        ),
        {"hw3-q4-value"},
    ),
    (
        "hw3-q4",
        "not centred",
        changed(CKA, "x, y = x - x.mean(0), y - y.mean(0)\n    ", ""),
        {"hw3-q4-shift"},
    ),
    ("hw3-q4", "one mean of all numbers", changed(CKA, ".mean(0)", ".mean()"), {"hw3-q4-shift"}),
    (
        "hw3-q4",
        "divided by one size only",
        changed(CKA, "(y.T @ y).norm()", "(x.T @ x).norm()"),
        {"hw3-q4-scale"},
    ),
    (
        "hw3-q4",
        "column against column",
        """
def cka(x, y):
    x, y = (F.normalize(z - z.mean(0), dim=0)[:, :min(x.shape[1], y.shape[1])] for z in (x, y))
    return (x * y).sum(0).square().mean()
""",
        {"hw3-q4-turn"},
    ),
    (
        "hw3-q4",
        "every direction weighs the same (canonical correlations)",
        """
def cka(x, y):
    qx, qy = (torch.linalg.qr(z - z.mean(0))[0] for z in (x, y))
    return (qy.T @ qx).norm() ** 2 / min(x.shape[1], y.shape[1])
""",
        {"hw3-q4-turn"},
    ),
    (
        "hw3-q5",
        "the least alike",
        changed(changed(CHOOSE, "> best", "< best"), "-float", "float"),
        {"hw3-q5-pair", "hw3-q5-measure"},
    ),
    (
        "hw3-q5",
        "only layers of the same place",
        """
def choose(student_layers, teacher_layers, measure):
    pairs = list(zip(student_layers, teacher_layers))
    return max(pairs, key=lambda p: float(measure(student_layers[p[0]], teacher_layers[p[1]])))
""",
        {"hw3-q5-pair"},
    ),
    (
        "hw3-q5",
        "a measure of its own",
        changed(CHOOSE, "measure(mine", "kd.cka(mine"),
        {"hw3-q5-measure"},
    ),
    (
        "hw3-q5",
        "the teacher's layer first",
        changed(CHOOSE, "(mine, theirs)", "(theirs, mine)"),
        {"hw3-q5-measure"},
    ),
    ("hw3-q5", "the last of a tie", changed(CHOOSE, "> best", ">= best"), {"hw3-q5-measure"}),
    (
        "hw3-q6",
        "measured on the images it learnt from",
        changed(MEASURE, "task.validation.x", "task.train.x"),
        {"hw3-q6-gains"},
    ),
    (
        "hw3-q6",
        "one layer for another",
        changed(
            MEASURE, "    found = []", "    layer = '6' if layer == '4' else layer\n    found = []"
        ),
        {"hw3-q6-gains"},
    ),
    (
        "hw3-q6",
        "another split's teacher",
        changed(MEASURE, "module_of_unit(task)", "module_of_unit(tasks[0])"),
        {"hw3-q6-gains"},
    ),
    (
        "hw3-q6",
        "made up",
        changed(
            changed(MEASURE, "    found = []", "    return [0.1 * (runs is not plain)] * 8"),
            'return conclusion(gains(late, "6"), gains(early, "2"))',
            "return 'cannot tell'",
        ),
        {"hw3-q6-gains"},
    ),
    (
        "hw3-q6",
        "splits not paired",
        changed(MEASURE, "ttest_rel", "ttest_ind"),
        {"hw3-q6-conclusion"},
    ),
    (
        "hw3-q6",
        "the mean alone",
        changed(
            MEASURE,
            "low, high = result.confidence_interval(0.95)",
            "low = high = sum(of_late) - sum(of_early)",
        ),
        {"hw3-q6-conclusion"},
    ),
    (
        "hw3-q6",
        "the normal quantile",
        """
import numpy as np
"""
        + changed(
            MEASURE,
            "result = stats.ttest_rel(of_late, of_early)\n    low, high ="
            " result.confidence_interval(0.95)",
            "gap = np.array(of_late) - np.array(of_early)\n    half = 1.96 * gap.std(ddof=1) /"
            " len(gap) ** 0.5\n    low, high = gap.mean() - half, gap.mean() + half",
        ),
        {"hw3-q6-conclusion"},
    ),
    (
        "hw3-q6",
        "a finding against the measurement",
        changed(
            MEASURE,
            'return conclusion(gains(late, "6"), gains(early, "2"))',
            'return "early" if sum(gains(late, "6")) > sum(gains(early, "2")) else "late"',
        ),
        {"hw3-q6-finding"},
    ),
    (
        "hw3-q6",
        "no prediction",
        changed(MEASURE, 'return "early"\n\n', 'return "cannot tell"\n\n'),
        {"hw3-q6-finding"},
    ),
]
