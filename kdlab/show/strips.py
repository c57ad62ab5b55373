"""Rows of images with an answer under each: the second look at the data."""

from collections.abc import Sequence
from typing import Any

from kdlab.base import arguments
from kdlab.show.colours import BLUE, FAINT, MUTED, VERMILLION
from kdlab.show.picture import Picture
from kdlab.show.sheet import (
    BOLD,
    DIGITS,
    EDGE,
    MOST,
    WIDTH,
    classes,
    heading,
    image,
    named,
    on_sheet,
    pictured,
    sheet,
    width_of,
    wrapped,
)


@on_sheet
def strips(
    rows: dict[str, tuple], caption: str, alt: str, labels: Sequence[str] = DIGITS
) -> Picture:
    """Rows of images with an answer under each, one strip below another → `Picture`.

    rows: {title: (images, answers, right)}. images (N, H, W) or (N, c, H, W), at most nine in a
    row; answers: (N,) classes, {name: (N,) classes} for several models, or N words; right: (N,)
    classes, or None: then nothing is right or wrong. A right answer is blue with a ✓, a wrong one
    orange with a ✗.

    >>> import torch
    >>> digits = torch.rand(2, 8, 8)
    >>> strips({"Before": (digits, [3, 5], [3, 3]), "After": (digits, [3, 3], [3, 3])},
    ...        "Two students.", "One of two 3s is read before, both after.")
    Figure: Two students. [One of two 3s is read before, both after.]
    """
    arguments.instance(
        "strips", "rows", rows, dict, "a dictionary {title: (images, answers, right)}"
    )
    if not rows:
        raise ValueError("strips: rows must hold a strip at least")
    drawn = {title: _strip(title, strip, labels) for title, strip in rows.items()}
    heights = [_height(title, strip) for title, strip in drawn.items()]
    figure, canvas = sheet(sum(heights) + 12)
    top = 0
    for (title, strip), height in zip(drawn.items(), heights, strict=True):
        _draw_strip(canvas, top, title, *strip)
        top += height
    return Picture(figure, caption, alt)


def strip(
    images: Any,
    answers: Any,
    right: Any,
    caption: str,
    alt: str,
    title: str = "",
    labels: Sequence[str] = DIGITS,
) -> Picture:
    """A row of images, the answer under each, right or wrong by mark and colour → `Picture`.

    As one row of `strips`, which says what may be given.

    >>> import torch
    >>> strip(torch.rand(2, 8, 8), [3, 5], [3, 3], "Two 3s.", "The first is read as 3.")
    Figure: Two 3s. [The first is read as 3.]
    """
    return strips({title: (images, answers, right)}, caption, alt, labels)


def _strip(title, given, labels):
    """(images, {name: [(words, right?)]}) of one strip, checked."""
    if not isinstance(given, tuple) or len(given) != 3:
        raise TypeError(f"strips: {title!r} must be (images, answers, right), got {given!r:.60}")
    images, answers, right = given
    found = pictured("strips", "images", images)
    n, words = len(found), named("strips", "labels", labels, 0)
    if right is not None:
        right = classes("strips", "right", right, n, len(words))
    told = {}
    for name, row in (answers if isinstance(answers, dict) else {"": answers}).items():
        row = arguments.listed("strips", "answers", row.tolist() if hasattr(row, "tolist") else row)
        if len(row) != n:
            raise ValueError(f"strips: answers must be one for each of {n} images, got {len(row)}")
        if not all(isinstance(answer, str) for answer in row):
            row = classes("strips", "answers", row, n, len(words))
        told[name] = [
            (
                answer if isinstance(answer, str) else words[answer],
                None if right is None else answer in (right[i], words[right[i]]),
            )
            for i, answer in enumerate(row)
        ]
    return found, told


def _layout(images, told):
    """(lines, images in a line, room for names, step, size) of a strip, in pixels."""
    lines = -(-len(images) // MOST)
    across = -(-len(images) // lines)
    gutter = max(width_of(wrapped(name, 16)) for name in told) + 18 if any(told) else 0
    step = min(106, (WIDTH - 2 * EDGE - gutter) / max(across, 1))
    return lines, across, gutter, step, min(84, step - 12)


def _tall(told):
    """Pixels for each row of answers: large where a mark stands there, more for two lines."""
    return {
        name: (32 if row[0][1] is not None else 20) + 17 * max(w.count("\n") for w, _ in row)
        for name, row in told.items()
    }


def _height(title, strip):
    images, told = strip
    lines, *_, size = _layout(images, told)
    return round((48 if title else 18) + lines * (size + sum(_tall(told).values()) + 16))


def _draw_strip(canvas, top, title, images, told):
    lines, across, gutter, step, size = _layout(images, told)
    tall = _tall(told)
    heading(canvas, title, y=top + 32)
    first = top + (48 if title else 18)
    for i, pixels in enumerate(images):
        row, column = divmod(i, across)
        x = EDGE + gutter + column * step
        y = first + row * (size + sum(tall.values()) + 16)
        alone = next(iter(told.values()))[i][1] if len(told) == 1 else None
        image(canvas, pixels, x, y, size, *((BLUE, 3) if alone else (FAINT, 1)))
        y += size
        for name, answers in told.items():
            _answer(canvas, x + size / 2, y, *answers[i])
            y += tall[name]
            if not column and name:
                canvas.text(EDGE, y - 10, wrapped(name, 16), color=MUTED, linespacing=1.1)


def _answer(canvas, x, y, words, right):
    look = {"ha": "center", "fontweight": BOLD, "linespacing": 1.25}
    if right is None:
        look |= {"color": MUTED, "fontsize": 13, "fontweight": "normal"}
        canvas.text(x, y + 7, words, va="top", **look)
        return
    look |= {"color": BLUE if right else VERMILLION, "fontsize": 20 if len(words) < 3 else 13.5}
    canvas.text(x, y + 26, f"{words} {'✓' if right else '✗'}", **look)
