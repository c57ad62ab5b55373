"""Pictures of lesson 01: what a step sees, four curves, thirty-two students, five broken loops."""

import torch

from kdlab.lessons import yours
from kdlab.lessons.exercises.lesson01 import broken_loops as broken_loops
from kdlab.lessons.exercises.lesson01 import soften as reference
from kdlab.show import plots
from kdlab.show.colours import BLUE, GREEN, GREY, INK, MUTED, ORANGE, VERMILLION
from kdlab.show.sheet import BOLD, EDGE, WIDTH, on_sheet, panel, sheet

SEEN, NINE = 7, 9  # images a picture
# the four curves worth watching, in the order in which `watch` and `fit` give them
WATCHED = ("training loss", "soft loss, new images", "read right (%)", "agrees with teacher (%)")
PART = 24  # pixels between two columns of small multiples


def before_after(data, teacher_logits, student, T, name, soften=None):
    """The images of which the teacher is least sure, with its answers and a student's as bars.

    soften: the learner's, which then draws the bars.
    """
    whose = f" {yours.whose(soften)}" if soften else ""
    soften = soften or reference
    with torch.no_grad():
        found = student.eval()(data.x)
    student.train()
    rows = reference(teacher_logits, T).max(-1).values.argsort()[:SEEN]
    return plots.images_with_bars(
        data.x[rows],
        {who: soften(z[rows], T) for who, z in (("teacher", teacher_logits), (name, found))},
        data.clean[rows],
        f"The {SEEN} training images of which the teacher is least sure. Bars are probabilities of "
        f"the ten classes at T = {T}.{whose}",
        f"{SEEN} digits, under each two rows of ten bars: the teacher's answer, spread over a few "
        f"classes, and the {name}'s.",
    )


def four_curves(histories, whose):
    """The four curves over the share of training. histories: {name: [a tuple an epoch]}."""
    return plots.learning(
        {
            name: {
                title: {
                    round(100 * (i + 1) / len(h), 1): value for i, value in enumerate(_column(h, k))
                }
                for k, title in enumerate(WATCHED)
            }
            for name, h in histories.items()
        },
        x="% of training",
        caption=f"One split, seed 0; equal numbers of steps. The two training losses are different "
        f"sums; the other three curves compare. {whose}",
        alt="Four panels. The soft loss on new images falls for the student of the teacher and "
        "stays high for the one on labels; accuracy and agreement are higher for the first.",
    )


def _column(history, k):
    """One of the curves, as numbers: an `evaluate` may well give tensors."""
    return [float(row[k]) for row in history]


@on_sheet
def dots(groups, mine, ceiling, T):
    """Students as dots along accuracy, stacked where they agree. groups: {name: [accuracy, …]}."""
    rows, mine, ceiling = list(groups.items()), float(mine), float(ceiling)
    lowest = min(min(values) for _, values in rows)
    figure, canvas = sheet(70 + 130 * len(rows))
    ax = panel(figure, EDGE + 150, 30, WIDTH - 2 * EDGE - 170, 130 * len(rows) - 16)
    ax.set(ylim=(-0.1, len(rows)), xlim=(lowest - 1, max(ceiling + 1, 100)), yticks=[])
    ax.grid(axis="x")
    for i, ((name, values), colour) in enumerate(zip(rows, (BLUE, ORANGE), strict=False)):
        foot = len(rows) - 1 - i
        places = _stacked(values)
        ax.scatter(values, [foot + 0.06 + 0.075 * n for n in places], s=34, color=colour)
        ax.axhline(foot, color=GREY, linewidth=0.8)
        canvas.text(EDGE, 30 + 130 * i + 84, name, color=colour, fontsize=14, fontweight=BOLD)
        if not i:
            _before(ax, mine, foot + 0.06 + 0.075 * places[0])
    ax.axvline(ceiling, color=GREEN, linewidth=2, linestyle=(0, (3.5, 2)))
    canvas.text(
        ax.transData.transform((ceiling, 0))[0] + 6, 26, "teacher", color=GREEN, fontweight=BOLD
    )
    canvas.text(
        EDGE + 150 + (WIDTH - 2 * EDGE - 170) / 2,
        130 * len(rows) + 56,
        "validation images read right (%)",
        color=MUTED,
        ha="center",
    )
    return plots.Picture(
        figure,
        f"One dot a student, {len(rows[0][1])} a row: one split, one teacher, T = {T}, seeds 0 to "
        f"{len(rows[0][1]) - 1}.",
        "Two rows of dots. Those taught by the teacher lie near it, those on labels far to the "
        "left; the single run of before is one of the first row.",
    )


def _before(ax, x, y):
    """A ring around the single run of before, and its name."""
    ax.scatter([x], [y], s=130, facecolor="none", color=INK, lw=2)
    ax.annotate(
        "your loop, a minute ago",
        (x, y),
        (-40, 40),
        textcoords="offset points",
        ha="right",
        fontweight=BOLD,
        arrowprops={"arrowstyle": "-", "color": INK, "shrinkB": 7},
    )


def _stacked(values, step=0.12):
    """How many earlier dots lie at the same place, for each."""
    seen, places = {}, []
    for value in values:
        key = round(value / step)
        places.append(seen.get(key, 0))
        seen[key] = places[-1] + 1
    return places


def over_steps(taught, labels, teacher):
    """The main figure: accuracy over steps, over splits."""
    return plots.curves(
        {
            "Accuracy while they learn": [
                plots.Curve("student, taught", taught),
                plots.Curve("student, 100 labels", labels, "rival"),
            ]
        },
        x="training steps (log scale)",
        y="validation images read right (%)",
        log=True,
        height=380,
        ceiling=("its teacher", teacher),
        caption=f"Bands are 95 % intervals over {len(teacher.values)} splits, each with its own "
        "teacher.",
    )


@on_sheet
def small_multiples(right, broken):
    """A row a loop, a column a curve; the right loop in grey in each. Losses on a log scale."""
    tall, top, left = 108, 52, EDGE + 34
    figure, canvas = sheet(top + tall * len(broken) + 34)
    wide = (WIDTH - left - EDGE) / len(WATCHED)
    for k, title in enumerate(WATCHED):
        x = left + k * wide + PART
        canvas.text(x, 30, title, fontsize=14, fontweight=BOLD)
        every = [value for h in (right, *broken.values()) for value in _column(h, k)]
        for i, (letter, history) in enumerate(broken.items()):
            ax = panel(figure, x + 12, top + i * tall, wide - PART - 16, tall - 22)
            _small(ax, _column(right, k), _column(history, k), every, k < 2)
            ax.tick_params(labelbottom=i == len(broken) - 1, labelsize=11)
            if not k:
                y = top + i * tall + 56
                canvas.text(EDGE, y, letter, fontsize=24, fontweight=BOLD, color=VERMILLION)
    foot = top + tall * len(broken) + 24
    canvas.text((left + WIDTH) / 2, foot, "epoch", color=MUTED, ha="center")
    return plots.Picture(
        figure,
        "Five loops, each with one bug (orange), beside the right one (grey, dotted). Both losses "
        "stand on a log scale.",
        f"Small multiples: a row for each of the loops {', '.join(broken)}, with four curves each. "
        "In two rows accuracy fails; in the other three it ends beside the right loop's.",
    )


def _small(ax, right, broken, every, log):
    epochs = range(1, len(right) + 1)
    ax.plot(epochs, broken, color=VERMILLION, linewidth=2.2)
    ax.plot(epochs, right, color=GREY, linewidth=2, linestyle=(0, (1, 1.2)))
    ax.set_xlim(1, len(right))
    if log:
        ax.set_yscale("log")
        ax.set_ylim(min(every) / 1.4, max(every) * 1.4)
        ax.set_yticks([1, 10], ["1", "10"])
        ax.minorticks_off()
    else:
        ax.set_ylim(0, 103)
        ax.set_yticks([0, 50, 100])


def beside(right, mine, whose):
    """The four curves of the learner's own loss beside the right one's."""
    steps = {"reference": right, "yours": mine}
    return plots.learning(
        {
            name: {title: _column(h, k) for k, title in enumerate(WATCHED)}
            for name, h in steps.items()
        },
        roles={"reference": "control", "yours": "student"},
        caption=f"The loss of the cell above beside kdlab's own, in the same loop. {whose}",
        alt="Four panels, two curves each; with the reference standing in they are one.",
    )


def changed(data, answers):
    """Nine validation images that the first of the students reads wrong; all answers under each.

    answers: {name: (N,) classes}."""
    first = next(iter(answers.values()))
    rows = (first != data.y).nonzero().flatten()[:NINE]
    return plots.strips(
        {
            "": (
                data.x[rows].cpu(),
                {name: found[rows].cpu() for name, found in answers.items()},
                data.y[rows].cpu(),
            )
        },
        "The first nine validation images that the student on labels reads wrong.",
        "Nine digits with two answers each: the first student's are wrong, most of the second's "
        "right.",
    )
