"""Pictures of lesson 08: which words an answer rests on, what a cut or narrow student keeps over
epochs, and whose answers changed."""

import numpy as np

from kdlab.evidence.intervals import Estimate
from kdlab.lessons import tables
from kdlab.show.colours import BLUE, FAINT, GREEN, GREY, INK, MUTED, VERMILLION
from kdlab.show.curves import Curve, curves
from kdlab.show.picture import Picture
from kdlab.show.sheet import (
    BOLD,
    EDGE,
    WIDTH,
    heading,
    on_sheet,
    panel,
    percent,
    rectangle,
    sheet,
    width_of,
)

ROLES = {  # signal of benchmarks/encoders.py: role
    "labels": "control",
    "logits": "student",
    "layer map": "also",
    "relations": "also",
}
PANELS = {  # student: title
    "3 blocks": "Three of four blocks",
    "2 blocks": "Two blocks",
    "1 block": "One block",
    "half as wide": "Two blocks, half as wide, drawn anew",
}
LIMITS = {"half as wide": (10, 80)}  # per cent, of the panels' axes
COPIED = (45, 80)
UNITS = "samples of 500 texts, with one teacher"
SHADES = ((0.3, "#e39a6c"), (0.1, "#f3c7a6"), (0.03, "#fbe3d4"))  # points lost: at least, colour


def over_samples(table, student, signal, epochs=None):
    """One cell of benchmarks/results/encoders.csv on test texts → `Estimate`, over samples."""
    rows = table.query("part == 'test' and student == @student and signal == @signal")
    if epochs is not None:
        rows = rows[rows["epochs"] == epochs]
    units = tables.over(table, UNITS)
    return Estimate(rows.set_index("sample")["accuracy"], "accuracy on test", "%", 1, units)


def _shade(share):
    return next((colour for least, colour in SHADES if share >= least), "none")


def first_screen(found, names, right):
    """One sentence as the teacher reads it: found as `kdlab.lessons.encoders.rests_on` gives it."""
    return rests_on(
        {"": found},
        names,
        "A docstring that the teacher has not read. Left, its words, shaded by what the answer "
        "loses when one is left out. Right, the teacher's answer over the eight fields.",
        "A sentence with shaded words, one of them darkest, and bars for eight fields, of which "
        "one is long.",
        right,
        "Which part of the library? The words that the answer rests on",
    )


def before_and_after(rows, names, right, whose):
    """The same sentence as several models read it: rows {name: as in `first_screen`}."""
    return rests_on(
        rows,
        names,
        "The sentence of the beginning, as the teacher, one of its blocks, and that block after "
        "four epochs read it. Orange bars: a wrong answer. The shades show what each model's own "
        f"answer loses without a word. {whose}",
        "Three rows, a model each: the sentence shaded, and its answer as bars.",
        right,
    )


@on_sheet
def rests_on(rows, names, caption, alt, right=None, title=None):
    """A sentence's words, shaded, and the answer as bars; a row a model.

    rows: {name: ([(word, share)], (C,) probabilities)}; the share is what the answer loses without
    the word. names: of the fields. right: the number of the right field."""
    key = [(colour, f"{100 * least:.0f} points") for least, colour in reversed(SHADES)]
    key[0] = (key[0][0], "without this word the answer loses 3 points or more")
    key = [key[0], *((colour, words + " or more") for colour, words in key[1:])]
    tall, top = 176, 84 if title else 54
    figure, canvas = sheet(top + tall * len(rows) + 4)
    heading(canvas, title, key)
    for i, (name, (words, shares)) in enumerate(rows.items()):
        y = top + tall * i
        canvas.text(EDGE, y + 26, name, fontsize=14, fontweight=BOLD, color=INK)
        _words(canvas, words, y + 58)
        _fields(canvas, shares, names, right, y + 14)
    return Picture(figure, caption, alt)


def _words(canvas, words, y, left=EDGE, right=560, size=17):
    x = left
    for word, share in words:
        wide = width_of(word, size)
        if x + wide > right:
            x, y = left, y + 34
        rectangle(canvas, x - 4, y - 19, wide + 8, 27, facecolor=_shade(share))
        canvas.text(x, y, word, fontsize=size, color=INK)
        x += wide + 11


def _fields(canvas, shares, names, right, top, left=720, tall=20, wide=170):
    shares = np.asarray(shares, dtype=float)
    said = int(shares.argmax())
    shown = sorted(np.argsort(-shares, kind="stable")[:8])  # of many fields the likeliest
    for row, c in enumerate(shown):
        name, share = names[c], shares[c]
        y = top + tall * row
        strong = c == said
        colour = (BLUE if right in (None, said) else VERMILLION) if strong else GREY
        rectangle(canvas, left, y, max(wide * share, 1.5), tall - 6, facecolor=colour)
        look = {"fontweight": BOLD if strong else "normal", "color": INK if strong else MUTED}
        canvas.text(left - 10, y + 12, name, ha="right", **look)
        if strong:
            canvas.text(left + wide * share + 8, y + 12, percent(share), **look)


def over_epochs(table, mine, whose):
    """The main figure: accuracy over epochs, a panel a student, a line a signal.

    table: rows of benchmarks/results/encoders.csv. mine: {student: {epochs: accuracy}} of the
    reader's own sample."""
    bag = over_samples(table, "bag of words", "labels")
    shown = {s: title for s, title in PANELS.items() if (table["student"] == s).any()}
    return curves(
        {title: _signals(table, student, bag) for student, title in shown.items()},
        x="epochs over 500 texts",
        y="accuracy on test (%)",
        limits={title: _span(student, mine.get(student, {})) for student, title in shown.items()},
        share=False,
        height=330,
        columns=2,
        ceiling=("teacher", over_samples(table, "teacher", "itself")),
        dots={shown[student]: found for student, found in mine.items() if student in shown},
        caption="Means over six samples of 500 texts; bands are 95 % intervals over samples (the "
        "teacher is always the same), from benchmarks/encoders.py, each arm at the rate of its "
        "best mark. Epoch 0: cut, not trained. Both axes of the last panel are longer. Diamonds: "
        "your own sample, by logits where blocks are copied, by relations where weights are drawn. "
        f"{whose}",
        alt="Copied blocks begin high and stand close to the teacher within an epoch or two. The "
        "narrow students begin at the bottom. The layer map's crosses the line of the bag of words "
        "late, the one by relations reaches it, those by logits or labels stay below.",
    )


def _span(student, dots):
    """A panel's axis, longer where a reader's own student is below it."""
    low, high = LIMITS.get(student, COPIED)
    return min([low, *dots.values()]), high


def _signals(table, student, bag):
    rows = table[(table["student"] == student) & (table["part"] == "test")]
    found = [
        Curve(
            signal,
            {
                float(e): over_samples(table, student, signal, e)
                for e in sorted(rows[rows["signal"] == signal]["epochs"].unique())
            },
            role,
        )
        for signal, role in ROLES.items()
        if (rows["signal"] == signal).any()
    ]
    ends = rows["epochs"].min(), rows["epochs"].max()
    return [*found, Curve("bag of words", {float(e): bag.mean for e in ends}, "rival")]


@on_sheet
def changed(texts, right, said, names):
    """Texts that two models answer differently, a line each.

    texts: N words; right: (N,) classes; said: {name: (N,) classes}."""
    columns = [560 + EDGE + 130 * i for i in range(3)]
    tall, top = 32, 52
    figure, canvas = sheet(top + tall * len(texts) + 8)
    for x, words in zip(columns, ("right", *said), strict=False):
        canvas.text(x, 30, words, fontweight=BOLD, color=INK)
    for i, text in enumerate(texts):
        y = top + tall * i + 20
        canvas.plot([EDGE, WIDTH - EDGE], [y - 20, y - 20], color=FAINT, linewidth=0.8)
        canvas.text(EDGE, y, _fitted(text, 540), color=INK)
        canvas.text(columns[0], y, names[right[i]], color=MUTED)
        for x, answers in zip(columns[1:], said.values(), strict=False):
            good = answers[i] == right[i]
            words = f"{names[answers[i]]} {'✓' if good else '✗'}"
            canvas.text(x, y, words, color=BLUE if good else VERMILLION, fontweight=BOLD)
    return Picture(
        figure,
        "Test texts that only one of the two answers rightly: first those that the student lost, "
        "then those that it won. In grey the right field.",
        "Nine sentences with the right field and two answers each. In the first five the teacher "
        "is right and the student wrong, in the last four it is the other way round.",
    )


def _fitted(text, wide):
    """As many of its words as there is room for."""
    words = text.split()
    count = min(len(words), 24)  # as many as the models read; measuring takes time
    while count > 1 and width_of(" ".join(words[:count]) + " …") > wide:
        count -= 1
    return " ".join(words[:count]) + (" …" if count < len(words) else "")


@on_sheet
def kept(found, size):
    """Accuracy against parameters. found {name: Estimate or number}; size {name: parameters}."""
    figure, canvas = sheet(330)
    ax = panel(figure, EDGE + 50, 54, WIDTH - 2 * EDGE - 150, 220)
    ax.grid(True, axis="both")
    for name, value in found.items():
        drawn = name == "half as wide" or name.endswith("drawn")
        mark, colour = ("P", GREEN) if name == "teacher" else ("s" if drawn else "o", BLUE)
        x = size[name] / 1e6
        if isinstance(value, Estimate):
            ax.plot([x, x], value.interval(), color=colour, linewidth=2.5)
        mean = value.mean if isinstance(value, Estimate) else value
        edge = colour if drawn else "white"  # hollow: nothing was copied
        inside = "white" if drawn else colour
        ax.plot(x, mean, mark, color=inside, markersize=10, markeredgecolor=edge)
        ax.annotate(name, (x, mean), (10, -4), textcoords="offset points", color=INK)
    ax.set_xlim(0, 1.05 * max(size.values()) / 1e6)
    canvas.text(EDGE, 36, "accuracy on test (%)", color=MUTED)
    canvas.text(
        EDGE + 50 + (WIDTH - 2 * EDGE - 150) / 2,
        318,
        "million parameters",
        color=MUTED,
        ha="center",
    )
    return Picture(
        figure,
        "What is kept against size, at each student's longest budget: copied blocks by logits, "
        "those drawn anew (hollow) by the layer map. Points are means, bars 95 % intervals over "
        "six samples; the teacher is always the same.",
        "; ".join(
            f"{name}: {size[name] / 1e6:.2f} million, {value}" for name, value in found.items()
        )
        + ".",
    )
