"""Pages of the site that are made from the notebooks and from what was measured: thumbnails of what
there is, answers, and the ledger of claims."""

import base64
import csv
import html
import io
import re

from PIL import Image
from runner import read

from kdlab.lessons.predict import questions

WIDTH = 480  # of a thumbnail, in pixels: twice what it is shown at
FOR = re.compile(r"\*\*(?:You (?:will )?practise|You will be able to)\*\*:? ([^.]+)\.")


def first_picture(notebook):
    """The first picture of a notebook as PNG bytes, or None."""
    for cell in notebook.cells:
        for out in cell.get("outputs", []):
            if data := out.get("data", {}).get("image/png"):
                return base64.b64decode(data)
    return None


def thumbnail(png, path):
    """Write the picture small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((WIDTH, WIDTH))
    picture.save(path)


def titled(notebook):
    """(title, what it is for): the first heading in two, or with what one practises there."""
    text = "\n".join(cell.source for cell in notebook.cells[:4] if cell.cell_type == "markdown")
    title = re.search(r"^# (.*)", text, re.MULTILINE)[1]
    practised = FOR.search(text)
    head, _, rest = title.partition(": ")
    aim = rest or (practised[1] if practised else "")
    return head, aim[:1].upper() + aim[1:]


def cards(paths, folder, root):
    """HTML: for each notebook its picture, title and aim, leading to its page.

    folder: of the site's sources, where the thumbnails go. root: of the repository.
    """
    found = []
    for path in sorted(paths):
        notebook, inside = read(path), path.relative_to(root).with_suffix("")
        png, (title, aim) = first_picture(notebook), titled(notebook)
        image = ""
        if png:
            thumbnail(png, folder / "_static" / "thumbnails" / f"{path.stem}.png")
            image = f'<img alt="" src="_static/thumbnails/{path.stem}.png" loading="lazy">'
        found.append(
            f'<a class="card" href="{inside.as_posix()}.html">{image}'
            f"<strong>{_plain(title)}</strong><span>{_plain(aim)}</span></a>"
        )
    return f'<div class="kdlab-gallery">{"".join(found)}</div>'


def _plain(words):
    return html.escape(re.sub(r"[`*]", "", words))


def answers():
    """Markdown: every question of the course with its answer, lesson by lesson."""
    lines, lesson = (
        [
            "# Answers to the predictions",
            "",
            "Each lesson asks before it shows. In JupyterLab a guess brings the answer; here all "
            "stand, for print and for readers without scripts. Guess first.",
        ],
        None,
    )
    for name, asked in sorted(questions().items()):
        if name[:2] != lesson:
            lesson = name[:2]
            lines += ["", f"## Lesson {lesson}"]
        options = " · ".join(asked.options)
        lines += ["", f"**{name}** {asked.text} *{options}*", ""]
        lines += [f"**{asked.right}.** {asked.because}"]
    return "\n".join(lines) + "\n"


LEDGER = """# The ledger of claims

A lesson's claim stops its notebook where it does not hold. That is one set of draws. For this table
the lessons were run again, each run with splits, teachers and students of its own, and every claim
was counted. A run counts where the claim's 95 % interval lay on the claimed side at every budget;
where it did not, the claim may be wrong there, or the interval may be too wide to tell. The claims
that did not always hold come first.

The *margin* is the distance of the mean from the claim's bound, in standard errors, at the budget
where that is least: its mean over the runs, and its least. *Fails at* names the budgets at which
the claim failed, and in how many runs; a claim of one budget names none. Margins stop at 99.
`make repeat NB=notebooks/NN_name.ipynb` makes a lesson's rows again; [Refute us](refute.md) says
how to send a setting that flips one.
"""


def ledger(table, lessons):
    """Markdown: how often each claim held on fresh draws, those that did not always hold first.

    table: the file that tools/repeat.py writes. lessons: the names of all lessons' notebooks.
    """
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counted = [row for row in rows if int(row["of"])]
    always = [row for row in counted if int(row["held"]) == int(row["of"])]
    rest = [row for row in counted if int(row["held"]) < int(row["of"])]
    read = [row for row in rows if not int(row["of"])]
    rest.sort(key=lambda row: (int(row["held"]) / int(row["of"]), row["lesson"]))
    made = sorted({f"{row['hardware']}, {row['machine']}, torch {row['torch']}" for row in rows})
    missing = [name for name in sorted(lessons) if name not in {row["lesson"] for row in rows}]
    lines = [LEDGER, f"## Not always: {len(rest)} of {len(counted)}", "", *_claims(rest)]
    lines += ["", f"## In every run: {len(always)} of {len(counted)}", "", *_claims(always)]
    if read:
        told = "These stand on curves that take too long for a lesson and were measured once, by a"
        lines += [
            "",
            "## Read off a table, not counted",
            "",
            f"{told} script in `benchmarks/`.",
            "",
        ]
        lines += [f"- {_lesson(row['lesson'])} {_escaped(row['sentence'])}" for row in read]
    if missing:
        named = ", ".join(_lesson(name) for name in missing)
        lines += ["", "## Not repeated yet", "", f"The claims of lessons {named}."]
    return "\n".join([*lines, "", f"Made on: {'; '.join(made)}."]) + "\n"


def _claims(rows):
    """The rows of the ledger as a table, or a line where there are none."""
    if not rows:
        return ["None."]
    lines = ["| lesson | claim | held | margin | least | fails at |", "|---|---|---|---|---|---|"]
    for row in rows:
        held = f"{row['held']} of {row['of']}"
        told = [row["mean_margin"], row["least_margin"], _escaped(row["flips"])]
        told = [_lesson(row["lesson"]), _escaped(row["sentence"]), held, *told]
        lines.append(f"| {' | '.join(told)} |")
    return lines


def _lesson(name):
    return f"[{name[:2]}](../notebooks/{name}.ipynb)"


def _escaped(words):
    return re.sub(r"([\\`*_|<>$\[\]])", r"\\\1", words)
