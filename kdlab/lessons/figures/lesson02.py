"""The pictures of lesson 02, dark knowledge."""

import pandas as pd
import torch

from kdlab.evidence.intervals import Estimate
from kdlab.losses.softmax import log_softmax
from kdlab.show import plots
from kdlab.show.colours import BLUE, FAINT, GREY, INK, LIGHT, MUTED, PALE, VERMILLION
from kdlab.show.curves import Curve
from kdlab.show.picture import Picture
from kdlab.show.sheet import BOLD, ROLES, image, on_sheet, percent, pictured, sheet

MISSING = 3
SHOWN = (9, 8, 2)  # classes on the first screen and in the README
NINE = 9  # images in a row


def _softened(logits, T):
    return log_softmax(logits, T).exp()


def _by_likeness(data, p, c):
    """The rows of class c, the most 3-like first."""
    rows = (data.y == c).nonzero().flatten()
    return rows[p[rows, MISSING].argsort(descending=True)]


def not_threes(data, logits, T=4):
    """Of three classes the image that the teacher finds most 3-like, a middling one, the least."""
    p = _softened(logits, T)
    rows = []
    for c in SHOWN:
        ordered = _by_likeness(data, p, c)
        rows += [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
    rows = torch.stack(rows)
    return plots.images_with_bars(
        data.x[rows],
        p[rows],
        data.y[rows],
        "Nine training images that the student will learn from. Below each the teacher's answer: "
        "ten bars, one a class, that add up to 100 %. The number is the share of the 3.",
        "Nine digits, three each of 9, 8 and 2, with ten bars under each. Beside the tall bar of "
        "the right class stands a bar for 3: high for the most 3-like image of each class, hardly "
        "to be seen for the least.",
        marked=MISSING,
        title=f"None of these is a 3. Yet the teacher finds some of them 3-like (T = {T}).",
        notes=["most 3-like", "middling", "least"] * len(SHOWN),
        key=("the right class, all that a label says", "3", "the other classes"),
    )


def alike(table, data, whose):
    """What the teacher finds alike. table: (C, C) shares; faces are the classes' mean images."""
    faces = torch.stack([data.x[data.y == c].mean(0) for c in range(len(table))])
    return plots.heat(
        table,
        faces,
        "Mean probability of each wrong class at T = 4, in per cent, on validation images. "
        "Blank: the right class, which was set to 0. A share below 2 % has a shade and no number. "
        "Small images: class means. Right: the four largest shares. Outlined: what the teacher "
        f"says of 3s; only in such answers will a student hear of them. {whose}",
        "A grid of ten classes by ten answers. Darkest where digits look alike, such as 1 and 8, "
        "9 and 3; the column of the 3 is outlined.",
        marked=MISSING,
        columns="the teacher's answer",
    )


def learning(runs, whose=""):
    """One student over its epochs: digits that it is shown, and 3s, which it is not."""
    shares = {
        name: {int(e): 100 * v for e, v in zip(runs.frame["epoch"], runs.frame[k], strict=True)}
        for name, k in (("the other nine", "reads_others"), ("3s, never shown", "reads_3"))
    }
    others, threes = shares.items()
    return plots.curves(
        {"One student, taught by soft answers alone": [Curve(*others, "also"), Curve(*threes)]},
        x="epoch",
        y="read right (%)",
        limits=(0, 100),
        ticks={"y": [0, 25, 50, 75, 100]},
        height=290,
        caption="Validation images of one split, after every epoch. No label was used, and no "
        f"image of a 3. {whose}".strip(),
        alt="The other nine digits are read after a few epochs. The 3s stay at nothing at first "
        "and then rise, to most of them in the end.",
    )


def seen_and_read(train, logits, student, validation, T=4):
    """Above, the most 3-like images it was shown; below, the first 3s it met, with its answers."""
    p = _softened(logits, T)[:, MISSING]
    sources = p.argsort(descending=True)[:NINE]
    told = [f"a {int(train.y[row])}\n{percent(float(p[row]))} a 3" for row in sources]
    threes = (validation.y == MISSING).nonzero().flatten()[:NINE]
    with torch.no_grad():
        answers = student(validation.x[threes]).argmax(-1)
    return plots.strips(
        {
            "What it was shown: the training images that its teacher finds most 3-like": (
                train.x[sources],
                told,
                None,
            ),
            "What it then read: the first nine 3s of its life": (
                validation.x[threes],
                answers,
                validation.y[threes],
            ),
        },
        "Above: training images, their true class and the teacher's probability of a 3 at "
        f"T = {T}. Below: validation images and the student's answers after the last epoch; "
        "framed, with a tick: right.",
        "Above, nine digits that are no 3s, such as 9s, 8s, 5s and 2s, with a share of 3 each. "
        "Below, nine 3s, most of them answered 3.",
    )


def shuffled(data, before, after, whose, T=4):
    """The nine most 3-like images: the teacher's answers, and the control's."""
    p, q = _softened(before, T), _softened(after, T)
    rows = p[:, MISSING].argsort(descending=True)[:NINE]
    return plots.images_with_bars(
        data.x[rows],
        {"the teacher": p[rows], "wrong classes shuffled": q[rows]},
        data.y[rows],
        f"The nine training images of the picture before, T = {T}. The number is the share of the "
        f"3. Right answer, confidence and entropy stay. {whose}",
        "Nine digits with two rows of bars. The tall bar stays; the small ones stand elsewhere "
        "in the second row, so the share of the 3 is another one.",
        marked=MISSING,
        title="The control: as sure and as soft, but about other classes",
        key=("the right class", "3", "the other classes"),
    )


def over_temperature(taught, shuffled, labels, teacher, whose):
    """The main figure: the share of 3s read over T. taught: {epochs: {T: Estimate}}."""
    (short, few), (long, many) = sorted(taught.items())
    return plots.curves(
        {
            "3s read by students that were never shown one": [
                Curve(f"student, {long} epochs", many),
                Curve(f"student, {short} epochs", few, "also"),
                Curve("labels alone", dict.fromkeys(many, labels), "rival"),
                Curve("wrong classes shuffled", shuffled, "control"),
            ]
        },
        x="temperature T (log scale)",
        y="read as 3 (%)",
        log=True,
        limits=(0, 100),
        ticks={"y": [0, 25, 50, 75, 100]},
        ceiling=("its teacher", teacher),
        height=390,
        caption="Validation 3s. Dots are means, bands 95 % intervals over "
        f"{len(teacher.values)} splits, each with its own teacher. Labels alone, which know no T, "
        f"and the shuffled control learn for {long} epochs; both lie on the floor: no 3 at all. "
        f"{whose}",
    )


def over_bias(runs, tasks, metrics, chosen, whose):
    """What a bias for the 3 costs and brings. metrics: (of 3s, of others); chosen: {unit: bias}."""
    grid = range(11)
    found = {metric: {} for metric in metrics}
    for bias in grid:
        for metric in metrics:
            shares = {}
            for task in tasks:
                logits = runs.logits_of_unit(task, task.validation.x).clone()
                logits[:, MISSING] += bias
                shares[task.unit] = 100 * float(metric(logits, task.validation))
            found[metric][bias] = Estimate(pd.Series(shares), "read right", "%")
    threes, others = found.values()
    mean = Estimate(pd.Series(chosen), "bias")
    return plots.curves(
        {
            "A bias for the 3, raised without any training": [
                Curve("3s, never shown", threes),
                Curve("the other nine", others, "also"),
            ]
        },
        x="bias: added to the logit of the 3",
        y="read right (%)",
        limits=(60, 100),
        ticks={"y": [60, 70, 80, 90, 100]},
        height=300,
        caption="Validation images; students taught at T = 4 for 30 epochs. Bands are 95 % "
        f"intervals over {len(tasks)} splits; the axis begins at 60 %. The biases chosen for all "
        f"ten digits, one a split: {mean} on average. {whose}",
    )


def mended(runs, task, bias):
    """The validation 3s that the student missed, and its answers once the bias is raised."""
    exam = task.validation
    logits = runs.logits_of_unit(task, exam.x)
    raised = logits.clone()
    raised[:, MISSING] += bias
    before, after = logits.argmax(-1), raised.argmax(-1)
    rows = ((exam.y == MISSING) & (before != MISSING)).nonzero().flatten()[:NINE]
    rows = rows if len(rows) else (exam.y == MISSING).nonzero().flatten()[:NINE]
    return plots.strip(
        exam.x[rows],
        {"as trained": before[rows], "bias raised": after[rows]},
        exam.y[rows],
        "The first validation 3s that the student of this split misses (T = 4, 30 epochs), and "
        f"what it answers with {bias:.1f} added to its logit of the 3.",
        "Some 3s, answered wrong as trained; with the bias raised, more are answered 3.",
        title="The 3s it missed",
    )


def gain_of_bias(gains):
    """What the chosen biases bring over all ten digits. gains: {name: Estimate}, short first."""
    (splits,) = {len(gain.values) for gain in gains.values()}
    return plots.intervals(
        {f"student, {name}": gain for name, gain in gains.items()},
        "Accuracy with the bias minus without it, on test images of all ten digits, T = 4. Dots "
        f"are means, bars 95 % intervals over {splits} splits; at the line, nothing is gained. "
        "The biases were chosen on validation images.",
        "Two intervals. " + "; ".join(f"{name}: {gain}" for name, gain in gains.items()) + ".",
        label="gain in test accuracy (points)",
        zero=0,
        colours=dict(zip((f"student, {name}" for name in gains), (LIGHT, BLUE), strict=True)),
    )


def what_teacher_saw(gains):
    """Gains over labels alone, over labels a class. gains: {title: {name: {count: Estimate}}}."""
    roles = {"its teacher": "teacher", "soft, T = 4": "student", "nearly hard, T = 1": "also"}
    splits = len(next(e for by in gains.values() for at in by.values() for e in at.values()).values)
    return plots.curves(
        {
            title: [Curve(name, by, roles.get(name, "control")) for name, by in curves.items()]
            for title, curves in gains.items()
        },
        x="labels a class (log scale)",
        y="gain over labels alone (points)",
        log=True,
        height=370,
        caption="Validation accuracy minus that of labels alone, which is the line at 0; students "
        f"take about 1,000 steps. Dots are means, bands 95 % intervals over {splits} splits. "
        "Shuffled: the right panel's soft answers, wrong classes mixed up. Students see the "
        "labelled images only. At 100 a class the two teachers are one.",
    )


# --- the README's first picture ---

SCALE = 785  # points across: 1,200 pixels of the PNG
TALL = 330


@on_sheet
def readme(data, logits, taught, labels, teacher, T=4):
    """Digits, the teacher's answers on them, and how many of the missing 3s a student reads."""
    figure, canvas = sheet(TALL)
    canvas.set(xlim=(0, SCALE), ylim=(TALL, 0))
    figure.set_size_inches(SCALE / 72, TALL / 72)
    p = _softened(logits, T)
    rows = torch.stack([_by_likeness(data, p, c)[0] for c in SHOWN])
    canvas.text(22, 32, "A student is shown these, and no 3.", fontsize=15, fontweight=BOLD)
    canvas.text(22, 52, "Its teacher's answers say how 3-like each is.", color=MUTED)
    for i, (pixels, answer) in enumerate(
        zip(pictured("readme", "images", data.x[rows]), p[rows].tolist(), strict=True)
    ):
        _digit(canvas, 22 + 120 * i, pixels, answer, int(data.y[rows[i]]))
    canvas.text(420, 32, "Later it reads most 3s it meets.", fontsize=15, fontweight=BOLD)
    canvas.text(420, 52, "3s read right (%), over the softness T of the answers", color=MUTED)
    _missing(figure, taught, labels, teacher)
    return Picture(
        figure,
        "A student that is never shown a 3 learns to read most of them, from its teacher's small "
        f"wrong answers; labels alone teach it none. Left: training images, T = {T}. Right: "
        f"validation 3s; the band is a 95 % interval over {len(teacher.values)} splits.",
        "Left, a 9, an 8 and a 2 with the teacher's probabilities as bars, that of the 3 in "
        "colour. Right, the share of 3s that a student reads rises with the temperature, close to "
        "its teacher's; with labels alone it stays at zero.",
    )


def _digit(canvas, x, pixels, answer, right):
    """One image with ten bars under it, the right class grey, the 3 in colour."""
    image(canvas, pixels, x + 8, 74, 92)
    foot, step = 276, 10.8
    for k, share in enumerate(answer):
        colour = VERMILLION if k == MISSING else GREY if k == right else PALE
        canvas.bar(x + (k + 0.5) * step, -90 * share, 0.78 * step, bottom=foot, color=colour)
        look = {"fontsize": 10, "ha": "center", "color": colour if colour != PALE else FAINT}
        canvas.text(x + (k + 0.5) * step, foot + 14, str(k), fontweight=BOLD, **look)
    canvas.plot([x, x + 10 * step], [foot, foot], color=FAINT, linewidth=1)
    look = {"color": VERMILLION, "fontsize": 13, "fontweight": BOLD}
    beside = right == MISSING - 1  # then a tall bar stands to the left
    around = answer[MISSING : MISSING + 3] if beside else answer[MISSING - 2 : MISSING + 3]
    place = x + (MISSING + (0.05 if beside else 0.5)) * step, foot - 90 * max(around) - 5
    canvas.text(*place, percent(answer[MISSING]), ha="left" if beside else "center", **look)
    canvas.text(x + 54, foot + 36, f"a {right}", color=INK, ha="center")


def _missing(figure, taught, labels, teacher):
    """The share of 3s over T with its band, the ceiling and the floor."""
    ax = figure.add_axes((452 / SCALE, 1 - 286 / TALL, 210 / SCALE, 216 / TALL), facecolor="none")
    at = sorted(taught)
    low, high = zip(*(taught[T].interval() for T in at), strict=True)
    ax.fill_between(at, low, high, color=BLUE, alpha=0.15, linewidth=0)
    ax.plot(
        at,
        [taught[T].mean for T in at],
        marker="o",
        markersize=7,
        clip_on=False,
        **ROLES["student"],
    )
    ax.axhline(teacher.mean, **ROLES["teacher"])
    ax.plot(at, [labels.mean] * len(at), clip_on=False, **ROLES["rival"])
    ax.set(xscale="log", xlim=(at[0], at[-1]), ylim=(0, 100), yticks=[0, 25, 50, 75, 100])
    ax.set_xticks(at, [f"{T:g}" for T in at])
    ax.minorticks_off()
    last = taught[at[-1]].mean
    for y, words, role in (
        (max(teacher.mean, last + 7), "its teacher", "teacher"),
        (min(last, teacher.mean - 7), "the student", "student"),
        (labels.mean, "labels alone", "rival"),
    ):
        place = (1.05, y / 100)
        look = {"color": ROLES[role]["color"], "fontweight": BOLD, "fontsize": 12.5}
        ax.text(*place, words, transform=ax.transAxes, va="center", clip_on=False, **look)
