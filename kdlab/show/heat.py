"""What a teacher finds alike: a grid of classes with an image of each on both axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdlab.base import arguments
from kdlab.show.colours import INK, MUTED, VERMILLION
from kdlab.show.picture import Picture, needs
from kdlab.show.sheet import (
    BOLD,
    EDGE,
    array,
    heading,
    image,
    named,
    on_sheet,
    pictured,
    rectangle,
    sheet,
)

with needs("course", asked="plots", why="pictures need"):
    from matplotlib.colors import LinearSegmentedColormap

SHADES = LinearSegmentedColormap.from_list("shares", ["#f7f7f7", "#005a96"])
WRITTEN = 0.02  # shares below it are a shade without a number
BESIDE = 560  # pixels: where the pairs begin


@on_sheet
def heat(
    matrix: Any,
    faces: Any,
    caption: str,
    alt: str,
    *,
    title: str = "What the teacher finds alike",
    marked: int | None = None,
    pairs: int = 4,
    labels: Sequence[str] = "0123456789",
    rows: str = "true class",
    columns: str = "its answer",
) -> Picture:
    """Shares of every class for every class, with images on the axes and the likest pairs beside.

    matrix: (C, C) shares in [0, 1], a row a true class; the diagonal is left out. faces: (C, H, W)
    or (C, c, H, W) in [0, 1], an image of each class. marked: a column to outline. pairs: how many
    of the largest shares to show. → `Picture`.

    >>> import torch
    >>> heat(torch.rand(3, 3), torch.rand(3, 8, 8), "Three classes.", "A grid of three classes.")
    Figure: Three classes. [A grid of three classes.]
    """
    shares = array("heat", "matrix", matrix, "(C, C)").astype(float)
    n = len(shares)
    if shares.shape != (n, n) or shares.min() < 0 or shares.max() > 1:
        raise ValueError(f"heat: matrix must be shares (C, C) in [0, 1], got {shares.shape}")
    found = pictured("heat", "faces", faces)
    if len(found) != n:
        raise ValueError(f"heat: faces must be an image for each of {n} classes, got {len(found)}")
    words = named("heat", "labels", labels, n)
    arguments.whole("heat", "pairs", pairs, least=0, most=n * (n - 1))
    if marked is not None:
        arguments.whole("heat", "marked", marked, least=0, most=n - 1)
    np.fill_diagonal(shares, np.nan)
    cell = min(42, 400 / n)
    left, top = EDGE + 26 + cell, 84 + cell
    figure, canvas = sheet(max(round(top + n * cell + 24), 130 + 92 * min(pairs, 4)))
    heading(canvas, title)
    _grid(canvas, shares, found, left, top, cell)
    canvas.text(left + n * cell / 2, top - cell - 10, columns, color=MUTED, ha="center")
    look = {"ha": "center", "va": "center", "rotation": 90, "color": MUTED}
    canvas.text(EDGE + 8, top + n * cell / 2, rows, **look)
    if marked is not None:
        look = {"fill": False, "edgecolor": VERMILLION, "linewidth": 2, "zorder": 3}
        rectangle(canvas, left + marked * cell, top, cell, n * cell, **look)
    _pairs(canvas, shares, found, words, pairs, top - cell)
    return Picture(figure, caption, alt)


def _grid(canvas, shares, faces, left, top, cell):
    """The shares as shades with white lines between, numbers where there is something to read."""
    n, most = len(shares), np.nanmax(shares) or 1
    look = {"cmap": SHADES, "vmin": 0, "vmax": most, "interpolation": "none", "aspect": "auto"}
    canvas.imshow(shares, extent=(left, left + n * cell, top + n * cell, top), **look)
    for i in range(n + 1):
        for line in (
            ([left, left + n * cell], [top + i * cell] * 2),
            ([left + i * cell] * 2, [top, top + n * cell]),
        ):
            canvas.plot(*line, color="white", linewidth=2)
    for c in range(n):
        image(canvas, faces[c], left - cell + 2, top + c * cell + 3, cell - 6)
        image(canvas, faces[c], left + c * cell + 3, top - cell + 2, cell - 6)
        for k in range(n):
            if c != k and shares[c, k] >= WRITTEN and cell >= 28:
                ink = "white" if shares[c, k] > 0.5 * most else INK
                look = {"color": ink, "fontsize": min(12.5, cell / 2.6), "ha": "center"}
                x, y = left + (k + 0.5) * cell, top + (c + 0.5) * cell
                canvas.text(x, y, f"{100 * shares[c, k]:.0f}", va="center_baseline", **look)


def _pairs(canvas, shares, faces, words, pairs, top):
    """The largest shares, each with an image of what was shown and of what it was found like."""
    n = len(shares)
    order = np.argsort(-np.nan_to_num(shares, nan=-1), axis=None, kind="stable")[:pairs]
    if pairs:
        canvas.text(BESIDE, top + 8, "Most alike", fontsize=15, fontweight=BOLD)
    step = 92 if pairs <= 4 else 368 / pairs
    size = step * 0.72
    for i, (c, k) in enumerate(divmod(int(o), n) for o in order):
        y = top + 24 + i * step
        image(canvas, faces[c], BESIDE, y, size)
        image(canvas, faces[k], BESIDE + size + 40, y, size)
        middle = y + size / 2
        look = {"va": "center_baseline"}
        canvas.text(BESIDE + size + 20, middle, "→", fontsize=20, color=MUTED, ha="center", **look)
        x = BESIDE + 2 * size + 62
        canvas.text(x, middle - 11, f"shown: {words[c]}", fontsize=14.5, **look)
        told = f"{100 * shares[c, k]:.0f} % for {words[k]}"
        canvas.text(x, middle + 11, told, fontsize=14.5, fontweight=BOLD, **look)
