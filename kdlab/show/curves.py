"""Curves with bands: what decides is a curve over the thing that decides it, named at its end."""

import math
import numbers
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdlab.base import arguments
from kdlab.evidence.intervals import Estimate
from kdlab.show.colours import GREY, INK, MUTED, VERMILLION
from kdlab.show.picture import Picture, needs
from kdlab.show.sheet import (
    BOLD,
    EDGE,
    ROLES,
    WIDTH,
    apart,
    on_sheet,
    panel,
    sheet,
    width_of,
    wrapped,
)

with needs("course", asked="plots", why="pictures need"):
    from matplotlib.colors import to_hex, to_rgb
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

TICKS, LINE, BELOW = 46, 16, 52  # pixels: numbers left of an axis, a label's line, below an axis
MARKS = "osD^v"  # of curves that share a role


@dataclass(frozen=True)
class Curve:
    """One line of a figure; its role says colour and dash, its name stands at its end.

    values: {x: Estimate or number}; NaN where a single run diverged. role: "student", "also" (the
    student again, lighter), "teacher", "control" or "rival".

    >>> Curve("student", {1: 60.0, 2: 80.0}).role
    'student'
    """

    name: str
    values: dict[float, Any]
    role: str = "student"

    def __post_init__(self):
        arguments.text("Curve", "name", self.name)
        arguments.one_of("Curve", "role", self.role, ROLES)
        arguments.instance("Curve", "values", self.values, dict, "a dictionary {x: Estimate}")
        if not self.values:
            raise ValueError(f"Curve: values of {self.name!r} must not be empty")
        for x, value in self.values.items():
            arguments.number("Curve", "each x of values", _plain(x))
            if not isinstance(value, (Estimate, numbers.Real)):
                came = type(value).__name__
                raise TypeError(
                    f"Curve: each of values must be an Estimate or a number, got {came}"
                )

    @property
    def label(self) -> str:
        """What stands at its end: the name, and whether it diverged."""
        return self.name if len(self.points) == len(self.values) else f"{self.name}: diverged"

    @property
    def points(self) -> list[tuple[float, float]]:
        """[(x, mean)] in order of x, without what is not finite."""
        at = sorted(self.values)
        return [(x, _mean(self.values[x])) for x in at if math.isfinite(_mean(self.values[x]))]

    @property
    def band(self) -> list[tuple[float, float, float]]:
        """[(x, low, high)] of the 95 % intervals."""
        at = sorted(self.values)
        return [(x, *self.values[x].interval()) for x in at if isinstance(self.values[x], Estimate)]


def _plain(x):
    return x.item() if isinstance(x, np.generic) else x


def _mean(value):
    return value.mean if isinstance(value, Estimate) else float(value)


@on_sheet
def curves(
    panels: dict[str, list[Curve]],
    *,
    x: str,
    y: str,
    caption: str,
    alt: str | None = None,
    log: bool = False,
    limits: Any = None,
    ticks: dict[str, list[float]] | None = None,
    ceiling: Any = None,
    height: int = 340,
    columns: int | None = None,
    share: bool = True,
    named: bool = True,
    dots: Any = None,
) -> Picture:
    """Curves with bands of 95 %, each named at its end, panels side by side → `Picture`.

    panels: {title: [Curve, …]}, with one y axis unless `share` is false; columns: panels in a row,
    by default three, and two of four. x, y: what the axes show, with units. log: of x. limits:
    (low, high) of y, or {title: (low, high)}. ticks: {"x": […], "y": […]}. ceiling: (name, Estimate
    or number), a line all across, or {title: (name, Estimate)}. height: pixels of a row. named:
    names at the ends; where three panels or more have the same curves, only a row's last says them.
    dots: {title: {x: Estimate}}, drawn upon a panel's curves as diamonds with their intervals; what
    they are is the caption's to say.
    alt: by default each curve's first and last mean.

    >>> curves({"A student": [Curve("student", {1: 60, 2: 80})]}, x="epoch", y="accuracy (%)",
    ...        caption="One run.", alt="It rises.")
    Figure: One run. [It rises.]
    """
    _checked(panels, limits, log)
    upon = _upon(panels, dots)
    columns = columns or (len(panels) if len(panels) < 4 else 2 if len(panels) == 4 else 3)
    arguments.whole("curves", "columns", columns, least=1)
    ceilings = _ceilings(panels, ceiling)
    rows = -(-len(panels) // columns)
    figure, canvas = sheet(rows * height)
    places = _places(panels, ceilings, columns, share, named)
    each = limits if isinstance(limits, dict) else dict.fromkeys(panels, limits)
    seen = {title: [*group, *upon[title]] for title, group in panels.items()}
    shared = _limits(seen.values(), ceilings.values()) if share else None
    for i, (title, group) in enumerate(panels.items()):
        row, column = divmod(i, columns)
        left, right, says = places[column]
        says = says or (named and i == len(panels) - 1)
        top = row * height + 24 + (24 if title else 0) + (22 if y else 0)
        ax = panel(figure, left, top, right - left, (row + 1) * height - BELOW - top)
        low, high = each.get(title) or shared or _limits([seen[title]], [ceilings[title]])
        _axis(ax, group, low, high, log, ticks or {})
        ends = [_across(ax, *ceilings[title])] if ceilings[title] else []
        ends += _lines(ax, group)
        _diamonds(ax, upon[title])
        if share and column:
            ax.tick_params(labelleft=False)
        from_left = left - (TICKS if not share or not column else 0)
        if title:
            canvas.text(
                from_left, row * height + 32, title, fontsize=15, fontweight=BOLD, color=INK
            )
        canvas.text(from_left, top - 16, y if not share or not column else "", color=MUTED)
        canvas.text((left + right) / 2, (row + 1) * height - 14, x, color=MUTED, ha="center")
        if says:
            _labels(canvas, ax, ends, right, rows * height)
    return Picture(figure, caption, alt or _said(panels, ceilings))


def _checked(panels, limits, log):
    arguments.instance("curves", "panels", panels, dict, "a dictionary {title: [Curve, …]}")
    if not panels:
        raise ValueError("curves: panels must hold a panel at least")
    for title, group in panels.items():
        group = arguments.listed("curves", f"the panel {title!r}", group, "a list of curves")
        for curve in group:
            arguments.instance("curves", f"each of the panel {title!r}", curve, Curve)
        if not group:
            raise ValueError(f"curves: the panel {title!r} must hold a curve at least")
        if log and min(min(c.values) for c in group) <= 0:
            raise ValueError(f"curves: x must be above 0 on a log axis, in the panel {title!r}")
    each = limits.values() if isinstance(limits, dict) else [limits]
    for pair in (pair for pair in each if pair is not None):
        pair = arguments.listed("curves", "limits", pair, "(low, high)")
        if len(pair) != 2:
            raise ValueError(f"curves: limits must be (low, high), got {pair}")
        low, high = pair
        arguments.number("curves", "limits", high, above=arguments.number("curves", "limits", low))


def _ceilings(panels, ceiling):
    """{title: (name, Estimate or number) or None} for every panel."""
    found = ceiling if isinstance(ceiling, dict) else dict.fromkeys(panels, ceiling)
    for pair in (pair for pair in found.values() if pair is not None):
        right = isinstance(pair, tuple) and len(pair) == 2
        if not right or not isinstance(pair[1], (Estimate, numbers.Real)):
            raise TypeError(f"curves: ceiling must be (name, Estimate or number), got {pair!r}")
    return {title: found.get(title) for title in panels}


def _upon(panels, dots):
    """{title: [Curve]} of the single results drawn upon each panel, one a place along x."""
    found = {} if dots is None else dots
    arguments.instance("curves", "dots", found, dict, "a dictionary {title: {x: Estimate}}")
    for title, at in found.items():
        arguments.one_of("curves", "each title of dots", title, list(panels))
        arguments.instance("curves", f"dots of {title!r}", at, dict, "a dictionary {x: Estimate}")
        along = [x for curve in panels[title] for x in curve.values]
        for x in at:
            arguments.number("curves", f"x of the dots of {title!r}", x, min(along), max(along))
    return {
        title: [Curve("dot", {x: e}) for x, e in found.get(title, {}).items()] for title in panels
    }


def _diamonds(ax, dots):
    for curve in dots:
        look = {"color": VERMILLION, "zorder": 5, "clip_on": False}
        for x, *ends in curve.band:
            ax.plot([x, x], ends, linewidth=2.5, **look)
        ax.plot(
            *zip(*curve.points, strict=True), "D", markersize=8, markeredgecolor="white", **look
        )


def _places(panels, ceilings, columns, share, named):
    """[(left, right, whether names stand there)] of each column, in pixels; axes equally wide."""
    groups = list(panels.values())
    names = [
        [c.label for c in group] + ([ceilings[title][0]] if ceilings[title] else [])
        for title, group in panels.items()
    ]
    alike = len({tuple((c.name, c.role) for c in group) for group in groups}) == 1
    once = alike and len(panels) > 2
    says = [named and not (once and column < columns - 1) for column in range(columns)]
    lefts = [TICKS if not share or column == 0 else 4 for column in range(columns)]
    needed = [
        18
        + max(width_of(wrapped(n), 13.5, BOLD) for group in names[column::columns] for n in group)
        for column in range(min(columns, len(panels)))
    ]
    rights = [room if told else 40 for room, told in zip(needed, says, strict=False)]
    wide = (WIDTH - 2 * EDGE - sum(lefts) - sum(rights)) / columns
    found, at = [], float(EDGE)
    for left, right, told in zip(lefts, rights, says, strict=False):
        found.append((at + left, at + left + wide, told))
        at += left + wide + right
    return found


def _limits(groups, ceilings):
    """(low, high) of y over everything that is drawn, with a little room."""
    found = [m for group in groups for c in group for _, m in c.points]
    found += [v for group in groups for c in group for _, *ends in c.band for v in ends]
    for _, value in filter(None, ceilings):
        found += value.interval() if isinstance(value, Estimate) else [float(value)]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    room = 0.04 * (high - low) or 0.5
    return (low - room if low < 0 or low > room else 0.0), high + room


def _axis(ax, group, low, high, log, ticks):
    """Scales, ticks and the line at zero."""
    at = sorted({x for c in group for x in c.values})
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(numticks=6))
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=all(float(x).is_integer() for x in at)))
    first, last = (at[0], at[-1]) if at[0] < at[-1] else (at[0] * 0.9 - 0.1, at[0] * 1.1 + 0.1)
    ax.set(xlim=(first, last), ylim=(low, high))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,g}".replace("-", "−"))
    if ticks.get("x") or len(at) <= 8:
        ax.set_xticks(list(ticks.get("x") or _thinned(ax, at)))
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    signed = "+" if low < 0 < high else ""
    ax.yaxis.set_major_formatter(
        FuncFormatter(lambda y, _: f"{y:{signed},g}".replace("-", "−") if abs(y) > 1e-9 else "0")
    )
    if ticks.get("y"):
        ax.set_yticks(list(ticks["y"]))
    if low < 0 < high:
        ax.axhline(0, color=GREY, linewidth=1, zorder=1)


def _thinned(ax, at):
    """The places along x that leave room for their numbers, the last one first."""
    kept = []
    for x in reversed(at):
        place = ax.transData.transform((x, 0))[0]
        if not kept or kept[-1][0] - place > 10 + 4 * (len(f"{x:,g}") + len(f"{kept[-1][1]:,g}")):
            kept.append((place, x))
    return [x for _, x in reversed(kept)]


def _across(ax, name, value):
    """The ceiling; (x, y, name, colour) of its end."""
    look = ROLES["teacher"]
    if isinstance(value, Estimate):
        ax.axhspan(*value.interval(), color=look["color"], alpha=0.1, linewidth=0)
    ax.axhline(_mean(value), **look)
    return ax.get_xlim()[1], _mean(value), name, look["color"]


def _lines(ax, group):
    """Every curve, the student's on top; [(x, y, name, colour)] of their ends."""
    ends, seen = [], Counter()
    for curve in group:
        look = ROLES[curve.role] | {"zorder": 3 if curve.role == "student" else 2}
        look["color"], mark = _lighter(look["color"], seen[curve.role]), MARKS[seen[curve.role] % 5]
        seen[curve.role] += 1
        if curve.band:
            ax.fill_between(*zip(*curve.band, strict=True), color=look["color"], alpha=0.15, lw=0)
        xs, ys = zip(*curve.points, strict=True) if curve.points else ((), ())
        every = range(len(xs)) if len(xs) <= 12 else [len(xs) - 1]
        dots = {"marker": mark, "markersize": 8, "markeredgecolor": "white", "markeredgewidth": 1.3}
        ax.plot(xs, ys, **look, **dots, markevery=every, clip_on=bool(ys) and _beyond(ax, ys))
        end = (xs[-1], ys[-1]) if xs else (ax.get_xlim()[0], ax.get_ylim()[0])
        if xs and len(xs) < len(curve.values):
            ax.plot(
                xs[-1],
                np.clip(ys[-1], *ax.get_ylim()),
                "X",
                color=look["color"],
                markersize=11,
                clip_on=False,
            )
        ends.append((*end, curve.label, look["color"]))
    return ends


def _lighter(colour, times):
    """The same colour, a little nearer to white each time its role comes again."""
    return to_hex([1 - (1 - part) * 0.7**times for part in to_rgb(colour)])


def _beyond(ax, ys):
    low, high = ax.get_ylim()
    return min(ys) < low or max(ys) > high


def _labels(canvas, ax, ends, right, height):
    """Names at the ends of curves, kept apart, each tied to its end where it had to move."""
    low, high = sorted(height - ax.transData.transform((1, y))[1] for y in ax.get_ylim())
    placed = [
        (float(np.clip(height - spot[1], low, high)), spot[0], wrapped(name), colour)
        for (x, y, name, colour) in ends
        for spot in [ax.transData.transform((x, y))]
    ]
    placed.sort(key=lambda end: end[0])
    lines = [name.count("\n") + 1 for _, _, name, _ in placed]
    places = apart([end[0] for end in placed], [LINE * n for n in lines], low - 6, high + 10)
    for place, (y, x, name, colour) in zip(places, placed, strict=True):
        if abs(place - y) > 5 or right - x > 5:
            canvas.plot([x + 5, right + 11], [y, place], color=colour, linewidth=0.8, alpha=0.7)
        style = {"fontsize": 13.5, "fontweight": BOLD, "linespacing": LINE / 13.5 / 1.16}
        canvas.text(right + 13, place, name, color=colour, va="center_baseline", **style)


def _said(panels, ceilings):
    """Each curve's first and last mean in words; of a single run, which has no interval, no
    number."""
    said = []
    for title, group in panels.items():
        told = [c.name + _ends(c) for c in group]
        if ceilings[title]:
            name, value = ceilings[title]
            told.append(f"{name} {value}" if isinstance(value, Estimate) else name)
        said.append((f"{title}: " if title else "") + "; ".join(told))
    return "Curves. " + ". ".join(part.rstrip(".?") for part in said) + "."


def _ends(curve):
    first, last = min(curve.values), max(curve.values)
    if not all(isinstance(curve.values[x], Estimate) for x in (first, last)):
        return ""
    return f" from {curve.values[first]} at {first:g} to {curve.values[last]} at {last:g}"


def learning(
    histories: dict[str, dict[str, Any]],
    *,
    caption: str,
    alt: str,
    x: str = "epoch",
    roles: dict[str, str] | None = None,
    limits: dict[str, tuple[float, float]] | None = None,
    height: int = 250,
) -> Picture:
    """The curves worth watching while something trains, each on its own axis → `Picture`.

    histories: {name: {"training loss": [a value an epoch] or {x: value}, …}}; what one name lacks
    is left out of that panel. roles: {name: role}, by default student, rival, control, also in
    order. limits: {title: (low, high)}, say for a run that diverged. Where there is one name only
    it is not written.

    >>> learning({"mine": {"training loss": [2.3, 1.1, 0.7], "agreement (%)": [40, 70, 81]}},
    ...          caption="One run.", alt="The loss falls, agreement rises.")
    Figure: One run. [The loss falls, agreement rises.]
    """
    arguments.instance("learning", "histories", histories, dict, "a dictionary {name: {title: …}}")
    for name, history in histories.items():
        arguments.instance("learning", f"histories[{name!r}]", history, dict, "a dictionary")
    usual = ["student", "rival", "control", "also", "teacher"]
    given = {name: usual[i % len(usual)] for i, name in enumerate(histories)} | (roles or {})
    panels = {
        title: [
            Curve(name, _numbered(title, history[title]), given[name])
            for name, history in histories.items()
            if title in history
        ]
        for title in dict.fromkeys(t for history in histories.values() for t in history)
    }
    return curves(
        panels,
        x=x,
        y="",
        caption=caption,
        alt=alt,
        limits=limits,
        height=height,
        share=False,
        named=len(histories) > 1,
    )


def _numbered(title, values):
    if isinstance(values, dict):
        return values
    listed = arguments.listed("learning", title, values, "a list of numbers, or {x: number}")
    return {i: float(value) for i, value in enumerate(listed, start=1)}
