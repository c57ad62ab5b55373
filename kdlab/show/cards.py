"""Claims as cards: the sentence, one word, the interval beside its bound, and how sure that is."""

import base64
import html
import math
import sys
from typing import Any

from kdlab.base import plain_arguments as arguments
from kdlab.evidence.claims import FAILED, Claim, claimed, judge, record
from kdlab.show.colours import BLUE, FAINT, INK, MUTED, TINT, VERMILLION

FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif"
# white on any page, and everything in em: it grows with a slide's letters, up to a size
SHEET = (
    f"box-sizing:border-box;max-width:70em;background:#fff;color:{INK};color-scheme:light;"
    f"border:1px solid {FAINT};border-radius:10px;font:min(1em,24px)/1.4 {FONT};text-align:left;"
)
# a verdict's sign, its ground and its letters
CHIPS = {
    "helps": ("+", BLUE, "#fff"),
    "helps a little": ("+", "#cfe3f1", INK),
    "hurts": ("−", VERMILLION, "#fff"),
    "hurts a little": ("−", "#f7dccb", INK),
    "no difference": ("=", "#e5e8ec", INK),
    "holds": ("✓", INK, "#fff"),
    FAILED: ("?", "#fff", VERMILLION),
}
WIDTH, ROW = 340, 46  # of the drawing: pixels, and pixels a budget
LEFT, RIGHT = 6, WIDTH - 6  # the ends of its axis


class Card:
    """HTML that also reads well as plain text.

    >>> Card("a line", "<p>a line</p>")
    a line
    """

    def __init__(self, text: str, markup: str) -> None:
        self.text, self.markup = text, markup

    def __repr__(self):
        return self.text

    def _repr_html_(self):
        return self.markup


def show(card: Any) -> None:
    """Display it where IPython runs, which takes the HTML where a page can show it; else print.

    >>> show(Card("a line", "<p>a line</p>"))
    a line
    """
    ipython = sys.modules.get("IPython")
    if ipython and ipython.get_ipython():
        from IPython.display import display

        display(card)
    else:
        print(card)


def claim(sentence: str, comparison: Any, axis: tuple[float, float] | None = None) -> None:
    """Show a claim as a card; AssertionError where it does not hold.

    comparison: an `Estimate` beside a bound, for example distilled.minus(direct) > 0, or one for
    each budget that the claim was tried at, {"30 epochs": …, "60 epochs": …}: it holds where it
    holds at all of them. axis: (low, high) to draw. With the environment variable
    KDLAB_CLAIMS=report (other data, where a lesson's claim is a question) a failure is shown too.

    >>> import pandas as pd
    >>> from kdlab import Estimate
    >>> gain = Estimate(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0}), "gain", "points", 2)
    >>> claim("it helps", gain > 0)
    Claim (helps): it helps
    gain +2.00 ± 1.30 points (> 0)
    95 % interval over 4 splits, each with its own teacher; 2 seeds a split
    """
    said = claimed(sentence, comparison)
    if axis is not None:
        axis = _axis(axis)
    judge(said)
    show(Card(str(said), _markup(said, axis)))


def _axis(value):
    """(low, high) with low < high; ValueError."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"claim: axis must be (low, high), got {value!r}")
    low, high = (arguments.number("claim", "axis's end", end) for end in value)
    if low >= high:
        raise ValueError(f"claim: axis must be (low, high) with low < high, got {value!r}")
    return low, high


def _markup(claim: Claim, axis):
    sign, ground, letters = CHIPS[claim.verdict]
    edge = letters if claim.verdict == FAILED else ground
    chip = (
        f'<span style="display:inline-block;background:{ground};color:{letters};'
        f"border:1px solid {edge};border-radius:1em;padding:0 .8em .1em;font-size:.9em;"
        f'font-weight:600;white-space:nowrap">{sign} {claim.verdict}</span>'
    )
    data = base64.b64encode(_drawing(claim, axis).encode()).decode()
    # dark-light: the site's theme is to leave it as it is on a dark page
    image = (
        f'<img class="dark-light" alt="{html.escape(claim.numbers)}" '
        f'src="data:image/svg+xml;base64,{data}" style="display:block;width:24em;max-width:100%;'
        'height:auto;margin:0;padding:0;border:0;background:none">'
    )
    folded = "".join(f"<div>{html.escape(line)}</div>" for line in _how_sure(claim))
    return (
        f'<div style="{SHEET}border-left:.35em solid {edge};padding:.7em 1.1em;margin:.5em 0">'
        '<div style="display:flex;flex-wrap:wrap;gap:.5em 1.5em;align-items:center;'
        'justify-content:space-between"><div style="flex:1 1 14em">'
        f'<div style="font-size:1.12em;font-weight:600;margin-bottom:.4em">'
        f"{html.escape(claim.sentence)}</div>{chip}</div>"
        f'<div style="flex:0 1 24em">{image}</div></div>'
        f'<details style="font-size:.9em;color:{MUTED};margin-top:.4em">'
        f'<summary style="cursor:pointer;color:{MUTED}">how sure?</summary>{folded}</details></div>'
    )


def _how_sure(claim: Claim):
    """The lines that are folded away: numbers, units, what was asked, and the ledger's word."""
    asked = "The whole interval is wanted in the shaded part"
    lines = [
        claim.numbers,
        claim.units,
        f"{asked}." if "" in claim.budgets else f"{asked}, at every budget.",
    ]
    row = record(claim.sentence)
    if row and not int(row["of"]):
        lines.append("It is read off a committed table, the same in every run: not repeated.")
    elif row:
        flips = f" It flipped at: {row['flips']}." if row["flips"] else ""
        teachers = ", teachers" if "with its own teacher" in claim.units else ""
        lines.append(
            f"On fresh splits{teachers} and seeds it held {row['held']} times of {row['of']}; "
            f"the mean lay {row['mean_margin']} standard errors from its bound, at the least "
            f"{row['least_margin']}.{flips}"
        )
    return lines


def _drawing(claim: Claim, axis):
    """The intervals as SVG, a row a budget, over the part of the axis where they are wanted."""
    estimates = [c.estimate for c in claim.budgets.values()]
    wanted = next(iter(claim.budgets.values())).wanted
    bounds = [b for b in wanted if math.isfinite(b)]
    low, high = axis or _ends(estimates, bounds)

    def across(value):
        return LEFT + (min(max(value, low), high) - low) / (high - low) * (RIGHT - LEFT)

    foot = ROW * len(estimates) + 4
    start, end = map(across, wanted)
    parts = []
    for i, (name, e) in enumerate(zip(claim.budgets, estimates, strict=True)):
        top = ROW * i
        parts += [
            _words(LEFT, top + 14, _cut(name or "95 % interval", beside=str(e)), MUTED),
            _words(RIGHT, top + 14, str(e), INK, "end", 650),
            _line(LEFT, top + 31, RIGHT, top + 31, TINT if end - start > 1 else FAINT, 1),
            f'<rect x="{start:.1f}" y="{top + 21}" width="{end - start:.1f}" height="20" '
            f'fill="{TINT}"/>',
            *(_line(across(b), top + 21, across(b), top + 41, INK, 1.5) for b in bounds),
            _interval([across(v) for v in e.interval()], across(e.mean), top + 31),
        ]
    parts.append(_line(LEFT, foot, RIGHT, foot, FAINT, 1))
    parts += _ticks(across, low, high, bounds, foot + 15)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {foot + 20}" '
        f'width="{WIDTH}" height="{foot + 20}" font-family="{FONT}">{"".join(parts)}</svg>'
    )


def _cut(name, beside):
    """A budget's name, cut where it would run into the numbers on its right.

    >>> _cut("a name that is longer than there is room for", beside="+2.40 ± 1.00 points")
    'a name that is longer t…'
    """
    room = round((RIGHT - LEFT - 8.2 * len(beside)) / 7.2)
    return name if len(name) <= room else f"{name[: room - 1].rstrip()}…"


def _ends(estimates, bounds):
    """Round ends of an axis with room for every interval, its bounds and 0; per cents have 0–100,
    where no bound stands at the edge of that.

    >>> _ends([], [-0.5, 0.5])
    (-0.6, 0.6)
    """
    if estimates and estimates[0].measure == "%" and all(1 <= b <= 99 for b in bounds):
        return 0.0, 100.0
    reach = [0.0, *bounds, *(v for e in estimates for v in e.interval())]
    low, high = min(reach), max(reach)
    room = 0.1 * (high - low) or 1.0
    # 0 stays an end, unless it is the bound: both of its sides are to be seen
    low -= room * (low != 0 or low in bounds)
    high += room * (high != 0 or high in bounds)
    step = 10.0 ** math.floor(math.log10((high - low) / 2)) / 2
    ends = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return round(ends[0], 12), round(ends[1], 12)


def _interval(ends, middle, y):
    return (
        _line(ends[0], y, ends[1], y, BLUE, 5)
        + f'<circle cx="{middle:.1f}" cy="{y}" r="5.5" fill="{BLUE}" stroke="#fff" '
        'stroke-width="1.5"/>'
    )


def _ticks(across, low, high, bounds, y):
    """The ends of the axis and 0, muted, where no bound stands near; the bounds, bold."""
    ends = {low: "start", high: "end"}
    places = ends if 0 in ends or not low < 0 < high else ends | {0.0: "middle"}
    taken = [across(b) for b in bounds]

    def anchor_of(bound):
        """A number near an end is written inwards, or its half would be cut off."""
        near = [side for end, side in ends.items() if abs(across(bound) - across(end)) < 20]
        return near[0] if near else "middle"

    return [
        _words(across(t), y, f"{t:.3g}", MUTED, anchor)
        for t, anchor in places.items()
        if all(abs(across(t) - place) > 40 for place in taken)
    ] + [
        _words(across(b), y, f"{b:.3g}", INK, anchor_of(b), 650) for b in bounds if low <= b <= high
    ]


def _words(x, y, text, colour, anchor="start", weight=400):
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="13" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{html.escape(text)}</text>'
    )


def _line(x, y, to_x, to_y, colour, width):
    return (
        f'<line x1="{x:.1f}" y1="{y}" x2="{to_x:.1f}" y2="{to_y}" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )
