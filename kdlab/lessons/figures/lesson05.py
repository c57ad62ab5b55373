"""Pictures of lesson 05: who is wrong, one target of two voices, alpha's curves, what is handed on,
teachers of several sizes, and the map."""

import torch

from kdlab.show import plots
from kdlab.show.curves import Curve, curves


def who_is_wrong(data, good, liar, count=3):
    """Images whose label is wrong, then 3s that a teacher calls 8, each with a teacher's answer.

    data: training images; good, liar: the logits of two teachers on them, (N, C)."""
    mislabelled = (data.y != data.clean).nonzero()[:count, 0]
    told_8 = liar.argmax(-1) == 8
    miscalled = ((data.clean == 3) & (data.y == 3) & told_8).nonzero()[:count, 0]
    rows = torch.cat([mislabelled, miscalled])
    answers = torch.cat([good[mislabelled], liar[miscalled]]).softmax(-1)
    wrong = torch.cat([data.y[mislabelled], torch.full_like(miscalled, 8)])
    notes = [f"label: {int(y)}" for y in data.y[rows]]
    return plots.images_with_bars(
        data.x[rows],
        answers,
        data.clean[rows],
        "Training images, the label of each at the foot, and a teacher's answer at T = 1 as ten "
        "bars. Left: the label is wrong, and a teacher sees it. Right: the label is right and "
        "another teacher wrong, which learnt to call many 3s an 8.",
        "Six digits with bars. On the first three the teacher's tallest bar is the true class and "
        "not the label. On the last three, 3s with the label 3, its tallest bar is the 8.",
        marked=wrong.tolist(),
        notes=notes,
        title="Three wrong labels, then three wrong answers of a teacher",
        key=("what it is", "what it is wrongly called", "the other classes"),
    )


def one_target(image, targets, right, wrong, whose):
    """One image's target at several alpha. targets: {alpha: (C,)}."""
    return plots.bars(
        {f"alpha = {alpha:g}": row for alpha, row in targets.items()},
        "A training image with the label 3 that the teacher calls 8: its target at five alpha, the "
        "share of each class. Dark: the label's class. Orange: the one that the teacher says. "
        f"{whose}",
        "Five sets of bars. At alpha 0 all stands on the 3, at 1 most of it on the 8; at a half "
        "the 3 is still the taller, at three quarters the 8.",
        image=image,
        right=right,
        marked=wrong,
        height=250,
    )


def over_alpha(found, ceilings, whose):
    """The main figure. found: {title: {name: {alpha: Estimate}}}; ceilings {title: Estimate}."""
    roles = {"640 steps": "student", "160 steps": "also", "knows nothing": "control"}
    return curves(
        {
            title: [Curve(name, at, roles[name]) for name, at in arms.items()]
            for title, arms in found.items()
        },
        x="alpha: 0 labels alone, 1 teacher alone",
        y="accuracy (%)",
        ticks={"x": [0, 0.25, 0.5, 0.75, 1]},
        limits={title: _span(arms) for title, arms in found.items()},
        ceiling={title: ("the teacher", e) for title, e in ceilings.items()},
        share=False,
        height=300,
        caption="Validation accuracy of students over alpha at T = 1. Above each panel: their "
        "teacher, and how good their labels are. Dashed: the teacher itself. Dotted: all classes "
        "alike in its place, 640 steps. Bands are 95 % intervals over "
        f"{_splits(ceilings.values())} splits. The upper row's axis is shorter. {whose}",
    )


def _splits(estimates):
    return len(next(iter(estimates)).values)


def _span(arms):
    """A row's panels share an axis: clean labels need less of it."""
    lowest = min(e.mean for at in arms.values() for e in at.values())
    return (66, 100) if lowest < 82 else (82, 100)


def handed_on(found, teacher, whose):
    """3s called 8 over alpha. found: {name: {alpha: Estimate}}."""
    roles = ("student", "also")
    return curves(
        {
            "Right labels, and a teacher that calls many 3s an 8": [
                Curve(name, at, role) for (name, at), role in zip(found.items(), roles, strict=True)
            ]
        },
        x="alpha: 0 labels alone, 1 teacher alone",
        y="3s called 8 (%)",
        ticks={"x": [0, 0.25, 0.5, 0.75, 1]},
        limits=(0, 100),
        ceiling=("the teacher", teacher),
        height=300,
        caption="Of the 3s among the validation images, the share that a student calls 8. Dashed: "
        f"the same of its teacher. Bands are 95 % intervals over {len(teacher.values)} splits. "
        f"{whose}",
    )


def threes(data, said):
    """The first nine 3s of some images, and what each model calls them. said: {name: logits}."""
    rows = (data.clean == 3).nonzero()[:9, 0]
    return plots.strip(
        data.x[rows],
        {name: logits[rows].argmax(-1) for name, logits in said.items()},
        data.clean[rows],
        "The first nine 3s of one split's validation images, and what each calls them: the teacher "
        "of the figure above and its students of 640 steps.",
        "Nine 3s. The teacher calls most of them 8; so does the student that believes it alone, "
        "and the student of both voices only some.",
    )


def bigger(repeated, students):
    """Over a teacher's hidden units and epochs: labels it repeats, and its students' accuracy.

    Each {(units, epochs): Estimate}."""
    epochs = sorted({e for _, e in students})

    def along(found):
        return [
            Curve(
                f"teacher of {e} epochs",
                {n: x for (n, at), x in found.items() if at == e},
                "teacher",
            )
            for e in reversed(epochs)
        ]

    return curves(
        {
            "labels that the teacher repeats (%)": along(repeated),
            "accuracy of its students (%)": along(students),
        },
        x="hidden units of the teacher (log)",
        y="",
        log=True,
        share=False,
        ticks={"x": sorted({n for n, _ in students})},
        height=300,
        caption="Teachers of one hidden layer; 40 % of the labels are wrong. Left: the share of "
        "its training labels, right or wrong, that a teacher gives back. Right: validation "
        "accuracy of the students that believe it alone, after 640 steps. Bands are 95 % intervals "
        f"over {_splits(students.values())} splits.",
    )


def the_map(runs, kinds, qualities, alphas):
    """What a student gains over labels alone, each at its better budget.

    runs: {(kind of teacher, quality of labels): Runs}."""

    def best(kind, quality, alpha):
        return runs[kind, quality].where(alpha=alpha).best()

    def cell(kind, quality, alpha):
        gain = best(kind, quality, alpha).minus(best(kind, quality, 0))
        return gain.mean, gain.verdict(cells=cells)

    cells = len(kinds) * len(qualities) * len(alphas)
    splits = _splits([best(kinds[0], qualities[0], alphas[0]).estimate()])

    return plots.verdict_map(
        kinds,
        qualities,
        alphas,
        cell,
        "Validation accuracy minus that of labels alone, in points: means over "
        f"{splits} splits, each student at the better of 160 and 640 steps. The sign above is the "
        f"verdict, whose interval is widened so that all {cells} cells hold at once; at “?” it "
        "holds 0.",
        "Three maps. Clean labels: nothing to gain from a good teacher, losses from the others "
        "that grow with alpha. Wrong labels: gains that grow with alpha for the good teacher, and "
        "are largest in the middle or gone for the others.",
        "",
        "alpha",
        [f"teacher: {kind}" for kind in kinds],
    )
