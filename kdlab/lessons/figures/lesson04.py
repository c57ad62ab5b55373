"""Pictures of lesson 04: doubted labels, four worlds, shares of the gap, the bill, what is kept."""

import numpy as np
import pandas as pd
import torch

from kdlab.evidence.intervals import Estimate
from kdlab.show.answers import images_with_bars
from kdlab.show.colours import FAINT, GREEN, INK, MUTED
from kdlab.show.curves import Curve, curves
from kdlab.show.picture import Picture
from kdlab.show.sheet import BOLD, EDGE, ROLES, WIDTH, on_sheet, panel, sheet
from kdlab.show.strips import strips

ROLE = {
    "distilled": "student",
    "teacher shuffled": "control",
    "labels": "rival",
    "label smoothing": "also",
    "stopped early": "rival",
}
COUNT = 7


def doubts(data, answers, T=1):
    """The first training images with a wrong label, and what a teacher makes of them."""
    wrong = (data.y != data.clean).nonzero()[:COUNT, 0]
    return images_with_bars(
        data.x[wrong],
        torch.softmax(answers[wrong] / T, -1),
        data.clean[wrong],
        f"The first {COUNT} training images whose label is wrong, and a teacher's answers at "
        f"T = {T}. It was trained on these very labels. Ten bars an image, one a class; they add "
        "up to 100 %, and the number is the share of the wrong label.",
        "Seven digits, each with ten bars. On most of them the true class has the tallest bar and "
        "the label that the teacher was given has a small one.",
        marked=data.y[wrong].tolist(),
        title="Seven wrong labels, and a teacher that was told each of them",
        key=("what it is", "what its label says", "the other classes"),
    )


def four_worlds(found, ceilings, code):
    """Learning curves in every world: found {world: {arm: {steps: Estimate}}}."""
    splits = len(next(iter(ceilings.values())).values)
    panels = {
        world: [Curve(arm, at, ROLE[arm]) for arm, at in arms.items()]
        for world, arms in found.items()
    }
    return curves(
        panels,
        x="training steps (log)",
        y="validation accuracy (%)",
        caption=f"Four worlds, on four scales; bands are 95 % intervals over {splits} splits. A "
        "curve that begins below its axis is cut off. The names on the right stand for the left "
        f"too. Green: the teacher, which saw 1,000 labels of the same quality. {code}",
        log=True,
        ceiling={world: ("its teacher", e) for world, e in ceilings.items()},
        ticks={"x": [20, 50, 100, 200, 500, 960]},
        limits={world: (_low(arms), 100) for world, arms in found.items()},
        share=False,
        height=330,
    )


def _low(arms):
    """Where an axis begins: a little below all curves, once they have got going."""
    after = [e.mean for at in arms.values() for steps, e in at.items() if steps >= 48]
    return max(0, 2 * int((min(after) - 3) // 2))


def changed(by_heart, misread):
    """Two rows: wrong labels learnt by heart or seen through, and digits misread or read."""
    data, told = by_heart
    wrong = (data.y != data.clean).nonzero()[:9, 0]
    exam, read = misread
    missed = (read["labels"].argmax(-1) != exam.y).nonzero()[:9, 0]
    heart = {"its label": data.y[wrong]}
    heart |= {arm: logits.argmax(-1)[wrong] for arm, logits in told.items()}
    return strips(
        {
            "1,000 labels, 40 % wrong: training images with a wrong label": (
                data.x[wrong],
                heart,
                data.clean[wrong],
            ),
            "100 clean labels: validation images that labels alone misread": (
                exam.x[missed],
                {arm: logits.argmax(-1)[missed] for arm, logits in read.items()},
                exam.y[missed],
            ),
        },
        "The first nine of each, read by students of one split after the last step. First row "
        "above: the label that the image was given. All other rows: what the student of each arm "
        "answers; ✓ is the true digit.",
        "Above, the student on labels repeats some wrong labels and the distilled one reads the "
        "true digit. Below, the distilled student reads many digits that labels alone got wrong.",
    )


def over_splits(share, student, labels, teacher, what):
    """The learner's share of the gap with an interval: the jackknife over splits → `Estimate`.

    Its pseudo-values, one a split, are n · share − (n − 1) · share without that split.
    Source: Tukey 1958."""
    units = list(student.values.index)
    columns = [torch.tensor(e.values.loc[units].to_numpy()) for e in (student, labels, teacher)]
    n, whole = len(units), float(share(*columns))
    without = [
        float(share(*(c[[j for j in range(n) if j != i]] for c in columns))) for i in range(n)
    ]
    pseudo = [100 * (n * whole - (n - 1) * one) for one in without]
    return Estimate(pd.Series(pseudo, index=units), what, "%", student.seeds)


@on_sheet
def shares(gains, gaps, closed, code):
    """Each arm's gain over labels beside the teacher's, and which share of the gap that is.

    gains: {world: {arm: Estimate}} in points; gaps {world: Estimate}; closed as gains, in %."""
    rows = max(map(len, gains.values()))
    splits = len(next(iter(gaps.values())).values)
    tall = 66 + 27 * rows
    figure, canvas = sheet(len(gains) * tall + 36)
    left, right = EDGE + 150, WIDTH - 210
    ends = [v for w in gains.values() for e in w.values() for v in e.interval()]
    ends += [v for e in gaps.values() for v in e.interval()]
    room = 0.05 * (max(ends) - min(ends))
    canvas.text(right + 24, 30, "share of the gap", color=MUTED, fontweight=BOLD)
    for i, (world, arms) in enumerate(gains.items()):
        top = i * tall + 20
        canvas.text(EDGE, top + 12, world, fontsize=15, fontweight=BOLD)
        ax = panel(figure, left, top + 24, right - left, 27 * rows)
        ax.set(ylim=(rows - 0.5, -0.5), xlim=(min(*ends, 0) - room, max(ends) + room))
        ax.axvline(0, color=INK, linewidth=1)
        ax.axvspan(*gaps[world].interval(), color=GREEN, alpha=0.13, linewidth=0)
        ax.axvline(gaps[world].mean, **ROLES["teacher"])
        ax.set_yticks([])
        ax.grid(axis="x", color=FAINT, linewidth=0.7)
        ax.tick_params(labelbottom=i == len(gains) - 1)
        for j, (arm, e) in enumerate(arms.items()):
            colour = ROLES[ROLE[arm]]["color"]
            ax.plot(e.interval(), [j, j], color=colour, linewidth=4, solid_capstyle="round")
            ax.plot(e.mean, j, "o", color=colour, markersize=9, markeredgecolor="white")
            middle = top + 24 + 27 * (j + 0.5)
            canvas.text(left - 12, middle + 5, arm, ha="right", color=colour, fontweight=BOLD)
            canvas.text(right + 24, middle + 5, _share(closed[world][arm]), color=INK)
    foot = len(gains) * tall + 22
    axis = "validation accuracy gained over labels (points)"
    canvas.text((left + right) / 2, foot, axis, ha="center")
    return Picture(
        figure,
        "What each arm gains over labels after the last step (stopped early: after its own), on "
        "one scale. Green is the teacher's lead, the gap. Dots are means; bars, the green band and "
        f"± are 95 % intervals over {splits} splits. A share cannot be told where its "
        f"interval holds 0 and is wide, more than a quarter of the gap either way. {code}",
        "Dots with bars for each arm in each world, and the teacher's lead as a line: wide where "
        "labels are few or wrong, close to zero with 1,000 clean labels.",
    )


def _cannot_tell(e):
    low, high = e.interval()
    return low < 0 < high and e.half_width() > 25


def _share(e):
    """In words, and whether it can be told at all."""
    unclear = ", cannot tell" if _cannot_tell(e) else ""
    return f"{e.mean:.0f} ± {e.half_width():.0f} %{unclear}".replace("-", "−")


def bill(training, each, alone, code):
    """What is paid for predictions, against serving the teacher.

    training {"teacher", "student"}: operations in all; each: of one prediction; alone: without a
    teacher."""
    at = np.unique(np.round(np.logspace(2, 5.7, 38))).tolist()
    served = {n: training["teacher"] + each["teacher"] * n for n in at}
    taught = {
        n: 100 * (training["teacher"] + training["student"] + each["student"] * n) / served[n]
        for n in at
    }
    direct = {n: 100 * (alone + each["student"] * n) / served[n] for n in at}
    return curves(
        {
            "": [
                Curve("teacher and distilled student", taught),
                Curve("small model alone", direct, "rival"),
            ]
        },
        x="predictions made (log)",
        y="operations paid in all, as a share of training and serving the teacher (%)",
        caption="The whole bill, training included; counted in operations, not measured. Where a "
        f"curve is below the green line, it is cheaper than serving the teacher. {code}",
        alt="The small model alone is below the line from the start. Teacher and student begin "
        "above it, cross it after some ten thousand predictions and then come down to the small "
        "model's curve.",
        log=True,
        ceiling=("serve the teacher", 100),
        limits=(0, 130),
        ticks={"x": [100, 1000, 10_000, 100_000]},
    )


def kept(released, direct, taught, ceiling):
    """Labels alone, from scratch and from the weights of a taught student."""
    return curves(
        {
            "": [
                Curve("taught first, then labels alone", released),
                Curve("labels alone", direct, "rival"),
            ]
        },
        x="training steps on 100 labels, no teacher (log)",
        y="validation accuracy (%)",
        caption="The same 100 labels, network, loss and rate; only the first weights differ. "
        f"The taught student began at {taught}. Bands are 95 % intervals over "
        f"{len(taught.values)} splits; the axis begins at 60 %.",
        log=True,
        ceiling=("its teacher", ceiling),
        limits=(60, 100),
        ticks={"x": [20, 50, 100, 200, 500, 960]},
    )
