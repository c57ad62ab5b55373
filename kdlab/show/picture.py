"""A picture with a caption: the house style, and figures that carry their alt text with them."""

import base64
import functools
import html
import io
import warnings
from typing import Any

from PIL import Image

from kdlab.base.extras import needs
from kdlab.show.colours import HAIR, INK, MUTED

with needs("course", asked="plots", why="pictures need"):
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart with every common colour blindness
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
STYLE = {
    "figure.figsize": (7, 4),
    "figure.dpi": 110,
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "lines.linewidth": 2,
    "axes.titlesize": 12,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "image.interpolation": "none",
}
# figures ten inches across, in a lesson: the letters and lines of the sheets beside them
SMALL = STYLE | {
    "font.size": 9.6,
    "axes.titlesize": 9.6,
    "axes.titlecolor": MUTED,
    "axes.edgecolor": HAIR,
    "axes.axisbelow": True,
    "grid.color": HAIR,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
}
# text stays text, in a font that every system has as wide or narrower; the same bytes each time
DRAWING = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kdlab",
    "image.composite_image": False,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.monospace": ["DejaVu Sans Mono", "Menlo", "Liberation Mono"],
}
METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
LARGEST = 150_000  # bytes of an SVG in a notebook; above it the PNG is shown
DPI = 110  # of the PNG, at least: sharp on a screen with two pixels to the point
CARD = (
    "max-width:100%;height:auto;box-sizing:border-box;background:#fff;"
    "border:1px solid #d3d9e0;border-radius:10px"
)


class Picture:
    """A finished figure with a caption and alt text: an HTML figure, a PNG, a line of text.

    Bytes and words travel together: JupyterLab (also for an untrusted notebook), nbconvert and a
    static site all show the alt text only in this form. The HTML holds the figure as SVG, or as PNG
    where that is smaller to carry; beside it the PNG stands alone, for GitHub.

    >>> with style():
    ...     fig, ax = plt.subplots()
    >>> Picture(fig, "A caption.", "An empty plot.")
    Figure: A caption. [An empty plot.]
    """

    def __init__(self, figure: Any, caption: str, alt: str) -> None:
        if not isinstance(figure, Figure):
            raise TypeError(
                f"Picture: figure must be a matplotlib Figure, got {type(figure).__name__}"
            )
        if not caption.strip() or not alt.strip():
            raise ValueError("Picture: caption and alt must say something")
        self._figure, self.caption, self.alt = figure, caption, alt
        self.width = round(figure.get_figwidth() * figure.dpi)
        # ticks come into being as it is drawn, which is later, perhaps under another style
        self._style = {k: v for k, v in plt.rcParams.copy().items() if k != "backend"}
        plt.close(figure)

    @functools.cached_property
    def png(self) -> bytes:
        """The figure as PNG, drawn when first asked for: an explorer's next one needs only SVG."""
        return _drawn(self._figure, "png", self._style)

    @functools.cached_property
    def svg(self) -> bytes:
        """The figure as SVG, drawn when first asked for."""
        return _drawn(self._figure, "svg", self._style)

    def __repr__(self):
        return f"Figure: {self.caption} [{self.alt}]"

    def _repr_mimebundle_(self, include=None, exclude=None):
        png = base64.b64encode(_in_few_colours(self.png)).decode()
        source = f"data:image/png;base64,{png}"
        if len(self.svg) <= LARGEST:
            source = f"data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}"
        figure = (
            f'<figure><img alt="{html.escape(self.alt)}" src="{source}" width="{self.width}" '
            f'style="{CARD}"><figcaption>{html.escape(self.caption)}</figcaption></figure>'
        )
        return {"text/html": figure, "image/png": png, "text/plain": repr(self)}


def _drawn(figure, kind, style):
    buffer = io.BytesIO()
    with plt.rc_context(style | DRAWING), warnings.catch_warnings():
        # what a model writes may hold a letter that the font lacks: a box says so
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=kind, metadata=METADATA[kind], dpi=max(figure.dpi, DPI))
    return buffer.getvalue()


def _in_few_colours(png):
    """The same picture with 256 colours: a third of the bytes in a notebook."""
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def style(small: bool = False) -> Any:
    """The house style as a context: readable on a projector, safe for colour-blind readers.

    small: for a figure ten inches across that stands between a lesson's sheets.

    >>> with style():
    ...     plt.rcParams["font.size"]
    12.0
    """
    return plt.rc_context(SMALL if small else STYLE)


def axes(
    rows: int = 1,
    columns: int = 1,
    figsize: tuple[float, float] | None = None,
    small: bool = False,
    **options: Any,
) -> Any:
    """A figure and its axes in the house style, figsize in inches: (figure, axes).

    Pyplot does not know it, so nothing is left open where a `Picture` is not made of it.

    >>> fig, ax = axes(figsize=(5, 3))
    >>> plt.get_fignums()
    []
    """
    with style(small):
        figure = Figure(figsize=figsize)
        return figure, figure.subplots(rows, columns, **options)
