"""Labels against a teacher, trained while one looks."""

import functools
import time

from kdlab.base import arguments
from kdlab.data.tasks import splits
from kdlab.evidence.intervals import Estimate
from kdlab.show.explorer import Explorer, choice, large, slider
from kdlab.show.plots import COLOURS, Picture
from kdlab.students.builders import mlp
from kdlab.training.sweep import sweep, train

SIZES = (1000, 437, 360)  # of the digits; multiples that every split shares
SAME, EXPERT = "the student's own labels", "all labels, all clean"


def distillation_race(data: str = "digits", count: int = 8, steps: int = 300) -> Explorer:
    """Labels alone against a teacher: 32 students, trained anew for each setting → `Explorer`.

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
        return train(
            mlp(256, dropout=0.5),
            tasks,
            epochs=max(1, round(250 * 64 / len(tasks[0].train))),
            batch=64,
        )

    def draw(T, alpha, labels, noise, saw):
        tasks = found(labels_per_class=labels or None, noise=noise)
        began = time.perf_counter()
        taught_by = teachers(labels, noise) if saw == SAME else teachers(0, 0.0)
        rows = len(tasks[0].train)
        epochs = max(1, round(steps / -(-rows // 32)))
        runs = sweep(
            mlp(64),
            tasks,
            teacher=taught_by,
            temperature=T,
            alpha=[0.0, alpha],
            epochs=epochs,
            batch=32,
            seeds=max(1, 16 // count),
            checkpoints=min(6, epochs),
        )
        spent = time.perf_counter() - began
        return _race(
            runs, alpha, epochs, rows, f"T = {T:g}, α = {alpha:g}, the teacher saw {saw}", spent
        )

    noises = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    return Explorer(
        "Distillation race: a teacher against labels alone",
        [
            slider("T", "Temperature T", [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0], 4.0),
            slider("alpha", "α, weight of the teacher", [0.1, 0.25, 0.5, 0.75, 0.9, 1.0], 0.9),
            slider(
                "labels",
                "Labels a class",
                [3, 5, 10, 20, 30, 50, 0],
                10,
                ["3", "5", "10", "20", "30", "50", "all"],
            ),
            slider("noise", "Wrong labels", noises, 0.0, [f"{100 * n:.0f} %" for n in noises]),
            choice("saw", "The teacher saw", [EXPERT, SAME]),
        ],
        draw,
    )


def _race(runs, alpha, epochs, rows, setting, spent):
    gain = runs.where(alpha=alpha).minus(runs.where(alpha=0.0))  # says it where students diverged
    arms = {"labels alone": (0.0, COLOURS[0]), "taught": (alpha, COLOURS[1])}
    figure, context = large(13, 5.2)
    with context:
        left, right = figure.subplots(1, 2, width_ratios=[2, 1])
        _curves(left, runs, arms)
        left.set_xlabel(f"epochs of {rows} labelled images")
        _gain(right, gain)
    count = runs.frame["unit"].nunique()
    lines = [f"{name}: {runs.where(alpha=a).estimate()}" for name, (a, _) in arms.items()]
    lines += [
        f"teacher: {_teachers(runs)}",
        f"taught − labels alone: {gain}; verdict: {gain.verdict()}",
        f"{len(runs)} students in {spent:.1f} s",
    ]
    picture = Picture(
        figure,
        f"{setting}. Means over {count} splits, each with its own teacher; "
        "bars are 95 % intervals. One setting looked at among many: "
        "a surprise deserves another look with fresh splits.",
        f"Left: accuracy over {epochs} epochs for students on labels alone "
        f"and students taught at {setting}, with error bars. Right: "
        "their final difference with its interval beside zero. The numbers follow as text.",
    )
    return picture, lines


def _curves(ax, runs, arms):
    """Accuracy over epochs, a curve an arm."""
    points = runs.frame.groupby(["alpha", "epoch", "unit"])["accuracy"]
    unit = points.agg(lambda seeds: seeds.mean(skipna=False)) * 100
    for i, (name, (alpha, colour)) in enumerate(arms.items()):
        found = {
            e: Estimate(unit[alpha, e], "accuracy", "%") for e in unit[alpha].index.unique("epoch")
        }
        ax.errorbar(
            [e * (1 + 0.01 * i) for e in found],
            [p.mean for p in found.values()],
            label=name,
            color=colour,
            marker="o",
            yerr=[p.half_width() for p in found.values()],
            capsize=5,
            linewidth=3,
        )
    ax.set_ylabel("accuracy on validation (%)")
    ax.legend(loc="lower right")


def _gain(ax, gain):
    """The difference with its interval, beside zero."""
    ax.axvline(0, color="grey")
    bar = dict(xerr=gain.half_width(), fmt="o", color=COLOURS[1], capsize=8, markersize=12)
    ax.errorbar(gain.mean, 0, **bar)
    reach = max(2.0, 1.2 * max(map(abs, gain.interval())))
    ax.locator_params(axis="x", nbins=5)
    ax.set(xlim=(-reach, reach), ylim=(-1, 1), yticks=[], xlabel="taught − labels alone (points)")
    ax.set_title(f"verdict: {gain.verdict()}")


def _teachers(runs):
    mean = runs.last().groupby("unit")["teacher_accuracy"].mean() * 100
    return Estimate(mean, "accuracy", "%")
