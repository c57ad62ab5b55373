"""Images with the probabilities of every class as bars: under each, or one image at several T."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from kdlab.base import arguments
from kdlab.show.colours import FAINT, GREY, INK, MUTED, PALE, VERMILLION
from kdlab.show.picture import Picture
from kdlab.show.sheet import (
    BOLD,
    DIGITS,
    EDGE,
    MOST,
    WIDTH,
    answered,
    array,
    classes,
    heading,
    named,
    on_sheet,
    panel,
    percent,
    pictured,
    sheet,
    width_of,
    wrapped,
)
from kdlab.show.sheet import image as draw


@on_sheet
def images_with_bars(
    images: Any,
    probabilities: Any,
    right: Any,
    caption: str,
    alt: str,
    *,
    marked: Any = None,
    labels: Sequence[str] = DIGITS,
    title: str | None = None,
    notes: Sequence[str] | None = None,
    key: Sequence[str] | None = None,
) -> Picture:
    """Images, and under each the probabilities of every class as bars → `Picture`.

    images: (N, H, W) or (N, c, H, W) in [0, 1]; probabilities: (N, C), or {name: (N, C)} for a row
    of bars a name. right: (N,) classes, drawn dark. marked: a class, or one an image, drawn in
    colour with its share written on it; without it the right class's share is written. notes: words
    under each image. key: words for right, marked and other classes.

    >>> import torch
    >>> x, p = torch.rand(2, 8, 8), torch.full((2, 10), 0.1)
    >>> images_with_bars(x, p, [3, 8], "Two.", "Two digits.")
    Figure: Two. [Two digits.]
    """
    found, arms, right, marked, words = _checked(images, probabilities, right, marked, labels)
    notes = _notes(notes, len(found))
    lines = -(-len(found) // MOST)
    across = -(-len(found) // lines)
    several = any(arms)
    gutter = max(width_of(wrapped(name, 14)) for name in arms) + 18 if several else 0
    cell = min((WIDTH - 2 * EDGE - gutter) / across, 190)
    size, wide, tall = min(cell - 12, 92), min(cell - 14, 128), 56 if several else 96
    line = size + 16 + len(arms) * (tall + 18) + 28 + (18 if any(notes) else 0)
    both = marked is not None and not _short(words)  # then names take two lines
    line += 15 if both else 0
    top = 72 if title else 40
    figure, canvas = sheet(round(top + lines * line))
    heading(canvas, title, _key(words, marked, key))
    for i, pixels in enumerate(found):
        row, column = divmod(i, across)
        x, y = EDGE + gutter + column * cell, top + row * line
        draw(canvas, pixels, x + (cell - size) / 2, y, size)
        left, foot = x + (cell - wide) / 2, y + size + 16
        strong = (right[i], None if marked is None else marked[i])
        for name, p in arms.items():
            foot += tall + 18
            _bars(canvas, p[i], left, foot, wide, tall, *strong)
            if not column:
                canvas.text(EDGE, foot, wrapped(name, 14), color=MUTED, linespacing=1.1)
        _names(canvas, words, left, foot + 14, wide, *strong)
        y = foot + (47 if both else 32)
        canvas.text(x + cell / 2, y, notes[i], color=MUTED, fontsize=12.5, ha="center")
    return Picture(figure, caption, alt)


def _checked(images, probabilities, right, marked, labels):
    """Images, {name: (N, C)}, classes and names, as lists and arrays."""
    me = "images_with_bars"
    found = pictured(me, "images", images)
    given = probabilities if isinstance(probabilities, dict) else {"": probabilities}
    arms = {name: answered(me, name or "probabilities", p, len(found)) for name, p in given.items()}
    counts = sorted({p.shape[1] for p in arms.values()})
    if len(counts) != 1:
        raise ValueError(f"{me}: probabilities must have the same classes, got {counts}")
    right = classes(me, "right", right, len(found), counts[0])
    if marked is not None:
        each = [marked] * len(found) if isinstance(marked, int) else marked
        marked = classes(me, "marked", each, len(found), counts[0])
    return found, arms, right, marked, named(me, "labels", labels, counts[0])[: counts[0]]


def _short(words):
    return max(map(len, words)) <= 2


def _notes(notes, n):
    me = "images_with_bars"
    found = [""] * n if notes is None else arguments.listed(me, "notes", notes, "a list of words")
    if len(found) != n:
        raise ValueError(f"{me}: notes must be words for each of {n} images, got {len(found)}")
    return [str(words) for words in found]


def _key(words, marked, key):
    one = marked and len(set(marked)) == 1
    usual = ["the right class", words[marked[0]] if one else "marked", "the other classes"]
    told = arguments.listed("images_with_bars", "key", key or [], "a list of words")
    told = [*told, *usual[len(told) :]][:3]
    pairs = list(zip((GREY, VERMILLION, PALE), told, strict=True))
    return pairs if marked is not None else [pairs[0], pairs[2]]


def _bars(canvas, p, x, foot, wide, tall, right, marked):
    """One answer as slim bars; one share is written, clear of the tall bar beside it."""
    step = wide / len(p)
    colours = [PALE] * len(p)
    colours[right] = GREY
    if marked is not None:
        colours[marked] = VERMILLION
    heights = np.maximum(tall * p, 0.8)
    middles = x + (np.arange(len(p)) + 0.5) * step
    canvas.bar(middles, -heights, 0.76 * step, bottom=foot, color=colours, clip_on=False)
    canvas.plot([x, x + wide], [foot, foot], color=FAINT, linewidth=1)
    told = right if marked is None else marked
    if p.max() == 1:  # a label: nothing to read off
        return
    words, away = percent(p[told]), told - right
    align, shift = (
        ("left", -0.4) if 0 < away < 4 else ("right", 0.4) if -4 < away < 0 else ("center", 0)
    )
    span = width_of(words, 12, BOLD) / step
    start = told + shift - {"left": 0, "right": span, "center": span / 2}[align]
    under = [
        k
        for k in range(len(p))
        if start - 0.8 < k < start + span + 0.8 and (k != right or not away)
    ]
    above = max(heights[[*under, told]])
    look = {"color": INK if marked is None else VERMILLION, "fontsize": 12, "fontweight": BOLD}
    canvas.text(middles[told] + shift * step, foot - above - 4, words, ha=align, **look)


def _names(canvas, words, x, y, wide, right, marked):
    """Class names under bars: all where they are short, else those that matter, in the middle."""
    step = wide / len(words)
    if not _short(words) or step < 7:
        for k, colour in ((right, INK), (marked, VERMILLION)):
            if k is not None:
                look = {"fontsize": 12, "fontweight": BOLD, "color": colour}
                canvas.text(x + wide / 2, y, words[k], ha="center", **look)
                y += 15
        return
    for k, word in enumerate(words):
        matters = k in (right, marked)
        colour = VERMILLION if k == marked else INK if matters else GREY
        look = {"fontsize": 11, "fontweight": BOLD if matters else "normal", "color": colour}
        canvas.text(x + (k + 0.5) * step, y, word, ha="center", **look)


@on_sheet
def bars(
    answers: dict[str, Any],
    caption: str,
    alt: str,
    *,
    image: Any = None,
    right: int | None = None,
    marked: int | None = None,
    labels: Sequence[str] = DIGITS,
    title: str | None = None,
    height: int = 280,
) -> Picture:
    """One image's probabilities, say at several T, as bars side by side on one linear scale.

    answers: {name: (C,)}, at most six. image: (H, W) or (c, H, W), drawn at the left. right,
    marked: classes in dark and in colour. → `Picture`.

    >>> bars({"T = 1": [0.9, 0.1], "T = 4": [0.6, 0.4]}, "One answer, twice.", "It gets flatter.")
    Figure: One answer, twice. [It gets flatter.]
    """
    arms, words = _one_image(answers, right, marked, labels)
    figure, canvas = sheet(height)
    top = heading(canvas, title) + 30
    left = EDGE + 46
    if image is not None:
        (pixels,) = pictured("bars", "image", torch.as_tensor(image)[None])
        draw(canvas, pixels, EDGE, top + 4, 120)
        left += 120 + 20
    each = (WIDTH - EDGE - left) / len(arms)
    highest = max(max(p) for p in arms.values())
    for i, (name, p) in enumerate(arms.items()):
        ax = panel(figure, left + i * each, top, each - 18, height - top - 34)
        canvas.text(left + i * each, top - 10, name, fontsize=14, fontweight=BOLD)
        _column(ax, p, words, right, marked)
        ax.set_ylim(0, min(1.08 * highest, 1.08))
        ax.tick_params(labelleft=i == 0)
    return Picture(figure, caption, alt)


def _one_image(answers, right, marked, labels):
    """{name: (C,)} and the classes' names."""
    arguments.instance("bars", "answers", answers, dict, "a dictionary {name: (C,)}")
    arguments.whole("bars", "the number of answers", len(answers), least=1, most=6)
    arms = {name: array("bars", name, p, "(C,)") for name, p in answers.items()}
    arms = {name: answered("bars", name, p[None], 1)[0] for name, p in arms.items()}
    counts = sorted({len(p) for p in arms.values()})
    if len(counts) != 1:
        raise ValueError(f"bars: answers must have the same classes, got {counts}")
    for key, value in (("right", right), ("marked", marked)):
        if value is not None:
            arguments.whole("bars", key, value, least=0, most=counts[0] - 1)
    return arms, named("bars", "labels", labels, counts[0])[: counts[0]]


def _column(ax, p, words, right, marked):
    """One panel of bars, its three largest shares written on them."""
    colours = [VERMILLION if k == marked else GREY if k == right else PALE for k in range(len(p))]
    ax.bar(range(len(p)), p, 0.76, color=colours)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    told = range(len(p)) if _short(words) and len(p) <= 20 else _strong(p, right, marked)
    ax.set_xticks(list(told), [words[k] for k in told])
    ax.tick_params(axis="x", labelsize=12 if len(p) <= 12 else 11)
    for k in np.argsort(p)[::-1][:3]:
        look = {"color": VERMILLION if k == marked else INK, "fontsize": 11.5, "ha": "center"}
        if p[k] >= 0.005:
            ax.annotate(f"{100 * p[k]:.0f}", (k, p[k]), (0, 3), textcoords="offset points", **look)


def _strong(p, right, marked):
    """The classes to name where there is no room for all."""
    return [k for k in (right, marked) if k is not None] or [int(np.argmax(p))]
