"""What the class takes home of a pool: a table, and a picture of how it went."""

import csv
import io
import threading
from pathlib import Path
from typing import Any

from kdlab.base.writing import beside
from kdlab.evidence.intervals import DELTA
from kdlab.lessons.pool_book import Book
from kdlab.lessons.pool_reading import LEAST, dots, pooled, predictions
from kdlab.show.colours import BLUE, FAINT, HAIR, INK, LIGHT, MUTED, TINT

COLUMNS = ["split", "difference", "measure", "prediction", "status", "reason", "simulated"]
_drawing = threading.Lock()  # matplotlib's settings are those of the whole process


def table(book: Book) -> str:
    """Every entry as a line of CSV, also those that do not count; no laptop is named in it.

    >>> import tempfile
    >>> from kdlab.lessons.pool_book import Terms
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(table(Book(Path(folder), Terms("Does the teacher help?"))))
    split,difference,measure,prediction,status,reason,simulated
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in book.seen()[0]:
        sent = entry.sent
        writer.writerow(
            [sent.split, sent.difference, sent.measure, sent.prediction]
            + [entry.status, entry.reason, book.terms.simulated]
        )
    return out.getvalue()


def picture(book: Book) -> Any:
    """The entries that count in the order they came, and the interval after each → `Picture`.

    Raises ImportError, which says what to install, where matplotlib is missing.
    """
    from kdlab.show.picture import Picture, axes, style

    entries = book.seen()[0]
    terms, told = book.terms, pooled(entries, book.terms)
    found, foreseen = dots(entries, terms), predictions(entries)
    verdict = f"{told}: {told.verdict()}" if told else f"fewer than {LEAST} splits, no interval"
    drawn = " (simulated)" if terms.simulated else ""
    said = ", ".join(f"{words} {count}" for words, count in foreseen.items())
    with _drawing, style():
        figure, (left, right) = axes(
            1, 2, figsize=(10, 4.6), gridspec_kw={"width_ratios": [3.2, 1]}
        )
        figure.suptitle(
            f"{terms.question}{drawn}\n{verdict} ({len(found)} splits)",
            x=0.02,
            ha="left",
            color=INK,
        )
        _funnel(left, found, told, terms.measure)
        _bars(right, foreseen)
        made = Picture(
            figure,
            f"{terms.question}{drawn}",
            f"{len(found)} splits{drawn}, {verdict}. Predictions: {said}.",
        )
        made.svg, made.png  # noqa: B018  # drawn now, in this style
    return made


def _funnel(ax, found, told, measure):
    delta = DELTA[measure]
    ax.axhspan(-delta, delta, color=HAIR, lw=0)
    ax.axhline(0, color=INK, lw=1.2)
    shown = [(i, d) for i, d in enumerate(found, start=1) if d["low"] is not None]
    if shown:
        x = [i for i, _ in shown]
        ax.fill_between(
            x, [d["low"] for _, d in shown], [d["high"] for _, d in shown], color=TINT, lw=0
        )
        ax.plot(x, [d["mean"] for _, d in shown], color=BLUE, lw=2.5)
    values = [d["difference"] for d in found]
    ax.plot(range(1, len(found) + 1), values, "o", color=LIGHT, mec="white", ms=7, ls="")
    if told:
        ax.errorbar(
            len(found) + 1, told.mean, told.half_width(), fmt="o", color=BLUE, lw=3, capsize=5
        )
    reach = [*values, 0, -delta, delta, *(told.interval() if told else ())]
    room = 0.08 * (max(reach) - min(reach))
    ax.set_ylim(min(reach) - room, max(reach) + room)  # the first intervals are cut: they are wide
    ax.set_xlabel("splits, one a laptop, as they came")
    ax.set_ylabel(f"difference, {measure}")


def _bars(ax, foreseen):
    names = list(foreseen)[::-1]
    bars = ax.barh(names, [foreseen[name] for name in names], color=FAINT)
    ax.bar_label(bars, padding=4, color=INK)
    ax.set_title("predicted", color=MUTED, loc="left")
    ax.set_xlim(0, max(1, *foreseen.values()) * 1.25)
    ax.xaxis.set_visible(False)
    ax.spines["bottom"].set_visible(False)


def keep(book: Book, folder: Path) -> list[Path]:
    """Write pooled.csv, pooled.svg and pooled.png into a folder: the paths, without the pictures
    where matplotlib is missing."""
    files = {"pooled.csv": table(book).encode()}
    try:
        made = picture(book)
        files |= {"pooled.svg": made.svg, "pooled.png": made.png}
    except ImportError:
        pass  # the table is what can't be made again
    for name, content in files.items():
        with beside(folder / name) as new:
            new.write_bytes(content)
    return [folder / name for name in files]
