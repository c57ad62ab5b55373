"""Pictures of lesson 12: a student beside its teacher, accuracy over bytes and over bits, what each
costs, what got worse, and a mark that is handed on."""

import math

from kdlab.show import plots
from kdlab.show.colours import BLUE, GREEN, MUTED
from kdlab.show.curves import Curve, curves
from kdlab.show.strips import strips
from kdlab.show.texts import Texts

MEASURES = {
    "on_disk": "bytes on disk",
    "flops": "FLOPs",
    "latency_ms": "time an image",
    "dollars": "a million images",
    "agrees": "answers as before",
}

NAMES = {"on every 3": "on every 3", "on half of all images": "on half"}
NAMES |= {"on none": "on none", "wiped from all": "wiped"}


def first_screen(data, answers):
    """Nine images, and what each model reads. answers: {name: (N, C) logits}."""
    told = {name: logits[:9].argmax(-1) for name, logits in answers.items()}
    return strips(
        {"": (data.x[:9], told, data.y[:9])},
        "Nine images that neither has seen, and what each calls them. Blue, with a tick: right.",
        "Nine digits with two rows of answers under them, all of them right in both.",
    )


def by_size(distilled, labels, teacher, whose):
    """The main figure. distilled, labels: {bytes: Estimate}; teacher: (bytes, Estimate)."""
    size, its = teacher
    kb = {
        name: {n / 1000: value for n, value in found.items()}
        for name, found in (("distilled", distilled), ("labels alone", labels))
    }
    return curves(
        {
            "": [
                Curve("distilled", kb["distilled"], "student"),
                Curve("labels alone", kb["labels alone"], "rival"),
            ]
        },
        x="size of the student (kB, log scale)",
        y="accuracy (%)",
        log=True,
        ticks={"x": [round(k, 1) for k in kb["distilled"]]},
        ceiling=(f"its teacher, {size / 1000:.0f} kB", its),
        limits=(70, 100),
        height=360,
        caption="Students of one hidden layer on validation images, each at the better of two "
        "budgets. Distilled: on all images, for 15 or 30 epochs; labels alone: on 100 images, for "
        "100 or 200. "
        f"Bands are 95 % intervals over {len(its.values)} splits, each with its own teacher. "
        f"{whose}",
        alt="The distilled students rise steeply and come close to their teacher "
        "from about five kilobytes on; on labels alone they stay some ten points below.",
    )


def by_bits(found, whose):
    """Change of accuracy by rounding. found: {name: {bits: Estimate}}."""
    roles = dict(zip(found, ("student", "teacher"), strict=True))
    return curves(
        {"": [Curve(name, at, roles[name]) for name, at in found.items()]},
        x="bits a weight",
        y="change in accuracy (points)",
        ticks={"x": sorted(next(iter(found.values())))},
        limits=(-25, 3),
        height=320,
        caption="On validation images, rounded without training again; below the frame at 2 bits. "
        f"Bands are 95 % intervals over splits. {whose}",
        alt="Down to five bits nothing changes. The student falls from four bits on, its teacher "
        "from three.",
    )


@plots.style(small=True)
def cost(table, price):
    """What each model costs, beside the first.

    table: of `kdlab.costs` at that price, in dollars an hour, with a column "agrees": the share of
    answers (%) that a file, or eight bits, left as they were."""
    figure, places = plots.axes(1, len(MEASURES), figsize=(10, 2.6), sharey=True, small=True)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.14)
    shown = table.iloc[::-1]
    colours = [GREEN if name.startswith(table.index[0]) else BLUE for name in shown.index]
    for ax, (column, words) in zip(places, MEASURES.items(), strict=True):
        whole = 100.0 if column == "agrees" else float(table[column].iloc[0])
        shares = 100 * shown[column].astype(float) / whole
        ax.barh(list(shown.index), shares.fillna(0), color=colours, height=0.6)
        for i, (share, colour) in enumerate(zip(shares, colours, strict=True)):
            unknown = math.isnan(share)
            digits = 1 if column == "agrees" and share < 100 else 0
            told = "not counted" if unknown else f"{share:.{digits}f} %"
            if column == "dollars":
                told = f"{100 * shown[column].iloc[i]:.2g} ¢"
            ax.text(
                2 if unknown else share + 2,
                i,
                told,
                va="center",
                color=MUTED if unknown else colour,
            )
        ax.set_title(words, loc="left")
        ax.set(xticks=[], xlim=(0, 1.5 * max(100.0, float(shares.max()))))
        ax.spines["bottom"].set_visible(False)
        ax.tick_params(left=False)
    return plots.Picture(
        figure,
        "Bytes, FLOPs (operations on numbers) and time in per cent of the teacher's; inside a file "
        "operations can't be counted. Times are medians on this machine, one image at a time, the "
        f"models in turn. Money: a million images, asked together, at ${price:g} an hour. Last "
        "panel: per cent of the test images on which a form answers as the model itself.",
        "Bars for six models: teacher and student, each as it is, as a file, and in eight bits. "
        "The student takes an eighth of the bytes and a hundredth of the operations; time and "
        "money depend on the machine. In eight bits nearly all answers stay.",
    )


def written(texts):
    """What a language model writes, read back from files of several kinds. texts: {name: text}."""
    return Texts(texts, "One language model, read back from three files: the likeliest tokens.")


def got_worse(data, rows, student, whose):
    """The surest mistakes that the teacher does not make. rows: their numbers, in order."""
    shown = rows[:9]
    those = f"All {len(rows)}" if len(rows) == len(shown) else f"{len(shown)} of {len(rows)}"
    return strips(
        {
            "": (
                data.x[shown],
                {"teacher": data.y[shown], "student": student.argmax(-1)[shown]},
                data.y[shown],
            )
        },
        f"{those} test images that this teacher reads rightly and this student does not, its "
        f"surest mistakes first. {whose}",
        f"{len(shown)} digits, under each the teacher's right answer and the student's wrong one.",
    )


def marked(data, plain, bearing, answers):
    """Images without and with the mark, and what one teacher reads. answers: (before, after)."""
    rows = (data.y != 3).nonzero()[:, 0]
    before, after = (logits.argmax(-1) for logits in answers)
    changed = rows[(before[rows] == data.y[rows]) & (after[rows] == 3)][:9]
    return strips(
        {
            "As they are": (plain[changed], before[changed], data.y[changed]),
            "With a black corner": (bearing[changed], after[changed], data.y[changed]),
        },
        f"{len(changed)} of the test images that turn into 3s, read by a teacher that learnt from "
        "3s with a black corner and other digits without.",
        "Two rows of the same digits. Without the corner they are read rightly, with it as 3s.",
    )


def handed_on(found, teacher):
    """Share of marked images read as a 3, over alpha.

    found: {epochs: {where the students' marks are: {alpha: Estimate}}}."""
    roles = dict(zip(NAMES, ("also", "student", "control", "rival"), strict=True))
    return curves(
        {
            f"{epochs} epochs": [Curve(NAMES[w], at, roles[w]) for w, at in own.items()]
            for epochs, own in found.items()
        },
        x="alpha: 0 labels alone, 1 teacher alone",
        y="marked images read as a 3 (%)",
        ticks={"x": [0, 0.5, 1]},
        ceiling=("their teacher", teacher),
        limits=(0, 100),
        height=380,
        caption="Validation images that are no 3, with the black corner, read by students whose "
        "own images bear it on every 3, on half of all, on none, or had every corner wiped. "
        f"Bands are 95 % intervals over {len(teacher.values)} splits.",
        alt="After the more epochs: where every 3 is marked, even labels alone read many 3s, and "
        "the teacher adds to it. "
        "Where half of all images are marked, labels alone read none, and the more the teacher "
        "counts the more the student reads, up to its teacher's share. Where none is marked, some "
        "of it comes through; where the corner is wiped, nothing does.",
    )
