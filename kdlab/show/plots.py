"""Pictures with a caption: a lesson's building blocks, and the first edition's plots.

The blocks (curves, images with bars, strips, heat, tokens) live in files of their own and are
offered here, as `kd.plots`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kdlab.base.extras import needs
from kdlab.show.answers import bars as bars
from kdlab.show.answers import images_with_bars as images_with_bars
from kdlab.show.curves import Curve as Curve
from kdlab.show.curves import curves as curves
from kdlab.show.curves import learning as learning
from kdlab.show.heat import heat as heat
from kdlab.show.picture import COLOURS as COLOURS
from kdlab.show.picture import STYLE as STYLE
from kdlab.show.picture import Picture as Picture
from kdlab.show.picture import axes as axes
from kdlab.show.picture import plt as plt
from kdlab.show.picture import style as style
from kdlab.show.strips import strip as strip
from kdlab.show.strips import strips as strips
from kdlab.show.texts import Texts as Texts
from kdlab.show.tokens import tokens as tokens

with needs("course", asked="plots", why="pictures need"):
    from matplotlib.colors import ListedColormap

VERDICTS = {
    "helps": "#0072B2",
    "helps a little": "#A6CBE5",
    "no difference": "#F2F2F2",
    "cannot tell": "#B9B9B9",
    "hurts a little": "#F0BF9B",
    "hurts": "#D55E00",
}
SIGNS = {
    "helps": "+",
    "helps a little": "(+)",
    "no difference": "=",
    "cannot tell": "?",
    "hurts a little": "(−)",
    "hurts": "−",
}


@style()
def intervals(
    estimates: Any,
    caption: str,
    alt: str,
    label: str | None,
    zero: bool | None = None,
    colours: Any = None,
) -> Picture:
    """Estimates as dots with 95 % intervals, one row each: {name: Estimate} → `Picture`.

    label: the axis, with its unit. zero: where to draw a line to compare with.
    """
    fig, ax = axes(figsize=(10, 1 + 0.45 * len(estimates)))
    for i, (name, e) in enumerate(estimates.items()):
        colour = (colours or {}).get(name, COLOURS[0])
        ax.errorbar(e.mean, -i, xerr=e.half_width(), fmt="o", color=colour, capsize=4, markersize=7)
    if zero is not None:
        ax.axvline(zero, color="grey", linewidth=1)
    ax.set_yticks([-i for i in range(len(estimates))], list(estimates))
    ax.set_ylim(0.6 - len(estimates), 0.4)
    ax.set_xlabel(label)
    return Picture(fig, caption, alt)


@style()
def curve(
    runs: Any,
    x: str,
    metric: str | Callable = "accuracy",
    caption: str | None = None,
    alt: str | None = None,
    by: str | None = None,
    label: str | None = None,
    log: bool = False,
    also: dict[str, Any] | None = None,
    name: str = "distilled",
) -> Picture:
    """The validation metric over column x, mean and 95 % interval, a line for each value of `by`.

    also: {name: Estimate}, drawn as horizontal bands to compare with; name: the runs' own, beside
    them in the legend. log: base-2 logarithmic x axis. A cell with diverged runs is an × at the
    foot, named in the caption."""
    fig, ax = axes()
    found: list = []
    fallen: list = []
    for i, group in enumerate(sorted(runs.frame[by].unique()) if by else [None]):
        line = runs.where(**{by: group}) if by else runs
        gone = line.diverged(x)
        kept = [value for value in line.frame[x].unique() if value not in gone]
        cells = line.where(**{x: kept}).estimates(x, metric) if kept else {}
        _with_bars(ax, cells, COLOURS[i], f"{by} {group}" if by else name if also else None)
        _at_the_foot(ax, gone, COLOURS[i], "diverged" if gone and not fallen else None)
        found += cells.values()
        of = f"{by} {group}, " if by else ""
        fallen += [f"{of}{x} {value} ({count} runs)" for value, count in gone.items()]
    for i, (other, e) in enumerate((also or {}).items(), start=1):
        ax.axhline(e.mean, color=COLOURS[-i], linestyle="--", label=other)
        ax.axhspan(*e.interval(), color=COLOURS[-i], alpha=0.12, linewidth=0)
    if log:
        ax.set_xscale("log", base=2)
        ticks = sorted(runs.frame[x].unique())
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_xlabel(x)
    called = metric if isinstance(metric, str) else metric.__name__
    what = found[0].what if found else f"{called} on validation"
    ax.set_ylabel(label or what + (" (%)" if found and found[0].measure == "%" else ""))
    if by or also or fallen:
        named = zip(*ax.get_legend_handles_labels(), strict=True)
        last = sorted(named, key=lambda pair: pair[1] == "diverged")
        ax.legend(*zip(*last, strict=True))
    said = f" Diverged, marked ×, without a number: {'; '.join(fallen)}." if fallen else ""
    splits = f"; bars are 95 % intervals over {len(found[0].values)} splits" if found else ""
    return Picture(
        fig,
        (caption or f"{what} over {x}{splits}.") + said,
        (alt or f"{what} against {x}, with error bars.") + said,
    )


def _with_bars(ax, cells, colour, label):
    """One line of dots with their intervals: {x: Estimate}."""
    means = [e.mean for e in cells.values()]
    half = [e.half_width() for e in cells.values()]
    look = {"marker": "o", "capsize": 4, "color": colour}
    ax.errorbar(list(cells), means, yerr=half, label=label, **look)


def _at_the_foot(ax, gone, colour, label):
    """An × for each x of which runs diverged."""
    place, look = [0.04] * len(gone), {"markersize": 10, "markeredgewidth": 3, "color": colour}
    ax.plot(list(gone), place, "x", transform=ax.get_xaxis_transform(), label=label, **look)


@style()
def beside_paper(table: Any, caption: str | None = None, alt: str | None = None) -> Picture:
    """Measured test errors beside a paper's, and a sweep of T → `Picture`.

    Both are as benchmarks/hinton_mnist.py writes them.

    table: a frame with columns arm, paper (NaN where it has no number), ours, low, high,
    temperature; the arms "30 units, …" are the sweep. Source of the paper's numbers: Hinton,
    Vinyals, Dean 2015, section 3."""
    swept = table["arm"].str.startswith("30 units")
    shares = table["arm"].str.contains("%")
    counts, sweep = table[~swept & ~shares], table[swept]
    fig, (left, right) = axes(1, 2, figsize=(10, 0.8 + 0.42 * len(counts)), width_ratios=[3, 2])
    _beside(left, counts)
    _over_temperature(right, sweep)
    said = "; ".join(
        f"{r.arm}: {r.ours:,.0f}" + (f" (paper {r.paper:,.0f})" if r.paper == r.paper else "")
        for r in table[~shares].itertuples()
    )
    return Picture(
        fig,
        caption
        or "MNIST test errors, the paper's (diamonds) and ours (dots; bars are 95 % intervals over "
        "test images, teachers and students; the images are the same for all, so differences are "
        "surer than the bars look). Right: networks with 30 units a layer, over T; the axis "
        "doesn't begin at 0.",
        alt or f"Test errors out of 10,000. {said}.",
    )


def _beside(left, counts):
    """Ours with their intervals beside the paper's, an arm a row."""
    for i, row in enumerate(counts.itertuples()):
        left.plot(
            [row.low, row.high],
            [-i, -i],
            color=COLOURS[0],
            solid_capstyle="butt",
            linewidth=5,
            alpha=0.45,
        )
        left.plot(
            row.ours,
            -i,
            "o",
            color=COLOURS[0],
            label="ours, with its 95 % interval" if i == 0 else None,
        )
        left.plot(
            row.paper,
            -i,
            "D",
            color=COLOURS[1],
            markerfacecolor="none",
            label="paper" if i == 0 else None,
        )
    left.set_yticks([-i for i in range(len(counts))], counts["arm"])
    left.set_xscale("log")
    left.set_xlabel("test errors out of 10,000, log scale")
    left.xaxis.set_major_formatter("{x:,.0f}")
    left.legend(loc="lower left", fontsize=10)


def _over_temperature(right, sweep):
    """Our errors over T, and where the paper found them least."""
    right.axvspan(2.5, 4, color=COLOURS[1], alpha=0.15, linewidth=0, label="best in the paper")
    right.errorbar(
        sweep["temperature"],
        sweep["ours"],
        marker="o",
        capsize=4,
        yerr=[sweep["ours"] - sweep["low"], sweep["high"] - sweep["ours"]],
    )
    right.set_xscale("log", base=2)
    right.xaxis.set_major_formatter("{x:g}")
    right.set_xlabel("temperature T, 30 units a layer")
    right.set_ylabel("test errors out of 10,000")
    right.legend(fontsize=10)


@style()
def verdict_map(
    panels: Any,
    rows: Any,
    columns: Any,
    cell: Any,
    caption: str,
    alt: str,
    row_label: str,
    column_label: str,
    titles: Sequence[str] | None = None,
) -> Picture:
    """A grid of verdicts in panels: colour, sign and mean for each cell.

    panels, rows, columns: what cell(panel, row, column) → (mean, verdict) is asked for; rows and
    columns are also the tick labels, and the panels their titles where `titles` gives no others. A
    mean that is not finite, or the verdict "diverged", is drawn as an × on white, whatever stands
    beside it."""
    fig, grid = axes(
        1, len(panels), figsize=(3.1 * len(panels), 0.62 * len(rows) + 1.7), sharey=True
    )
    diverged = False
    for ax, panel, title in zip(np.atleast_1d(grid), panels, titles or panels, strict=True):
        found = [[cell(panel, r, c) for c in columns] for r in rows]
        gone = [[v == "diverged" or not np.isfinite(mean) for mean, v in line] for line in found]
        diverged = diverged or bool(np.any(gone))
        _verdicts(ax, found, gone)
        ax.set_xticks(range(len(columns)), columns)
        ax.set_yticks(range(len(rows)), rows)
        for i in range(1, len(rows)):
            ax.axhline(i - 0.5, color="white", linewidth=1.5)
        for j in range(1, len(columns)):
            ax.axvline(j - 0.5, color="white", linewidth=1.5)
        ax.set_title(title)
        ax.set_xlabel(column_label)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    np.atleast_1d(grid)[0].set_ylabel(row_label)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in VERDICTS.values()]
    words = [f"{SIGNS[k]} {k}" for k in VERDICTS]
    if diverged:
        handles.append(plt.Rectangle((0, 0), 1, 1, facecolor="white", edgecolor="grey"))
        words.append("× diverged")
    fig.legend(handles, words, loc="outside lower center", ncols=4, fontsize=10)
    return Picture(fig, caption, alt)


def _verdicts(ax, found, gone):
    """The cells of one panel: found (mean, verdict) and gone (whether it diverged), row by row."""
    kinds = list(VERDICTS)
    shades = [
        [np.nan if g else kinds.index(v) for (_, v), g in zip(line, its, strict=True)]
        for line, its in zip(found, gone, strict=True)
    ]
    colours = ListedColormap(list(VERDICTS.values())).with_extremes(bad="white")
    ax.imshow(shades, aspect="auto", vmin=0, vmax=len(kinds) - 1, cmap=colours)
    for i, line in enumerate(found):
        for j, (mean, verdict) in enumerate(line):
            if gone[i][j]:
                text, ink = "×", "black"
            else:  # + 0.0 turns −0.0 into 0.0
                text = f"{SIGNS[verdict]}\n{round(mean, 1) + 0.0:+.1f}".replace("-", "−")
                ink = "white" if verdict in ("helps", "hurts") else "black"
            ax.text(j, i, text, ha="center", va="center", color=ink, fontsize=10)


@style()
def matrix(
    panels: Any,
    caption: str,
    alt: str,
    row_label: str,
    column_label: str,
    low: float = 0.0,
    high: float = 1.0,
) -> Picture:
    """Numbers in a grid, as shades and in figures, one panel beside another.

    panels: {title: {(row, column): Estimate}}, all with the same rows and columns.
    """
    rows, columns = (
        list(dict.fromkeys(key[i] for key in next(iter(panels.values())))) for i in (0, 1)
    )
    fig, grid = axes(
        1, len(panels), figsize=(1 + 2 * len(panels), 0.8 + 0.62 * len(rows)), sharey=True
    )
    for ax, (title, cells) in zip(np.atleast_1d(grid), panels.items(), strict=True):
        shades = [[cells[r, c].mean for c in columns] for r in rows]
        ax.imshow(shades, aspect="auto", cmap="Blues", vmin=low, vmax=high)
        for (r, c), e in cells.items():
            ax.text(
                columns.index(c),
                rows.index(r),
                f"{e.mean:.2f}\n±{e.half_width():.2f}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if e.mean > low + 0.6 * (high - low) else "black",
            )
        ax.set_xticks(range(len(columns)), columns)
        ax.set_yticks(range(len(rows)), rows)
        ax.set_title(title)
        ax.set_xlabel(column_label)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    np.atleast_1d(grid)[0].set_ylabel(row_label)
    return Picture(fig, caption, alt)


@style()
def images(
    x: Any, titles: Sequence[str] | None, caption: str, alt: str, columns: int = 8
) -> Picture:
    """Images (N, c, height, width) in [0, 1] in a row or more, with titles → `Picture`."""
    rows = -(-len(x) // columns)
    fig, grid = axes(
        rows,
        min(columns, len(x)),
        figsize=(1.15 * min(columns, len(x)), 1.45 * rows),
        squeeze=False,
    )
    for ax in grid.flat:
        ax.axis("off")
    for ax, image, title in zip(grid.flat, x.cpu(), titles or [], strict=False):
        ax.imshow(image.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(title, fontsize=10)
    return Picture(fig, caption, alt)
