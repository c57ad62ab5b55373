"""An explorer for choosing: accuracy, bytes and latency by size, and what a budget buys."""

import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kdlab.base.arguments import instance
from kdlab.base.lab import threads_for
from kdlab.base.wrapped import evaluating
from kdlab.data.tasks import load, splits
from kdlab.evidence.intervals import Estimate
from kdlab.evidence.metrics import parameters
from kdlab.show.colours import GREY, INK, LIGHT, MUTED, PALE
from kdlab.show.explorer import HEIGHT, Explorer, choice, on_stage, slider
from kdlab.show.plots import Picture
from kdlab.show.sheet import BOLD, EDGE, ROLES, panel, sheet
from kdlab.students.builders import convnet, mlp
from kdlab.training.runs import Runs
from kdlab.training.sweep import distill, train

BEST, SMALLEST = "the most accurate", "the smallest not surely worse"
ANY = 1000  # per cent of the teacher's latency: no budget
SIZES = (1000, 437, 360)  # of the digits; multiples that every split shares
TEACHER = "the teacher"
MEASURED = Path(__file__).parent / "student_choice.csv"  # by `distilled_sizes`
BUILDERS = {TEACHER: convnet(16, 32, dropout=0.5)} | {
    s.__name__: s for s in [*(mlp(w) for w in (8, 16, 32, 64, 128)), convnet(2, 4), convnet(4, 8)]
}


def latency_ratios(models, reference, x, blocks=8, calls=30):
    """How long each model takes for x, as a share of the reference: {name: Estimate}.

    All in one process, by turns.

    models: {name: module}; x (1, …): one input; blocks: repeats of the whole round, the units of
    the interval.

    >>> import torch
    >>> layer = torch.nn.Linear(4, 2)
    >>> found = latency_ratios({"same": layer}, layer, torch.zeros(1, 4))
    >>> len(found["same"].values)
    8
    """
    rounds = {name: [] for name in models}

    def seconds(model):
        took = []
        for _ in range(calls):
            began = time.perf_counter()
            model(x)
            took.append(time.perf_counter() - began)
        return statistics.median(took)

    with ExitStack() as modes, threads_for(reference):
        for model in [reference, *models.values()]:
            modes.enter_context(evaluating(model))
            model(x)  # the first call pays for what later ones find ready
        for _ in range(blocks):
            whole = seconds(reference)
            for name, model in models.items():
                rounds[name].append(100 * seconds(model) / whole)
    return {
        name: Estimate(pd.Series(values), "latency", "%", 0, "repeats on this machine")
        for name, values in rounds.items()
    }


def pick(accuracy, size, latency, size_budget, latency_budget, rule=BEST):
    """The name that a budget buys and the names that fit: (name or None, names).

    accuracy, latency: {name: Estimate}; size: {name: number}. rule: `BEST` takes the largest mean;
    `SMALLEST` the smallest whose paired difference to that one is not surely below zero.

    >>> four = {"a": pd.Series([1.0, 1.0, 1.0, 2.0]), "b": pd.Series([9.0, 9.0, 9.0, 10.0])}
    >>> e = {name: Estimate(values, "accuracy", "%") for name, values in four.items()}
    >>> pick(e, {"a": 1, "b": 2}, e, size_budget=2, latency_budget=100)
    ('b', ['a', 'b'])
    >>> pick(e, {"a": 1, "b": 2}, e, size_budget=1, latency_budget=100)
    ('a', ['a'])
    """
    fits = [n for n in accuracy if size[n] <= size_budget and latency[n].mean <= latency_budget]
    if not fits:
        return None, fits
    best = max(fits, key=lambda n: accuracy[n].mean)
    if rule == SMALLEST:
        equal = [
            n for n in fits if n == best or (accuracy[n] - accuracy[best]).verdict(0) != "hurts"
        ]
        return min(equal, key=lambda n: size[n]), fits
    return best, fits


def choose_student_explorer(runs: Any = None, teachers: Any = None) -> Explorer:
    """Students by accuracy, bytes and latency, and what a budget buys → `Explorer`.

    runs: {name: Runs} with one run a split, and teachers: Runs of the same splits, with which
    latency is compared; where they are missing, seven sizes that were distilled on the digits
    beforehand (`distilled_sizes`), with latencies of this machine. Students that diverged are named
    in the text and never picked.

    >>> from kdlab import convnet, mlp, splits, train
    >>> tasks = splits("digits", 4)
    >>> sizes = {f"mlp {w}": train(mlp(w), tasks, epochs=1) for w in (4, 16)}
    >>> explorer = choose_student_explorer(sizes, train(mlp(64), tasks, epochs=1))
    >>> explorer.move(rule=SMALLEST).answer["error"]
    ''
    """
    accuracy, modules, x, fallen = _beforehand() if runs is None else _of_runs(runs, teachers)
    size = {name: 4 * parameters(m) / 1000 for name, m in modules.items()}
    latency = latency_ratios(modules, modules[TEACHER], x)
    students = Students(accuracy, size, latency)

    def draw(kilobytes, share, rule):
        name, fits = pick(accuracy, size, latency, kilobytes, share, rule)
        picture, lines = _trade_off(students, Choice(kilobytes, share, rule, fits, name))
        return picture, lines + fallen

    return Explorer("Choose a student", _budgets(max(size.values())), draw)


def distilled_sizes(count=6, epochs=25):
    """The table behind the explorer: a teacher and seven students distilled on the digits.

    A row each of every split, with its accuracy; `python tools/demos.py --measure` writes it.

    >>> distilled_sizes(count=1, epochs=1).columns.tolist()
    ['student', 'unit', 'accuracy']
    """
    tasks = splits("digits", count, sizes=SIZES)
    teachers = train(BUILDERS[TEACHER], tasks, epochs=12, batch=64)
    frames = [teachers.last().assign(student=TEACHER)]
    for name, student in BUILDERS.items():
        if name != TEACHER:
            runs = distill(student, teachers, tasks, epochs=epochs, batch=64)
            frames.append(runs.last().assign(student=name))
    return pd.concat(frames)[["student", "unit", "accuracy"]].reset_index(drop=True)


def _beforehand():
    """Accuracies from the table; new networks of the same shapes, which take as long to answer."""
    found = pd.read_csv(MEASURED)
    accuracy = {
        name: Estimate(100 * rows.set_index("unit")["accuracy"], "accuracy", "%")
        for name, rows in found.groupby("student")
    }
    task = load("digits", sizes=SIZES)
    return accuracy, {n: b(task) for n, b in BUILDERS.items()}, task.validation.x[:1], []


def _of_runs(runs, teachers):
    """Estimates and modules by name, one input, and words on who diverged."""
    named = isinstance(runs, dict) and runs and all(isinstance(r, Runs) for r in runs.values())
    if not named:
        raise TypeError(
            "choose_student_explorer: runs must be a dictionary {name: Runs}, got"
            f" {type(runs).__name__}"
        )
    instance("choose_student_explorer", "teachers", teachers, Runs, "Runs, of the same splits")
    task = next(iter(runs.values())).tasks[teachers.frame["unit"].iloc[0]]
    everyone = runs | {TEACHER: teachers}
    fallen = [
        f"{name}: diverged in {', '.join(gone.values())} runs, "
        "so it has no accuracy and is left out."
        for name, r in everyone.items()
        if (gone := r.diverged())
    ]
    accuracy = {name: r.estimate() for name, r in everyone.items() if not r.diverged()}
    if not accuracy:
        raise ValueError(
            "choose_student_explorer: runs must hold a student to choose; " + " ".join(fallen)
        )
    modules = {name: r.module_of_unit(task) for name, r in everyone.items()}
    return accuracy, modules, task.validation.x[:1], fallen


def _budgets(largest):
    """The handles: kilobytes up to the largest student, per cent of the teacher's latency, rule."""
    steps = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
    steps = [s for s in steps if s < largest] + [float(round(largest + 1))]
    shares = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 150, ANY]
    start = min(steps, key=lambda s: abs(s - 20))
    of_teacher = [f"{s} % of the teacher's" for s in shares[:-1]] + ["any"]
    return [
        slider("kilobytes", "Budget: size", steps, start, [f"{s:g} kB" for s in steps]),
        slider("share", "Budget: latency", shares, ANY, of_teacher),
        choice("rule", "Pick", [BEST, SMALLEST]),
    ]


@dataclass(frozen=True)
class Students:
    """What there is to choose from, by name: accuracy and latency as estimates, size in kB."""

    accuracy: dict[str, Estimate]
    size: dict[str, float]
    latency: dict[str, Estimate]


@dataclass(frozen=True)
class Choice:
    """A budget (kB, per cent of the teacher's latency), what fits into it, and what was picked."""

    kilobytes: float
    share: float
    rule: str
    fits: list[str]
    name: str | None  # None where nothing fits


@on_stage
def _trade_off(students, chosen):
    name = chosen.name
    order = sorted(students.accuracy, key=lambda n: -students.size[n])
    figure, canvas = sheet(HEIGHT)
    canvas.text(EDGE, 34, "the budget buys", fontsize=20, color=MUTED)
    said = "nothing fits"
    if name:
        said = f"{name}: {students.accuracy[name].mean:.1f} %, {students.size[name]:.1f} kB"
    colour = ROLES["student"]["color"]
    canvas.text(200, 34, said, fontsize=22, color=colour, fontweight=BOLD)
    panels = [
        panel(figure, x, 56, width, HEIGHT - 130)
        for x, width in ((170, 300), (500, 210), (746, 210))
    ]
    _rows(panels, order, students, chosen)
    titles = "accuracy on validation (%)", "size (kB)", "latency (teacher 100)"
    for ax, title in zip(panels, titles, strict=True):
        ax.set(xlabel=title, ylim=(0.6 - len(order), 0.6))
        ax.locator_params(axis="x", nbins=4)
        ax.grid(False, axis="y")
        ax.grid(True, axis="x")
        ax.tick_params(labelleft=ax is panels[0])
    count = len(next(iter(students.accuracy.values())).values)
    any_share = f"{chosen.share} %" if chosen.share < ANY else "any share"
    return (
        Picture(
            figure,
            "A row for each student, the largest first. Bars at the dots are 95 % intervals "
            f"over {count} splits, those of latency over repeats on this machine, batch 1. "
            f"Dashed: the budgets; grey: outside them; darkest: what they buy, {chosen.rule}.",
            "Three panels with a row for each student: accuracy with error bars, "
            f"size with the budget of {chosen.kilobytes:g} kB, latency with that of {any_share} "
            "of the teacher's. The one picked is marked, and named in the text below.",
        ),
        _words(students, chosen),
    )


def _rows(panels, order, students, chosen):
    """A row for each student: what it reads right, its size and its latency; and the budgets."""
    left, middle, right = panels
    for i, n in enumerate(order):
        picked = n == chosen.name
        colour = ROLES["student"]["color"] if picked else LIGHT if n in chosen.fits else PALE
        e, slow = students.accuracy[n], students.latency[n]
        half = e.half_width()
        left.plot([e.mean - half, e.mean + half], [-i, -i], color=colour, lw=6, zorder=3)
        left.plot(e.mean, -i, "o", markersize=15, color=colour, markeredgecolor="white", zorder=3)
        middle.barh(-i, students.size[n], color=colour, height=0.66)
        right.barh(-i, slow.mean, xerr=slow.half_width(), color=colour, height=0.66)
    left.set_yticks([-i for i in range(len(order))], order)
    for label, n in zip(left.get_yticklabels(), order, strict=True):
        weight = BOLD if n == chosen.name else "normal"
        label.set(fontweight=weight, color=INK if n in chosen.fits else GREY)
    budget = dict(color=INK, linestyle="--", linewidth=2.5)
    middle.axvline(chosen.kilobytes, **budget)
    if chosen.share < ANY:
        right.axvline(chosen.share, **budget)


def _words(students, chosen):
    """What was picked, and how the others compare with it."""
    accuracy, size, latency = students.accuracy, students.size, students.latency
    name, share = chosen.name, f"{chosen.share} %" if chosen.share < ANY else "any"
    lines = [
        f"Within {chosen.kilobytes:g} kB and {share} latency: {len(chosen.fits)} of "
        f"{len(accuracy)}."
    ]
    if not name:
        return [*lines, "Nothing fits: raise a budget."]
    lines.append(
        f"Picked: {name}, accuracy {accuracy[name]}, {size[name]:.1f} kB, "
        f"latency {latency[name]} of the teacher's."
    )
    for other in sorted((n for n in accuracy if n != name), key=lambda n: -accuracy[n].mean):
        difference = accuracy[other] - accuracy[name]
        reason = "" if other in chosen.fits else " (outside the budget)"
        word = {"helps": "surely better", "hurts": "surely worse"}.get(
            difference.verdict(0), "cannot tell"
        )
        lines.append(
            f"{other}: {difference}, {word}; {size[other]:.1f} kB, latency {latency[other]}{reason}"
        )
    return lines
