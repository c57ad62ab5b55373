"""Labels against a teacher, trained while one looks."""

import functools
import math
import time

import numpy as np

from kdlab.base import arguments
from kdlab.data.tasks import splits
from kdlab.evidence.intervals import Estimate
from kdlab.show.colours import INK, MUTED
from kdlab.show.explorer import HEIGHT, Explorer, choice, on_stage, slider
from kdlab.show.plots import Picture
from kdlab.show.sheet import BOLD, ROLES, panel, sheet
from kdlab.students.builders import mlp
from kdlab.training.sweep import sweep, train

SIZES = (1000, 437, 360)  # of the digits; multiples that every split shares
PLOT = {"left": 64, "top": 48, "width": 460, "height": HEIGHT - 118}  # pixels of the sheet
TEACHER_STEPS = 150
SAME, EXPERT = "the student's own labels", "all labels, all clean"


def distillation_race(data: str = "digits", count: int = 8, steps: int = 200) -> Explorer:
    """Labels alone against a teacher: 16 students, trained anew for each setting → `Explorer`.

    They are trained as one stacked model.

    data: a name for `load`; count: splits, at least 4, each with its own teacher. Half of the
    students have alpha 0, which is labels alone; all have the same images, labels, initial weights
    and number of steps.

    >>> race = distillation_race(count=4, steps=20)
    >>> race.move(labels=10, noise=0.4).answer["error"]
    ''
    """
    arguments.place("distillation_race", "data", data)
    arguments.whole("distillation_race", "count", count, least=4)
    arguments.whole("distillation_race", "steps", steps, least=1)
    sizes = SIZES if data == "digits" else (1000, 1000, 2000)
    found = functools.lru_cache(32)(functools.partial(splits, data, count, sizes=sizes))

    @functools.lru_cache(32)
    def teachers(labels, noise):
        tasks = found(labels_per_class=labels or None, noise=noise)
        epochs = _epochs(TEACHER_STEPS, tasks, batch=64)
        return train(mlp(256, dropout=0.5), tasks, epochs=epochs, batch=64)

    @functools.lru_cache(32)
    def said(labels, noise, saw):
        """What the teachers say of each split's labelled images, once for all T and alpha."""
        tasks = found(labels_per_class=labels or None, noise=noise)
        taught_by = teachers(labels, noise) if saw == SAME else teachers(0, 0.0)
        return taught_by, [taught_by.logits_of_unit(task, task.train.x) for task in tasks]

    def draw(T, alpha, labels, noise, saw):
        tasks = found(labels_per_class=labels or None, noise=noise)
        began = time.perf_counter()
        taught_by, answers = said(labels, noise, saw)
        rows = len(tasks[0].train)
        epochs = _epochs(steps, tasks, batch=32)
        runs = sweep(
            mlp(64),
            tasks,
            teacher=answers,
            temperature=T,
            alpha=[0.0, alpha],
            epochs=epochs,
            batch=32,
            seeds=max(1, 8 // count),
            checkpoints=min(6, epochs),
        )
        spent = time.perf_counter() - began
        setting = f"T = {T:g}, α = {alpha:g}, the teacher saw {saw}"
        return _race(runs, taught_by.estimate(), alpha, epochs, rows, setting, spent)

    return Explorer("Distillation race: a teacher against labels alone", _handles(), draw)


def _epochs(steps, tasks, batch):
    """How many epochs come nearest to so many steps, the short last batch counted."""
    return max(1, round(steps / math.ceil(len(tasks[0].train) / batch)))


def _handles():
    """What the class may choose: T, alpha, labels, noise, and what the teacher saw."""
    labels, noises = [3, 5, 10, 20, 30, 50, 0], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    return [
        slider("T", "Temperature T", [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0], 4.0),
        slider("alpha", "α, weight of the teacher", [0.1, 0.25, 0.5, 0.75, 0.9, 1.0], 0.9),
        slider("labels", "Labels a class", labels, 10, [str(n or "all") for n in labels]),
        slider("noise", "Wrong labels", noises, 0.0, [f"{100 * n:.0f} %" for n in noises]),
        choice("saw", "The teacher saw", [EXPERT, SAME]),
    ]


@on_stage
def _race(runs, teachers, alpha, epochs, rows, setting, spent):
    gain = runs.where(alpha=alpha).minus(runs.where(alpha=0.0))  # says it where students diverged
    figure, canvas = sheet(HEIGHT)
    canvas.text(24, 30, "accuracy on validation (%)", color=MUTED)
    curves = panel(figure, **PLOT)
    _curves(
        curves,
        canvas,
        runs,
        teachers,
        {"labels alone": (0.0, "rival"), "taught": (alpha, "student")},
    )
    curves.set_xlabel(f"epochs of {rows} labelled images")
    _gain(panel(figure, 730, 150, 226, HEIGHT - 220), canvas, gain)
    count = runs.frame["unit"].nunique()
    lines = [
        f"{name}: {runs.where(alpha=a).estimate()}"
        for name, a in (("labels alone", 0.0), ("taught", alpha))
    ]
    lines += [
        f"teacher: {teachers}",
        f"taught − labels alone: {gain}; verdict: {gain.verdict()}",
        f"{len(runs)} students in {spent:.1f} s",
    ]
    picture = Picture(
        figure,
        f"{setting}. Means over {count} splits, each with its own teacher; "
        "bands and bar are 95 % intervals. One setting looked at among many: "
        "a surprise deserves another look with fresh splits.",
        f"Left: accuracy over {epochs} epochs for students on labels alone "
        f"and students taught at {setting}, with bands, below the teacher's. Right: "
        "their final difference with its interval beside zero. The numbers follow as text.",
    )
    return picture, lines


def _curves(ax, canvas, runs, teachers, arms):
    """Accuracy over epochs: a curve an arm with its band, and the teacher's, named at the ends."""
    points = runs.frame.groupby(["alpha", "epoch", "unit"])["accuracy"]
    unit = points.agg(lambda seeds: seeds.mean(skipna=False)) * 100
    ends = {}
    for name, (alpha, role) in arms.items():
        found = {
            e: Estimate(unit[alpha, e], "accuracy", "%") for e in unit[alpha].index.unique("epoch")
        }
        mean = np.array([p.mean for p in found.values()])
        half = np.array([p.half_width() for p in found.values()])
        look = ROLES[role] | {"linewidth": 4}
        ax.fill_between(list(found), mean - half, mean + half, color=look["color"], alpha=0.2, lw=0)
        ax.plot(list(found), mean, marker="o", markersize=9, **look)
        ends[name] = mean[-1], look["color"]
    ax.axhline(teachers.mean, **ROLES["teacher"])
    ends["the teacher"] = teachers.mean, ROLES["teacher"]["color"]
    ax.locator_params(nbins=5)
    low, high = ax.get_ylim()
    height = {
        name: PLOT["top"] + PLOT["height"] * (high - value) / (high - low)
        for name, (value, _) in ends.items()
    }
    for name, y in _apart(height).items():
        value, colour = ends[name]
        canvas.text(536, y + 6, f"{name} {value:.1f}", color=colour, fontweight=BOLD)


def _apart(heights, least=24):
    """The same places, in order, at least so many pixels from each other.

    >>> _apart({"a": 10.0, "b": 12.0})
    {'a': 10.0, 'b': 34.0}
    """
    placed: dict[str, float] = {}
    for name, y in sorted(heights.items(), key=lambda item: item[1]):
        placed[name] = max(y, max(placed.values(), default=-least) + least)
    return placed


def _gain(ax, canvas, gain):
    """The difference with its interval, beside zero."""
    colour = ROLES["student"]["color"]
    reach = max(2.0, 1.2 * max(map(abs, gain.interval())))
    ax.axvspan(0, reach, color=colour, alpha=0.1, lw=0)
    ax.axvline(0, color=INK, linewidth=2)
    low, high = gain.interval()
    ax.plot([low, high], [0, 0], color=colour, linewidth=9, solid_capstyle="round")
    ax.plot(gain.mean, 0, "o", color=colour, markersize=18, markeredgecolor="white")
    ax.locator_params(axis="x", nbins=4)
    ax.set(xlim=(-reach, reach), ylim=(-1, 1), yticks=[], xlabel="points")
    ax.grid(False)
    canvas.text(730, 30, "taught − labels alone", color=MUTED)
    canvas.text(730, 72, gain.verdict(), fontsize=26, fontweight=BOLD, color=INK)
    words = f"{gain.mean:+.1f} ± {gain.half_width():.1f} points"
    canvas.text(730, 106, words, fontsize=20, color=colour, fontweight=BOLD)
