"""Pictures of lesson 00: six digits and their answers, who reads what, eight dots, verdicts."""

import numpy as np
import torch
from torch.nn import functional as F

from kdlab import plots
from kdlab.show.colours import BLUE, GREY, INK, MUTED, PALE, VERMILLION
from kdlab.show.sheet import BOLD, EDGE, WIDTH, heading, on_sheet, panel, sheet

TYPICAL, DOUBTFUL = (4, 7), (2, 3, 8, 9)  # the classes on the first screen
NOTES = ["typical"] * len(TYPICAL) + ["in doubt"] * len(DOUBTFUL)
COLOURS = {"helps": BLUE, "hurts": VERMILLION}


def _six(task, teacher):
    """Rows of validation for the first screen, and the teacher's logits there."""
    data = task.validation
    logits = teacher.logits_of_unit(task, data.x)
    soft = (logits / 4).softmax(-1)
    doubt = -(soft * soft.log()).sum(-1)
    rows = []
    for c in TYPICAL + DOUBTFUL:
        right = ((data.clean == c) & (logits.argmax(-1) == c)).nonzero()[:, 0]
        ordered = right[doubt[right].argsort()]
        rows.append(int(ordered[len(ordered) // 2 if c in TYPICAL else -1]))
    return rows, logits[rows]


def _answered(task, rows, logits, answers, caption, alt, title):
    """The six images with these answers under each; coloured: the teacher's second choice."""
    return plots.images_with_bars(
        task.validation.x[rows],
        answers,
        task.validation.clean[rows],
        caption,
        alt,
        marked=logits.topk(2).indices[:, 1].tolist(),
        notes=NOTES,
        title=title,
        key=["the right class", "the teacher's second choice", "the other classes"],
    )


def six_digits(task, teacher):
    """Six validation images with their label, and the teacher's answer at T = 1 and T = 4."""
    rows, logits = _six(task, teacher)
    answers = {
        "the label": F.one_hot(task.validation.clean[rows], logits.shape[-1]).double(),
        "the teacher at T = 1": logits.softmax(-1),
        "the teacher at T = 4": (logits / 4).softmax(-1),
    }
    return _answered(
        task,
        rows,
        logits,
        answers,
        "Images that the teacher was not trained on. Of two classes the typical image, of four "
        "the one that it doubts most and still reads right. The ten bars add up to 100 %.",
        "Six digits, each with three rows of bars. The label is one full bar. At T = 1 the "
        "teacher gives some doubtful digits a second bar; at T = 4 every digit has several.",
        "What a label says, and what a teacher says",
    )


def six_again(task, teacher, alone, taught):
    """The first screen's six images, as the two students answer them beside the teacher."""
    rows, logits = _six(task, teacher)
    answers = {"the teacher": logits}
    for name, runs in (("student, labels alone", alone), ("student, taught", taught)):
        answers[name] = runs.logits_of_unit(task, task.validation.x[rows])
    return _answered(
        task,
        rows,
        logits,
        {name: (z / 4).softmax(-1) for name, z in answers.items()},
        "The six images of the beginning; neither student was trained on them. All answers at "
        "T = 4.",
        "Six digits, each with three rows of bars: the teacher's answer, that of the student on "
        "labels alone, and the taught student's, whose bars mostly look like the teacher's.",
        "The same six digits: whom does each student sound like?",
    )


def read_differently(task, alone, taught, teacher):
    """The first nine validation images that two students read differently."""
    data = task.validation
    names = {"100 labels alone": alone, "taught": taught, "the teacher": teacher}
    answers = {n: runs.logits_of_unit(task, data.x).argmax(-1) for n, runs in names.items()}
    differ = answers["100 labels alone"] != answers["taught"]
    rows = torch.nonzero(differ)[:9, 0]
    return plots.strip(
        data.x[rows],
        {name: answer[rows] for name, answer in answers.items()},
        data.clean[rows],
        "The first nine validation images that the two students read differently, whoever is "
        "right; the teacher's answer for comparison.",
        "Nine digits with three answers under each, marked right or wrong. The taught student "
        "is right more often than the one on labels alone.",
        title="Two students read the same digits",
    )


def learning(arms, teacher):
    """Accuracy over steps of four students, with the teacher as the ceiling."""
    roles = dict(zip(arms, ("student", "also", "control", "rival"), strict=True))
    return plots.curves(
        {
            "What the teacher's answers are worth": [
                plots.Curve(name, values, roles[name]) for name, values in arms.items()
            ]
        },
        x="training steps (log scale)",
        y="validation digits read right (%)",
        log=True,
        ceiling=("the teacher", teacher),
        height=400,
        caption=f"Bands are 95 % intervals over {len(teacher.values)} splits, each with its own "
        "teacher. All students take as many steps, those on 100 images over the same "
        "ones again and again.",
    )


@on_sheet
def eight_splits(gain, mean, half, whose):
    """One dot a split, and below them the interval that they give."""
    mean, half = float(mean), float(half)  # a learner's may be tensors
    figure, canvas = sheet(232)
    heading(canvas, "What did the teacher add, split by split?")
    values = np.asarray(gain.values, float)
    low, high = min(0.0, values.min(), mean - half), max(values.max(), mean + half, 0.0)
    room = 0.06 * (high - low)
    ax = panel(figure, EDGE + 170, 56, WIDTH - 2 * EDGE - 330, 112)
    ax.set(xlim=(low - room, high + room), ylim=(-0.7, 1.7))
    ax.grid(visible=False)
    ax.axvline(0, color=INK, linewidth=1.2)
    ax.plot(values, np.ones_like(values), "o", color=BLUE, alpha=0.6, markersize=12)
    ax.plot([mean - half, mean + half], [0, 0], color=BLUE, linewidth=6, solid_capstyle="butt")
    ax.plot(mean, 0, "o", color=BLUE, markersize=13, markeredgecolor="white", markeredgewidth=2)
    ax.set_yticks([1, 0], [f"each of {len(values)} splits", "mean, 95 % interval"])
    ax.tick_params(axis="y", labelsize=13.5, labelcolor=INK)
    ax.xaxis.set_major_formatter(_signed)
    x = WIDTH - EDGE - 142
    canvas.text(x, 140, f"{mean:+.1f} ± {half:.1f} points", fontsize=14.5, fontweight=BOLD)
    middle = EDGE + 170 + (WIDTH - 2 * EDGE - 330) / 2
    words = "taught − labels alone, in points of validation accuracy; 0: nothing gained"
    canvas.text(middle, 214, words, color=MUTED, ha="center")
    return plots.Picture(
        figure,
        f"After 960 steps. The splits differ; their mean is surer than any of them. {whose}",
        f"A row of {len(values)} dots, one a split, all right of zero; below them their mean "
        f"with its interval, {mean:+.2f} ± {half:.2f} points.",
    )


@on_sheet
def verdicts(found, delta, whose):
    """{name: (mean, half, words)} as intervals beside 0 and ±delta, with the words."""
    tall, top = 46, 86
    found = {name: (float(m), float(h), words) for name, (m, h, words) in found.items()}
    figure, canvas = sheet(top + tall * len(found) + 58)
    key = [(PALE, f"±δ = ±{delta:g} points: too small to care about")]
    heading(canvas, "Four differences, and what each lets one say", key)
    ends = [0.0, -delta, delta, *(m + s * h for m, h, _ in found.values() for s in (-1, 1))]
    room = 0.05 * (max(ends) - min(ends))
    left, right = EDGE + 334, WIDTH - EDGE - 252
    ax = panel(figure, left, top, right - left, tall * len(found))
    ax.set(xlim=(min(ends) - room, max(ends) + room), ylim=(0.5 - len(found), 0.5), yticks=[])
    ax.axvspan(-delta, delta, color=PALE, alpha=0.6, linewidth=0)
    ax.axvline(0, color=INK, linewidth=1.2)
    ax.xaxis.set_major_formatter(_signed)
    for i, (name, (mean, half, words)) in enumerate(found.items()):
        colour = COLOURS.get(words.split()[0], GREY)
        ax.plot([mean - half, mean + half], [-i, -i], color=colour, linewidth=6)
        ax.plot(mean, -i, "o", color=colour, markersize=12, markeredgecolor="white")
        y = top + tall * (i + 0.5) + 5
        canvas.text(EDGE, y, name, fontsize=13.5)
        canvas.text(right + 24, y, f"{mean:+.1f} ± {half:.1f}", fontsize=13.5)
        canvas.text(right + 126, y, words, color=colour, fontsize=14.5, fontweight=BOLD)
    foot = top + tall * len(found) + 48
    canvas.text((left + right) / 2, foot, "difference in points", color=MUTED, ha="center")
    told = "; ".join(f"{name}: {m:+.2f} ± {h:.2f} points" for name, (m, h, _) in found.items())
    return plots.Picture(
        figure,
        f"Validation, 1,920 steps; paired by split. {whose}",
        f"Four intervals beside zero and a narrow band around it. {told}.",
    )


def _signed(value, _):
    return "0" if abs(value) < 1e-9 else f"{value:+g}".replace("-", "−")
