"""Slides of every lesson in build/slides: python tools/slides.py [--build DIR] [notebook ...]

A lesson says nothing of slides, a rule does: a heading begins a slide, a result has a slide of its
own, and the code behind it lies below (arrow down). A cell that says what it is, in its own
metadata `slideshow`, is left alone. reveal.js and MathJax lie beside the decks, so they show
without a network."""

import argparse
import copy
import html
import re
import shutil
import sys
import tempfile
from pathlib import Path

import assets
from markdown_it import MarkdownIt
from nbconvert import SlidesExporter
from nbformat.v4 import new_markdown_cell
from runner import ROOT, lessons, read
from website import still

TEMPLATES = ROOT / "tools" / "templates"
# characters of text on a slide; a longer paragraph, or a short end, stays whole, and smaller
PAGE, TAIL = 560, 160
# a link to another lesson, whose slides lie beside these
LESSON = re.compile(r"\]\((\d\d_\w+)\.ipynb\)")
# to homework or a demo, which have no slides: its words alone
OTHER = re.compile(r"\[([^]]+)\]\([\w/]+/\w+\.ipynb\)")
FOLD = re.compile(r"<details><summary>Answer</summary>(.*?)</details>", re.DOTALL)


def blocks(text):
    """Markdown as its paragraphs, lists, tables, formulas and headings; a folded part is one block,
    however long."""
    rows, found = text.splitlines(), []
    for token in MarkdownIt().enable("table").parse(text):
        if token.level == 0 and token.map and token.nesting >= 0:
            block = "\n".join(rows[slice(*token.map)]).strip()
            inside = found and found[-1].startswith("<details") and "</details>" not in found[-1]
            if inside:
                found[-1] += f"\n\n{block}"
            else:
                found.append(block)
    return found


def pages(text, title):
    """([(kind, Markdown)], title): a text cell cut into slides, with folded answers as the
    speaker's notes.

    title: the heading that stood last before the cell, and the one to go on with after it.
    """
    found, size, last = [], 0, None
    for block in blocks(text):
        if block.startswith("<details"):
            found.append(("notes", block))
            continue
        heading = re.match(r"#+ (.*)", block)
        title = heading[1] if heading else title
        formula = block.startswith("$$")  # belongs to the sentence before it
        full = (
            size and size + len(block) > PAGE and not formula and (size > PAGE or len(block) > TAIL)
        )
        if heading or last is None or full:
            found.append(("slide", block if heading else f"{_where(title)}\n\n{block}"))
            last, size = len(found) - 1, 0 if heading else len(block)
        else:
            found[last] = ("slide", f"{found[last][1]}\n\n{block}")
            size += len(block)
    return found, title


def _where(title):
    return f'<p class="where">{html.escape(title)}</p>'


def cell_of(kind, text):
    return new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


def shown(cell):
    """Whether a code cell's result is for the class: neither the set-up's line nor an exercise not
    yet attempted."""
    texts = ["".join(out.get("data", {}).get("text/plain", "")) for out in cell.outputs]
    return (
        bool(cell.outputs)
        and "kd.setup(" not in cell.source
        and not any(t.startswith("Exercise ") for t in texts)
    )


def result(cell):
    """A copy of a code cell that shows its result alone; a folded answer comes with the next
    key."""
    alone = copy.deepcopy(cell)
    alone.metadata = {"transient": {"remove_source": True}, "slideshow": {"slide_type": "-"}}
    for output in alone.outputs:
        data = output.get("data", {})
        if "text/html" in data:
            data["text/html"] = FOLD.sub(
                r'<div class="fragment">\1</div>', "".join(data["text/html"])
            )
    return alone


def deck(notebook):
    """The lesson as a notebook of slides: cells cut and copied, their metadata `slideshow` set."""
    notebook, cells, title = still(copy.deepcopy(notebook)), [], "kdlab"
    for cell in notebook.cells:
        if cell.metadata.get("slideshow", {}).get("slide_type"):
            cells.append(cell)
        elif cell.cell_type == "markdown":
            found, title = pages(OTHER.sub(r"\1", LESSON.sub(r"](\1.html)", cell.source)), title)
            cells += [cell_of(kind, text) for kind, text in found]
        elif cell.cell_type == "code":
            if shown(cell):
                bare = (
                    cells
                    and cells[-1].cell_type == "markdown"
                    and re.fullmatch("#+ .*", cells[-1].source)
                )
                cells += [result(cell)] if bare else [cell_of("slide", _where(title)), result(cell)]
            if not cell.metadata.get("jupyter", {}).get("source_hidden"):
                code = copy.deepcopy(cell)
                code.outputs, code.metadata = [], {"slideshow": {"slide_type": "subslide"}}
                cells.append(code)
    first = next(
        (
            re.match(r"# (.*)", cell.source)
            for cell in notebook.cells
            if cell.source.startswith("# ")
        ),
        None,
    )
    for number, cell in enumerate(cells):
        cell.id = f"slide-{number}"
    notebook.cells, notebook.metadata["title"] = cells, first[1] if first else title
    return notebook


INDEX = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>kdlab: slides</title>
<style>
body {{ max-width: 40rem; margin: 3rem auto; padding: 0 1rem;
       font: 1.1rem/1.6 system-ui, sans-serif }}
</style>
</head>
<body><h1>kdlab: slides</h1>
<p>Arrow right goes on, arrow down shows the code of what is on the screen.
S opens the speaker's notes, Esc the overview;
<code>?print-pdf</code> after a deck's address makes pages for a printer.</p>
<ul>
{items}
</ul></body></html>
"""


def build(slides, names=()):
    """Build a deck of each lesson into the folder `slides`, in place of an earlier one; their
    names."""
    exporter = SlidesExporter(
        template_name="deck", extra_template_basedirs=[str(TEMPLATES)], exclude_anchor_links=True
    )
    slides.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="slides-", dir=slides.parent) as scratch:
        new, items = Path(scratch, "slides"), []
        assets.reveal(new / "reveal")
        assets.mathjax(new / "mathjax")
        for name in ("deck.css", "deck.js"):
            shutil.copyfile(TEMPLATES / "deck" / name, new / name)
        for path in lessons(names):
            cut = deck(read(path))
            page, _ = exporter.from_notebook_node(cut)
            (new / f"{path.stem}.html").write_text(page, encoding="utf-8")
            items.append(
                f'<li><a href="{path.stem}.html">{html.escape(cut.metadata["title"])}</a></li>'
            )
        (new / "index.html").write_text(INDEX.format(items="\n".join(items)), encoding="utf-8")
        assets.replace(new, slides)
    return items


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    options = parser.parse_args()
    slides = options.build.resolve() / "slides"
    print(f"{len(build(slides, options.notebooks))} decks; open {slides / 'index.html'}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the slides stay as they were.")
