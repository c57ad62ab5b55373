"""An explorer for choosing: accuracy, bytes and latency by size, and what a budget buys."""

import statistics
import time
from contextlib import ExitStack
from typing import Any

import pandas as pd

from kdlab.base.arguments import instance
from kdlab.base.lab import threads_for
from kdlab.base.wrapped import evaluating
from kdlab.data.tasks import splits
from kdlab.evidence.intervals import Estimate
from kdlab.evidence.metrics import parameters
from kdlab.show.explorer import Explorer, choice, large, slider
from kdlab.show.plots import COLOURS, Picture
from kdlab.students.builders import convnet, mlp
from kdlab.training.runs import Runs
from kdlab.training.sweep import distill, train

BEST, SMALLEST = "the most accurate", "the smallest not surely worse"
ANY = 1000  # per cent of the teacher's latency: no budget


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
            n for n in fits if n == best or (accuracy[n] - accuracy[best]).verdict() != "hurts"
        ]
        return min(equal, key=lambda n: size[n]), fits
    return best, fits


def choose_student_explorer(runs: Any = None, teachers: Any = None) -> Explorer:
    """Students by accuracy, bytes and latency, and what a budget buys → `Explorer`.

    runs: {name: Runs} with one run a split, and teachers: Runs of the same splits, with which
    latency is compared; where they are missing, seven sizes are distilled on the digits (some ten
    seconds). Students that diverged are named in the text and never picked.

    >>> from kdlab import convnet, mlp, splits, train
    >>> tasks = splits("digits", 4)
    >>> sizes = {f"mlp {w}": train(mlp(w), tasks, epochs=1) for w in (4, 16)}
    >>> explorer = choose_student_explorer(sizes, train(mlp(64), tasks, epochs=1))
    >>> explorer.move(rule=SMALLEST).answer["error"]
    ''
    """
    if runs is None:
        tasks = splits("digits", 6, sizes=(1000, 437, 360))
        teachers = train(convnet(16, 32, dropout=0.5), tasks, epochs=12, batch=64)
        students = [*(mlp(w) for w in (8, 16, 32, 64, 128)), convnet(2, 4), convnet(4, 8)]
        runs = {s.__name__: distill(s, teachers, tasks, epochs=25, batch=64) for s in students}
    named = isinstance(runs, dict) and runs and all(isinstance(r, Runs) for r in runs.values())
    if not named:
        raise TypeError(
            "choose_student_explorer: runs must be a dictionary {name: Runs}, got"
            f" {type(runs).__name__}"
        )
    instance("choose_student_explorer", "teachers", teachers, Runs, "Runs, of the same splits")
    task = next(iter(runs.values())).tasks[teachers.frame["unit"].iloc[0]]
    everyone = runs | {"the teacher": teachers}
    fallen = [
        f"{name}: diverged in {', '.join(gone.values())} runs, "
        "so it has no accuracy and is left out."
        for name, r in everyone.items()
        if (gone := r.diverged())
    ]
    modules = {name: r.module_of_unit(task) for name, r in everyone.items()}
    accuracy = {name: r.estimate() for name, r in everyone.items() if not r.diverged()}
    if not accuracy:
        raise ValueError(
            "choose_student_explorer: runs must hold a student to choose; " + " ".join(fallen)
        )
    size = {name: 4 * parameters(m) / 1000 for name, m in modules.items()}
    latency = latency_ratios(modules, modules[list(everyone)[-1]], task.validation.x[:1])

    def draw(kilobytes, share, rule):
        name, fits = pick(accuracy, size, latency, kilobytes, share, rule)
        picture, lines = _trade_off(accuracy, size, latency, kilobytes, share, rule, name, fits)
        return picture, lines + fallen

    steps = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
    steps = [s for s in steps if s < max(size.values())] + [float(round(max(size.values()) + 1))]
    shares = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 150, ANY]
    return Explorer(
        "Choose a student",
        [
            slider(
                "kilobytes",
                "Budget: size",
                steps,
                min(steps, key=lambda s: abs(s - 20)),
                [f"{s:g} kB" for s in steps],
            ),
            slider(
                "share",
                "Budget: latency",
                shares,
                ANY,
                [f"{s} % of the teacher's" for s in shares[:-1]] + ["any"],
            ),
            choice("rule", "Pick", [BEST, SMALLEST]),
        ],
        draw,
    )


def _trade_off(accuracy, size, latency, kilobytes, share, rule, name, fits):
    order = sorted(accuracy, key=lambda n: -size[n])
    colours = [COLOURS[1] if n == name else COLOURS[0] if n in fits else "#B0B0B0" for n in order]
    figure, context = large(13, 1.2 + 0.5 * len(order))
    with context:
        left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=[1.4, 1, 1])
        for i, (n, colour) in enumerate(zip(order, colours, strict=True)):
            e, slow = accuracy[n], latency[n]
            left.errorbar(
                e.mean, -i, xerr=e.half_width(), fmt="o", capsize=5, markersize=10, color=colour
            )
            middle.barh(-i, size[n], color=colour, height=0.6)
            right.barh(-i, slow.mean, xerr=slow.half_width(), capsize=4, color=colour, height=0.6)
        left.set_yticks(
            [-i for i in range(len(order))], [f"▸ {n}" if n == name else n for n in order]
        )
        middle.axvline(kilobytes, color="black", linestyle="--")
        if share < ANY:
            right.axvline(share, color="black", linestyle="--")
        left.set_xlabel("accuracy on validation (%)")
        middle.set_xlabel("size (kB in float32)")
        right.set_xlabel("latency (teacher = 100 %)")
    count = len(next(iter(accuracy.values())).values)
    any_share = f"{share} %" if share < ANY else "any share"
    return (
        Picture(
            figure,
            "A row for each student, the largest first. Bars at the dots are 95 % intervals "
            f"over {count} splits, those of latency over repeats on this machine, batch 1. "
            f"Dashed: the budgets; grey: outside them; orange: what they buy, {rule}.",
            "Three panels with a row for each student: accuracy with error bars, "
            f"size with the budget of {kilobytes:g} kB, latency with that of {any_share} "
            "of the teacher's. The one picked is marked, and named in the text below.",
        ),
        _words(accuracy, size, latency, kilobytes, share, name, fits),
    )


def _words(accuracy, size, latency, kilobytes, share, name, fits):
    """What was picked, and how the others compare with it."""
    lines = ["Nothing fits: raise a budget."]
    if name:
        lines = [
            f"Picked: {name}, accuracy {accuracy[name]}, {size[name]:.1f} kB, "
            f"latency {latency[name]} of the teacher's."
        ]
    for other in sorted(
        (n for n in accuracy if name and n != name), key=lambda n: -accuracy[n].mean
    ):
        difference = accuracy[other] - accuracy[name]
        reason = "" if other in fits else " (outside the budget)"
        word = {"helps": "surely better", "hurts": "surely worse"}.get(
            difference.verdict(), "cannot tell"
        )
        lines.append(
            f"{other}: {difference}, {word}; {size[other]:.1f} kB, latency {latency[other]}{reason}"
        )
    lines.insert(
        0,
        f"Within {kilobytes:g} kB and {f'{share} %' if share < ANY else 'any'} latency: {len(fits)}"
        f" of {len(accuracy)}.",
    )
    return lines
