"""Slides of every lesson in build/slides: python tools/slides.py [--build DIR] [notebook ...]

A lesson says nothing of slides, a rule does: a slide is a heading, one sentence and a figure or a
card; the rest of the text is the speaker's. A question comes before its figure and its answer after
it. The code lies below (arrow down). A cell that says what it is, in its own metadata `slideshow`,
is left alone. Reveal.js and MathJax lie beside the decks, so they show without a network."""

import argparse
import copy
import html
import re
import shutil
import sys
import tempfile
from pathlib import Path

import lean  # isort: skip  # noqa: F401
import assets
from markdown_it import MarkdownIt
from nbconvert import SlidesExporter
from nbformat.v4 import new_markdown_cell
from runner import ROOT, lessons, read
from website import still

from kdlab.lessons.predict import questions

TEMPLATES = ROOT / "tools" / "templates"
# a link to another lesson, whose slides lie beside these
LESSON = re.compile(r"\]\((\d\d_\w+)\.ipynb\)")
# to homework, a demo or a page of the site, which have no slides: its words alone
OTHER = re.compile(r"\[([^]]+)\]\([\w/.]+/\w+\.(?:ipynb|md)\)")
ASKED = re.compile(r"kd\.predict\(\"(\d\d\.\w)\"\)")
# how an exercise stands: kd.yours, kd.check
EXERCISE = re.compile(r"[✓✗○] \d\d\.\d|Exercise \d\d\.\d: ")
# the end of a sentence: not that of "e.g." or of a number
SENTENCE = re.compile(r"(?<=[.!?:…])[)*_\"”]*\s+(?=[*_\[(\"“]*[A-ZÀ-Ý0-9$])")


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


def parts(text):
    """A text cell as a list of Markdown texts, each but perhaps the first with its heading."""
    found = [[]]
    for block in blocks(text):
        if re.match(r"#+ ", block) and found[-1]:
            found.append([])
        found[-1].append(block)
    return ["\n\n".join(part) for part in found]


def told(text):
    """(heading or None, what a slide shows, what is the speaker's) of a text under one heading.

    A slide shows the first sentence or list, formulas, and what the author set apart as a
    quotation.
    """
    heading, shown, spoken = None, [], []
    for block in blocks(text):
        if re.match(r"#+ ", block):
            heading = block
        elif block.startswith((">", "$$")):
            shown.append(block)
        elif shown or block.startswith("<details"):
            spoken.append(block)
        else:
            first, *rest = SENTENCE.split(block, maxsplit=1) if _running(block) else [block]
            shown.append(first)
            spoken += rest
    return heading, "\n\n".join(shown), "\n\n".join(spoken)


def _running(block):
    """Whether it is a paragraph, and neither a list nor a table nor code."""
    return not re.match(r"[-*|`]|\d+\. ", block)


def _where(title):
    return f'<p class="where">{html.escape(title)}</p>'


def cell_of(kind, text):
    return new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


def results(cell):
    """What a code cell shows to a class: neither the set-up's line nor how an exercise stands."""
    texts = ("".join(out.get("data", {}).get("text/plain", "")) for out in cell.outputs)
    found = zip(cell.outputs, texts, strict=True)
    return [out for out, text in found if not EXERCISE.match(text)] * (
        "kd.setup(" not in cell.source
    )


def result(cell):
    """A copy of a code cell that shows its result alone."""
    alone = copy.deepcopy(cell)
    alone.outputs = copy.deepcopy(results(cell))
    alone.metadata = {"transient": {"remove_source": True}, "slideshow": {"slide_type": "-"}}
    return alone


def answer(name):
    """The answer to a question, as Markdown."""
    asked = questions()[name]
    return f"*{asked.text}*\n\n**{asked.right}**\n\n{asked.because}"


class Deck:
    """The slides of one lesson, cell after cell: `cells`, with their metadata `slideshow`."""

    def __init__(self):
        self.cells, self.below = [], []
        self.title, self.begun, self.asked = "kdlab", None, None

    def text(self, cell):
        """A text cell: at each heading a slide begins; what has begun may have more to tell."""
        for part in parts(OTHER.sub(r"\1", LESSON.sub(r"](\1.html)", cell.source))):
            heading, words, spoken = told(part)
            if heading or self.begun is None or self.begun[1]:
                self.end()
                self.begun = (heading or _where(self.title), words, spoken)
            else:
                self.begun = (self.begun[0], words, f"{self.begun[2]}\n\n{spoken}")
            self.title = heading.lstrip("# ") if heading else self.title

    def end(self, *results):
        """Write the slide that has begun, with these results on it and its code below."""
        if not (self.begun or results):
            return
        head, words, spoken = self.begun or (_where(self.title), "", "")
        self.cells += [cell_of("slide", f"{head}\n\n{words}"), *results]
        if spoken.strip():
            self.cells.append(cell_of("notes", spoken))
        self.cells += self.below
        self.begun, self.below = None, []

    def code(self, cell):
        """A code cell: its result on the slide, itself below; an answer once a figure was seen."""
        below = copy.deepcopy(cell)
        below.outputs, below.metadata = [], {"slideshow": {"slide_type": "subslide"}}
        code = [] if cell.metadata.get("jupyter", {}).get("source_hidden") else [below]
        asked = ASKED.search(cell.source)
        if asked:
            self.answered()
        if results(cell):
            self.end(result(cell))
        if self.begun:
            self.below += code  # until the slide has its result
        else:
            self.cells += code
        if asked:
            self.asked = asked[1]
        elif any("image/png" in out.get("data", {}) for out in results(cell)):
            self.answered()

    def answered(self):
        """The answer to the question that is open, on a slide of its own."""
        if self.asked:
            self.cells.append(cell_of("slide", f"{_where(self.title)}\n\n{answer(self.asked)}"))
            self.asked = None


def deck(notebook):
    """The lesson as a notebook of slides."""
    notebook, made = still(copy.deepcopy(notebook)), Deck()
    for cell in notebook.cells:
        if cell.metadata.get("slideshow", {}).get("slide_type"):
            made.end()
            made.cells.append(cell)
        elif cell.cell_type == "markdown":
            made.text(cell)
        elif cell.cell_type == "code":
            made.code(cell)
    made.end()
    made.answered()
    titles = (re.match(r"# (.*)", cell.source) for cell in notebook.cells)
    title = next((found[1] for found in titles if found), made.title)
    for number, cell in enumerate(made.cells):
        cell.id = f"slide-{number}"
    notebook.cells, notebook.metadata["title"] = made.cells, title
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
S opens the speaker's notes with the rest of the text, Esc the overview;
<code>?print-pdf</code> after a deck's address makes pages for a printer.</p>
<ul>
{items}
</ul></body></html>
"""


def build(slides, names=()):
    """Build a deck of each lesson into the folder `slides`; the decks' names.

    They take the place of what was there; where some lessons are named, the others' decks stay.
    """
    exporter = SlidesExporter(
        template_name="deck", extra_template_basedirs=[str(TEMPLATES)], exclude_anchor_links=True
    )
    slides.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="slides-", dir=slides.parent) as scratch:
        new, made = Path(scratch, "slides"), []
        assets.reveal(new / "reveal")
        assets.mathjax(new / "mathjax")
        for name in ("deck.css", "deck.js"):
            shutil.copyfile(TEMPLATES / "deck" / name, new / name)
        for path in lessons(names):
            page, _ = exporter.from_notebook_node(deck(read(path)))
            (new / f"{path.stem}.html").write_text(page, encoding="utf-8")
            made.append(path.stem)
        if names:
            for page in slides.glob("[0-9]*.html"):
                if page.stem not in made:
                    shutil.copyfile(page, new / page.name)
        (new / "index.html").write_text(index(new), encoding="utf-8")
        assets.replace(new, slides)
    return made


def index(folder):
    """A page that leads to every deck in the folder, by its title."""
    items = []
    for page in sorted(folder.glob("[0-9]*.html")):
        title = re.search(r"<title>(.*?)</title>", page.read_text(encoding="utf-8"), re.DOTALL)
        items.append(
            f'<li><a href="{page.name}">{title[1].strip() if title else page.stem}</a></li>'
        )
    return INDEX.format(items="\n".join(items))


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
