"""An audit as a page: what a student lost beside its teacher, where, and which examples."""

import html
import math
import os
from pathlib import Path
from typing import Any

import torch

from kdlab.base import arguments
from kdlab.evidence.audit import Audit
from kdlab.show.cards import SHEET, Card
from kdlab.show.colours import BLUE, FAINT, HAIR, INK, MUTED, VERMILLION

SHOWN = 18  # examples that got worse
WIDE, TALL = 220, 18  # of an interval's drawing, in pixels
LOOKS = {"worse": VERMILLION, "better": BLUE, "cannot tell": MUTED, "too few": FAINT}
NUMBER = "text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums"
TEXTS = ("text", "right", "the student, how sure")
HEADS = ("group", "rows", "teacher, %", "student, %", "change in points", "", "")


def report(
    audit: Audit,
    examples: Any = None,
    path: str | os.PathLike | None = None,
    title: str = "Audit of a student beside its teacher",
) -> Card:
    """An audit to read and to hand on: the numbers, a row a group, the surest new mistakes.

    audit: made by `kdlab.audit`. examples: what the rows show, images (N, H, W) or (N, c, H, W) or
    a list of N texts. path: a file to write, one HTML page without any other. Shown as HTML in a
    notebook, as text elsewhere. Raises TypeError or ValueError for what is no audit and for
    examples of another number.

    >>> from kdlab.evidence.audit import audit
    >>> z = torch.eye(2)[[0, 1] * 10]
    >>> print(report(audit(z, z, torch.tensor([0, 1] * 9 + [1, 0]))))
    Audit of a student beside its teacher
    Of 20 rows the teacher gets 90.0 % right, the student 90.0 %: 0.0 points (−10.9 to 10.9).
    They agree on 100.0 % (83.9 to 100.0).
    Calibration error: teacher 16.9 % (1.9 to 31.9), student 16.9 % (1.9 to 31.9).
    The student repeats 2 of the teacher's 2 mistakes, and makes 0 where the teacher is right.
    """
    arguments.instance("report", "audit", audit, Audit, "as kd.audit makes it")
    arguments.text("report", "title", title)
    if path is not None:
        arguments.place("report", "path", path)
    shown = _examples(audit, examples)
    told, table = _told(audit), audit.table()
    body = "".join(f'<p style="margin:.4em 0">{html.escape(line)}</p>' for line in told)
    markup = (
        f'<section style="{SHEET}padding:1em 1.4em;margin:.6em 0">'
        f'<h2 style="margin:.2em 0 .6em;font-size:1.3em">{html.escape(title)}</h2>{body}'
        f"{_table(table)}{shown}</section>"
    )
    if path is not None:
        _write(Path(path), title, markup)
    return Card("\n".join([title, *told]), markup)


def _told(audit):
    """What the numbers say, in sentences."""
    row, n = audit.table().iloc[0], len(audit.labels)
    return [
        f"Of {n:,} rows the teacher gets {row['teacher']:.1f} % right, the student "
        f"{row['student']:.1f} %: {_points(row, ' points')}.",
        *audit.told(),
    ]


# --- the table ---


def _table(table):
    ends = table[["low", "high"]].fillna(0.0)
    reach = min(-1.0, float(ends["low"].min())), max(1.0, float(ends["high"].max()))
    head = "".join(
        f'<th style="padding:.2em .6em;{NUMBER if i else "text-align:left"};color:{MUTED};'
        f'font-weight:normal">{name}</th>'
        for i, name in enumerate(HEADS)
    )
    rows = "".join(_row(name, row, reach) for name, row in table.iterrows())
    return (
        '<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:1em 0;'
        f'font-size:inherit"><caption style="text-align:left;color:{MUTED}">Change: student minus '
        "teacher. The intervals hold together at 95 %; the rows are the units, of this teacher and "
        f"this student.</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(name, row, reach):
    def cell(words, more=NUMBER):
        return f'<td style="padding:.25em .6em;border-top:1px solid {HAIR};{more}">{words}</td>'

    parts = [f"{row[who]:.1f}" if row["rows"] else "" for who in ("teacher", "student")]
    weight = "bold" if row["verdict"] in ("worse", "better") else "normal"
    look = INK if row["verdict"] == "too few" else LOOKS[row["verdict"]]
    return (
        "<tr>"
        f'<th style="padding:.25em .6em;border-top:1px solid {HAIR};text-align:left">'
        f"{html.escape(str(name))}</th>"
        + cell(f"{row['rows']:,}")
        + "".join(map(cell, parts))
        + cell(_points(row))
        + cell(_drawing(row, reach), "")
        + cell(row["verdict"], f"color:{look};font-weight:{weight}")
        + "</tr>"
    )


def _points(row, unit=""):
    """The change and its interval in words."""
    if math.isnan(row["change"]):
        return ""
    change, low, high = (f"{row[k] + 0.0:.1f}".replace("-", "−") for k in ("change", "low", "high"))
    return change + unit + ("" if math.isnan(row["low"]) else f" ({low} to {high})")


def _drawing(row, reach):
    """The interval beside zero, from reach[0] to reach[1]; nothing where there is none."""
    if math.isnan(row["low"]):
        return ""

    def x(points):
        return 6 + (WIDE - 12) * (points - reach[0]) / (reach[1] - reach[0])

    colour, middle = LOOKS[row["verdict"]], TALL / 2
    return (
        f'<svg width="{WIDE}" height="{TALL}" viewBox="0 0 {WIDE} {TALL}" aria-hidden="true">'
        f'<path d="M{x(0):.1f} 0V{TALL}" stroke="{FAINT}"/>'
        f'<path d="M{x(row["low"]):.1f} {middle}H{x(row["high"]):.1f}" stroke="{colour}" '
        f'stroke-width="3"/><circle cx="{x(row["change"]):.1f}" cy="{middle}" r="5" '
        f'fill="{colour}"/></svg>'
    )


# --- the examples ---


def _examples(audit, examples):
    """The surest mistakes that the teacher did not make, as HTML; or the error for others."""
    if examples is None:
        return ""
    if not torch.is_tensor(examples):
        examples = arguments.listed("report", "examples", examples, "images, or a list of texts")
        if not all(isinstance(text, str) for text in examples):
            raise TypeError(
                "report: examples must be images (a tensor) or texts, got a list of "
                f"{type(examples[0]).__name__}"
            )
    elif not examples.ndim:
        raise ValueError("report: examples must be images (N, …), got a single number")
    if len(examples) != len(audit.labels):
        raise ValueError(
            f"report: examples must be one for each of {len(audit.labels)} rows, got "
            f"{len(examples)}"
        )
    which = audit.worse(SHOWN).tolist()
    if not which:
        return "<p>No row got worse.</p>"
    return (
        _images(audit, examples, which)
        if torch.is_tensor(examples)
        else _texts(audit, examples, which)
    )


def _images(audit, images, which):
    from kdlab.show.strips import strip

    of = len(audit.worse())
    picture = strip(
        images[which].cpu(),
        audit.student[which],
        audit.labels[which],
        f"Under each what the student reads, the surest mistakes first; {len(which)} of {of} that "
        "the teacher does not make.",
        f"{len(which)} images that the teacher reads rightly and the student does not.",
        title="These got worse",
        labels=audit.classes,
    )
    return picture._repr_mimebundle_()["text/html"]


def _texts(audit, texts, which):
    def cell(words, colour=INK):
        look = f"padding:.3em .6em;border-top:1px solid {HAIR};color:{colour}"
        return f'<td style="{look}">{html.escape(words)}</td>'

    rows = "".join(
        f"<tr>{cell(texts[i])}{cell(audit.classes[int(audit.labels[i])])}"
        + cell(
            f"{audit.classes[int(audit.student[i])]} ({100 * float(audit.sure[i]):.0f} %)",
            VERMILLION,
        )
        + "</tr>"
        for i in which
    )
    head = "".join(f'<th style="padding:.2em .6em">{name}</th>' for name in TEXTS)
    return (
        '<h3 style="font-size:1.1em;margin:.8em 0 .2em">These got worse</h3>'
        f'<p style="color:{MUTED};margin:.2em 0">{len(which)} of {len(audit.worse())} that the '
        "teacher gets right, the surest mistakes first.</p>"
        f'<table style="border-collapse:collapse"><thead><tr style="color:{MUTED};text-align:left">'
        f"{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _write(path, title, markup):
    """All of the page or nothing."""
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title></head>"
        f'<body style="margin:1em;background:#f4f6f8">{markup}</body></html>\n'
    )
    new = path.with_name(path.name + ".new")
    try:
        new.write_text(page, encoding="utf-8")
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
