"""A lesson's sheet: 980 pixels across, colours by role, and what every picture of images needs.

One point is one pixel at a lesson's width, so that sizes read as they are seen.
"""

import functools
import textwrap

import numpy as np
import torch

from kdlab.base import arguments
from kdlab.base.extras import needs
from kdlab.show.colours import BLUE, FAINT, GREEN, GREY, HAIR, INK, LIGHT, MUTED, ORANGE
from kdlab.show.picture import STYLE, Figure, plt

with needs("course", asked="plots", why="pictures need"):
    from matplotlib.font_manager import FontProperties
    from matplotlib.patches import Rectangle
    from matplotlib.textpath import TextPath

WIDTH, EDGE = 980, 24
MOST = 9  # images in a row
DIGITS = "0123456789"
BOLD = 700  # the font has no lighter one between this and normal
# one colour, one role, in the whole course; roles also differ in line style
ROLES = {
    "student": {"color": BLUE, "linewidth": 2.8},
    "also": {"color": LIGHT, "linewidth": 1.8},
    "teacher": {"color": GREEN, "linewidth": 2, "linestyle": (0, (3.5, 2))},
    "control": {"color": GREY, "linewidth": 2.4, "linestyle": (0, (1, 1.5))},
    "rival": {"color": ORANGE, "linewidth": 2.4, "linestyle": (0, (3.8, 1.7))},
}
SHEET = STYLE | {
    "figure.dpi": 72,
    "figure.constrained_layout.use": False,
    "font.size": 13,
    "text.color": INK,
    "text.parse_math": False,  # a dollar that a model writes is a dollar
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.bottom": False,
    "axes.labelcolor": MUTED,
    "grid.color": HAIR,
    "grid.linewidth": 1,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 7,
    "ytick.major.pad": 6,
}


def on_sheet(draw):
    """A function that draws on a sheet, in a lesson's style."""

    @functools.wraps(draw)
    def styled(*args, **options):
        with plt.rc_context(SHEET):
            return draw(*args, **options)

    return styled


def sheet(height):
    """(figure, canvas): a figure, and axes over all of it that count pixels from the upper left.

    >>> figure, canvas = sheet(300)
    >>> canvas.get_xlim(), canvas.get_ylim()
    ((np.float64(0.0), np.float64(980.0)), (np.float64(300.0), np.float64(0.0)))
    """
    with plt.rc_context(SHEET):
        figure = Figure(figsize=(WIDTH / 72, height / 72))
        canvas = figure.add_axes(
            (0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0), autoscale_on=False
        )
    canvas.set_axis_off()
    return figure, canvas


def panel(figure, left, top, width, height, **options):
    """Axes at a place of the sheet, in pixels from the upper left corner."""
    whole = figure.get_figheight() * 72
    corner = (left / WIDTH, 1 - (top + height) / whole)
    # the canvas below shows through: a curve's name is tied to its end there
    options = {"facecolor": "none"} | options
    return figure.add_axes((*corner, width / WIDTH, height / whole), **options)


def rectangle(canvas, x, y, width, height, **look):
    """A rectangle on the canvas, its upper left corner at (x, y)."""
    canvas.add_patch(Rectangle((x, y), width, height, **{"linewidth": 0, "clip_on": False} | look))


def width_of(words, size=13.0, weight="normal", family="sans-serif"):
    """Pixels that a line of text takes; of several lines, the longest.

    >>> width_of("a student") < width_of("a student", weight=BOLD)
    True
    """
    prop = FontProperties(family=family, weight=weight)
    lines = [line + "." for line in words.split("\n")]  # a path has no spaces at its end
    dot = TextPath((0, 0), ".", size=size, prop=prop).get_extents().x1
    ends = (TextPath((0, 0), line, size=size, prop=prop).get_extents().x1 for line in lines)
    return float(max(ends) - dot)


def wrapped(words, columns=22):
    """Words on lines of at most so many letters; a word is never broken.

    >>> wrapped("wrong classes shuffled", 14)
    'wrong classes\\nshuffled'
    """
    return textwrap.fill(words, columns, break_long_words=False)


def heading(canvas, title, key=(), x=EDGE, y=32):
    """A title and, below it, a key of coloured squares [(colour, words)]; where it ends, in pixels.

    >>> heading(sheet(100)[1], "Title"), heading(sheet(100)[1], None)
    (42, 10)
    """
    if title:
        canvas.text(x, y, title, fontsize=16, fontweight=BOLD)
    end = y + 10 if title else y - 22
    for colour, words in key:
        edge = FAINT if colour == "white" else "none"
        rectangle(canvas, x, end + 3, 11, 11, facecolor=colour, edgecolor=edge, linewidth=1)
        canvas.text(x + 17, end + 13, words, color=MUTED)
        x += 17 + width_of(words) + 24
    return end + 22 if key else end


def apart(places, heights, top, bottom):
    """Centres as near as can be (least squares) to `places` at which labels don't overlap.

    places: sorted, in pixels; heights: of the labels. Centres less the room that the labels above
    take may not fall, which is an isotonic regression.

    >>> apart([10.0, 12.0, 60.0], [16, 16, 16], top=0, bottom=100)
    [8.0, 24.0, 60.0]
    """
    with needs("course", asked="curves", why="names at their ends need"):
        from sklearn.isotonic import isotonic_regression

    room = np.cumsum(heights) - np.array(heights) / 2
    lowest = max(bottom - sum(heights), top)
    shifted = isotonic_regression(np.array(places) - room, y_min=top, y_max=lowest)
    return (shifted + room).tolist()


def image(canvas, pixels, x, y, size, frame=FAINT, thick=1.0):
    """An image on the canvas in a square of `size`, every pixel sharp; grey values as ink."""
    tall, wide = pixels.shape[:2]
    w, h = size * min(1, wide / tall), size * min(1, tall / wide)
    left, top = x + (size - w) / 2, y + (size - h) / 2
    canvas.imshow(
        pixels,
        cmap="gray_r",
        vmin=0,
        vmax=1,
        interpolation="none",
        aspect="auto",
        extent=(left, left + w, top + h, top),
    )
    rectangle(canvas, left, top, w, h, fill=False, edgecolor=frame, linewidth=thick)


def percent(share):
    """A share in words: 18 %, < 1 %.

    >>> percent(0.18), percent(0.001)
    ('18 %', '< 1 %')
    """
    return f"{100 * share:.0f} %" if share >= 0.005 or share == 0 else "< 1 %"


# --- arguments ---


def array(name, key, value, shape):
    """Finite numbers as a numpy array; TypeError or ValueError. shape: in letters, for the error.

    >>> array("strip", "images", [[1.0]], "(N, H, W)")
    Traceback (most recent call last):
    ValueError: strip: images must have the shape (N, H, W), got (1, 1)
    """
    try:
        found = torch.as_tensor(value).detach().cpu().numpy()
    except (TypeError, ValueError, RuntimeError):
        came = type(value).__name__
        raise TypeError(f"{name}: {key} must be numbers {shape}, got {came}") from None
    if found.ndim != shape.count(",") + (shape[-2] != ","):
        raise ValueError(f"{name}: {key} must have the shape {shape}, got {found.shape}")
    if not found.size or not np.isfinite(found).all():
        raise ValueError(f"{name}: {key} must be finite numbers {shape}, got {found}")
    return found


def pictured(name, key, value):
    """Images (N, H, W), (N, 1, H, W) or (N, 3, H, W) in [0, 1] as arrays (H, W) or (H, W, 3).

    >>> [p.shape for p in pictured("strip", "images", torch.zeros(1, 1, 8, 8))]
    [(8, 8)]
    """
    coloured = getattr(value, "ndim", 3) == 4
    found = array(name, key, value, "(N, c, H, W)" if coloured else "(N, H, W)")
    if coloured and found.shape[1] not in (1, 3):
        raise ValueError(f"{name}: {key} must have one channel or three, got {found.shape}")
    if found.min() < 0 or found.max() > 1:
        raise ValueError(
            f"{name}: {key} must lie in [0, 1], got [{found.min():g}, {found.max():g}]"
        )
    if coloured:
        found = found[:, 0] if found.shape[1] == 1 else np.moveaxis(found, 1, -1)
    return list(found.astype(float))


def answered(name, key, value, rows):
    """Probabilities (N, C), each row adding up to 1, for N = rows; ValueError.

    >>> answered("strip", "probabilities", [[3.0, -1.0]], 1)
    Traceback (most recent call last):
    ValueError: strip: probabilities must lie in [0, 1] and add up to 1 in each row, ...
    """
    found = array(name, key, value, "(N, C)").astype(float)
    if len(found) != rows:
        raise ValueError(
            f"{name}: {key} must have a row for each of {rows} images, got {len(found)}"
        )
    if found.min() < 0 or not np.allclose(found.sum(1), 1, atol=1e-3):
        raise ValueError(
            f"{name}: {key} must lie in [0, 1] and add up to 1 in each row, "
            f"got {found[0].round(3).tolist()} first: are these logits?"
        )
    return found


def classes(name, key, value, rows, count):
    """Whole numbers (N,) below `count`, one for each of N = rows images; ValueError.

    >>> classes("strip", "right", [3, 1], 2, 10)
    [3, 1]
    """
    found = array(name, key, value, "(N,)")
    if found.dtype.kind not in "iu" or len(found) != rows:
        raise ValueError(
            f"{name}: {key} must be a class for each of {rows} images, "
            f"got {found.dtype} {found.shape}"
        )
    if found.min() < 0 or found.max() >= count:
        raise ValueError(f"{name}: {key} must be below {count} classes, got {found.tolist()}")
    return found.tolist()


def named(name, key, value, count):
    """Names of `count` classes or more: a text's letters, or a list; TypeError or ValueError.

    >>> named("strip", "labels", "abc", 2)
    ['a', 'b', 'c']
    """
    value = list(value) if isinstance(value, str) else value
    found = [str(word) for word in arguments.listed(name, key, value, "a list of names")]
    if len(found) < max(count, 1):
        raise ValueError(f"{name}: {key} must name {count} classes, got {len(found)}")
    return found
