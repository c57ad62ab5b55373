"""What every lesson keeps to: executed in order, alt text, short cells, the rhythm. Each rule
catches a bad example."""

import base64
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kdlab.lessons.predict import questions

LESSONS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9][0-9]_*.ipynb"))
HEADINGS = ["Takeaways", "Check yourself", "Further reading"]
# lessons in the second edition's form; the others follow
NBVAL_OFF = re.compile(
    r"NBVAL_IGNORE|NBVAL_SKIP|NBVAL_RAISES|nbval-|raises-exception", re.IGNORECASE
)
MACHINE_PATH = re.compile(
    r"(?<![\w.:/~-])/(?:home|Users|root|tmp|work|mnt|opt|private|var)/\w"
    r"|\b[A-Z]:\\Users\b|ipykernel_\d"
)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def source(notebook, kind):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == kind)


def outputs(notebook):
    return [(i, out) for i, cell in enumerate(code(notebook), start=1) for out in cell.outputs]


def strings(node):
    """Every text inside a notebook except pictures."""
    if isinstance(node, str):
        yield re.sub(r"data:image/[^;]+;base64,[\w+/=]+", "", node)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from () if key.startswith("image/") else strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value)


class Figures(HTMLParser):
    """Counts <figure>s that hold an image with alt text and a caption, and images without alt
    text."""

    def __init__(self, page):
        super().__init__()
        self.good, self.silent, self.alt, self.caption, self.inside = 0, 0, False, "", False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "figure":
            self.alt, self.caption = False, ""
        if tag == "img":
            self.alt = bool((dict(attributes).get("alt") or "").strip())
            self.silent += not self.alt
        self.inside = self.inside or tag == "figcaption"

    def handle_data(self, data):
        self.caption += data if self.inside else ""

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "figcaption"
        self.good += tag == "figure" and self.alt and bool(self.caption.strip())


# --- the rules: each returns a list of faults ---


def executed(notebook, name):
    counts = [cell.execution_count for cell in code(notebook)]
    return (
        []
        if counts == list(range(1, len(counts) + 1))
        else [f"execution counts are {counts}, not 1 to n in order"]
    )


def clean_outputs(notebook, name):
    faults = [
        f"code cell {i}: an error output"
        for i, out in outputs(notebook)
        if out.output_type == "error"
    ]
    return faults + [
        f"code cell {i}: output on stderr"
        for i, out in outputs(notebook)
        if out.get("name") == "stderr"
    ]


def alt_text(notebook, name):
    faults = []
    for i, out in outputs(notebook):
        found = Figures("".join(out.get("data", {}).get("text/html", "")))
        pictured = any(kind.startswith("image/") for kind in out.get("data", {}))
        if found.silent or pictured and not found.good:
            faults.append(f"code cell {i}: a picture without <figure>, alt text or caption")
    return faults


def short_cells(notebook, name):
    return [
        f"code cell {i}: {len(cell.source.splitlines())} lines, at most 20"
        for i, cell in enumerate(code(notebook), start=1)
        if len(cell.source.splitlines()) > 20
    ]


def no_installs(notebook, name):
    return re.findall(r"^\s*[%!]\s*(?:pip|conda|uv)\b.*", source(notebook, "code"), re.MULTILINE)


def compared(notebook, name):
    marked = [cell.source + str(cell.metadata.get("tags", "")) for cell in code(notebook)]
    return [
        f"code cell {i}: switches nbval off"
        for i, text in enumerate(marked, start=1)
        if NBVAL_OFF.search(text)
    ]


def portable(notebook, name):
    faults = [
        f"a path of one machine: {text.strip()[:80]}"
        for text in strings(notebook)
        if MACHINE_PATH.search(text)
    ]
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        faults.append("the kernel is not python3")
    return faults + [
        f"cell {i}: execution times in its metadata; run `make execute`"
        for i, cell in enumerate(notebook.cells, start=1)
        if "execution" in cell.metadata
    ]


def first_screen(notebook, name):
    """Two or three sentences and a picture; then what it is good for."""
    heads = [i for i, c in enumerate(notebook.cells) if re.search(r"^## ", c.source, re.MULTILINE)]
    opening = notebook.cells[: min(heads, default=None)]
    words = "\n".join(cell.source for cell in opening if cell.cell_type == "markdown")
    pictured = any(
        "image/png" in out.get("data", {})
        for cell in opening
        if cell.cell_type == "code"
        for out in cell.outputs
    )
    required = {
        "a picture before the first section": pictured,
        "a first cell without formulas": "$" not in notebook.cells[0].source,
        "what you will be able to do": "You will be able to" in words,
    }
    return [f"lacks {what}" for what, found in required.items() if not found]


def brief(notebook, name):
    text, program = source(notebook, "markdown"), source(notebook, "code")
    words = len(re.sub(r"<[^>]+>|\]\([^)]*\)", " ", text).split())
    wide = [line for line in program.splitlines() if len(line) > 88]
    claims, drawn = (
        program.count("kd.claim("),
        re.findall(r"\bplt\.|matplotlib|\.subplots", program),
    )
    return [
        *([f"{words} words of prose, at most 1,250"] if words > 1250 else []),
        *([f"{claims} claims, at most 5"] if claims > 5 else []),
        *[f"a line of {len(line)} characters, at most 88" for line in wide],
        *([f"{drawn[0]} in a cell: pictures live in kdlab/lessons/figures"] if drawn else []),
    ]


def built(notebook, name):
    """Asked before it is answered, and written by the learner."""
    text, program = source(notebook, "markdown"), source(notebook, "code")
    everything = " ".join(strings(notebook))
    required = {
        "a question by its name, kd.predict(": re.search(r'kd\.predict\("\d\d\.[a-z]"\)', program),
        "two functions of the learner's, kd.yours(": program.count("kd.yours(") >= 2
        or name.startswith("00"),
        "the answer in one sentence ('## The answer' and a quotation)": re.search(
            r"^## The answer\n+> \*\*", text, re.MULTILINE
        ),
    }
    told = [
        letter
        for letter, asked in questions().items()
        if asked.because in everything or html.escape(asked.because) in everything
    ]
    return [f"lacks {what}" for what, found in required.items() if not found] + [
        f"tells the answer to {letter}" for letter in told
    ]


def rhythm(notebook, name):
    text, program = source(notebook, "markdown"), source(notebook, "code")
    opening = notebook.cells[:6]
    first = "\n".join(cell.source for cell in opening if cell.cell_type == "markdown")
    title = first.strip().splitlines()[0].strip() if first.strip() else ""
    required = {
        "a title, '# …'": title.startswith("# "),
        "a question as its title": title.endswith("?"),
        "the minutes it takes, at the beginning": re.search(r"\d\s*min(ute)?s?\b", first),
        "what to have done before ('Before …'), at the beginning": "Before" in first,
        "a prediction, kd.predict(": "kd.predict(" in program,
        "a claim, kd.claim(": "kd.claim(" in program,
        "two exercises, kd.check( or kd.yours(": len(re.findall(r"kd\.(?:check|yours)\(", program))
        >= 2,
        **{
            f"a heading '{h}'": re.search(rf"^(?:#+ |\*\*).*{h}|<b>{h}", text, re.MULTILINE)
            for h in HEADINGS
        },
    }
    return [f"lacks {what}" for what, found in required.items() if not found]


RULES = [
    executed,
    clean_outputs,
    alt_text,
    short_cells,
    no_installs,
    compared,
    portable,
    rhythm,
    first_screen,
    brief,
    built,
]


def test_there_are_lessons():
    assert LESSONS, "no notebooks/NN_name.ipynb: the tests below would test nothing"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lesson(path, rule):
    assert rule(nbformat.read(path, as_version=4), path.stem) == []


def pictures(number, words):
    """The PNGs of a lesson's figures whose captions begin with `words`."""
    (path,) = (path for path in LESSONS if path.stem.startswith(f"{number}_"))
    return [
        base64.b64decode(out.data["image/png"])
        for _, out in outputs(nbformat.read(path, as_version=4))
        if out.get("data", {}).get("text/plain", "").startswith(f"Figure: {words}")
    ]


def test_the_readme_shows_the_missing_3_of_lesson_02():
    root = Path(__file__).parent.parent
    first = (root / "docs" / "first.png").read_bytes()
    assert pictures("02", "A student that is never shown a 3") == [first]
    assert "](docs/first.png)" in (root / "README.md").read_text(encoding="utf-8")


# --- each rule catches its bad example ---

PNG = '<img alt="{}" src="data:image/png;base64,iVBOR/home/x">'
FIGURE = f"<figure>{PNG.format('a rising line')}<figcaption>It rises.</figcaption></figure>"


def good():
    """A made-up lesson with nothing wrong."""
    cells = [
        new_markdown_cell("# 01 · Why not?\nA small model learns from a big one."),
        new_code_cell("lab = kd.setup(seed=0)"),
        new_code_cell("figures.digits(task)"),
        new_markdown_cell(
            "**You will be able to** say why. 5 minutes on a laptop. Before: lesson 00."
        ),
        new_code_cell('kd.predict("01.a")'),
        new_markdown_cell("## Build it"),
        new_code_cell('a = kd.yours("01.1", a)\nb = kd.yours("01.2", b)'),
        new_code_cell("kd.claim('more', gain > 0)"),
        new_markdown_cell("## The answer\n\n> **Because it helps.**\n"),
        new_markdown_cell(
            "## Takeaways\n## Check yourself\n## Further reading\nhttps://a.org/home/page"
        ),
    ]
    notebook = new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    for i, cell in enumerate(code(notebook), start=1):
        cell.execution_count = i
    data = {"image/png": "iVBOR/home/x", "text/html": FIGURE, "text/plain": "Figure"}
    code(notebook)[1].outputs = [
        new_output("display_data", data=data),
        new_output("stream", text="holds"),
    ]
    return notebook


def picture(cell, page):
    cell.outputs[0]["data"] = {"image/png": "iVBOR"} | ({"text/html": page} if page else {})


def replace(notebook, old, new):
    for cell in notebook.cells:
        cell.source = cell.source.replace(old, new)


BAD = [
    (
        executed,
        "not 1 to n",
        lambda nb, cell: cell.update(execution_count=None, outputs=[]),
    ),  # nbval passes this
    (executed, "not 1 to n", lambda nb, cell: cell.update(execution_count=7)),
    (
        clean_outputs,
        "error",
        lambda nb, cell: cell.outputs.append(new_output("error", ename="E", evalue="")),
    ),
    (
        clean_outputs,
        "stderr",
        lambda nb, cell: cell.outputs.append(new_output("stream", name="stderr", text="!")),
    ),
    (alt_text, "without", lambda nb, cell: picture(cell, None)),
    (alt_text, "without", lambda nb, cell: picture(cell, PNG.format("bare"))),
    (alt_text, "without", lambda nb, cell: picture(cell, FIGURE.replace("a rising line", " "))),
    (alt_text, "without", lambda nb, cell: picture(cell, FIGURE.replace("It rises.", ""))),
    (alt_text, "without", lambda nb, cell: picture(cell, FIGURE + PNG.format(""))),
    (short_cells, "21 lines", lambda nb, cell: cell.update(source="x = 1\n" * 21)),
    (no_installs, "pip", lambda nb, cell: cell.update(source="import os\n%pip install torch")),
    (no_installs, "pip", lambda nb, cell: cell.update(source="!pip install torch")),
    (compared, "nbval", lambda nb, cell: cell.update(source="# NBVAL_IGNORE_OUTPUT\nkd.claim(x)")),
    (compared, "nbval", lambda nb, cell: cell.metadata.update(tags=["nbval-skip"])),
    (compared, "nbval", lambda nb, cell: cell.metadata.update(tags=["raises-exception"])),
    (portable, "path", lambda nb, cell: cell.update(source="open('/home/ada/data.csv')")),
    (
        portable,
        "path",
        lambda nb, cell: cell.outputs.append(new_output("stream", text="saved\n/tmp/x.csv")),
    ),
    (portable, "path", lambda nb, cell: cell.update(source=r"open('C:\Users\ada')")),
    (portable, "kernel", lambda nb, cell: nb.metadata.kernelspec.update(name="kdlab-dev")),
    (
        portable,
        "times",
        lambda nb, cell: cell.metadata.update(execution={"iopub.status.busy": "2026-01-01"}),
    ),
    (rhythm, "a title", lambda nb, cell: nb.cells.pop(0)),
    (rhythm, "question", lambda nb, cell: replace(nb, "Why not?", "Why")),
    (rhythm, "minutes", lambda nb, cell: replace(nb, "5 minutes", "Quick")),
    (rhythm, "Before", lambda nb, cell: replace(nb, "Before", "Then")),
    (rhythm, "prediction", lambda nb, cell: replace(nb, "kd.predict", "print")),
    (rhythm, "claim", lambda nb, cell: replace(nb, "kd.claim", "print")),
    (rhythm, "exercises", lambda nb, cell: replace(nb, 'kd.yours("01.2"', 'print("b"')),
    (first_screen, "picture", lambda nb, cell: cell.update(outputs=[])),
    (first_screen, "formulas", lambda nb, cell: replace(nb, "A small model", "$x$")),
    (first_screen, "able", lambda nb, cell: replace(nb, "You will be able", "Now")),
    (brief, "words", lambda nb, cell: replace(nb, "Build it", "many words " * 630)),
    (brief, "claims", lambda nb, cell: cell.update(source="kd.claim()\n" * 5)),
    (brief, "characters", lambda nb, cell: cell.update(source="x" * 89)),
    (brief, "pictures live", lambda nb, cell: cell.update(source="plt.plot(x)")),
    (built, "by its name", lambda nb, cell: replace(nb, "01.a", "more or less?")),
    (built, "learner's", lambda nb, cell: replace(nb, "kd.yours", "kd.check")),
    (built, "one sentence", lambda nb, cell: replace(nb, "> **", "")),
    (built, "tells", lambda nb, cell: replace(nb, "Build it", questions()["03.a"].because)),
    *[(rhythm, h, lambda nb, cell, h=h: replace(nb, f"## {h}", h)) for h in HEADINGS],
]


@pytest.mark.parametrize(
    "rule, word, spoil", BAD, ids=[f"{rule.__name__}-{word}" for rule, word, _ in BAD]
)
def test_rule_catches(rule, word, spoil):
    notebook = good()
    assert [fault for each in RULES for fault in each(notebook, "01_why")] == []
    spoil(notebook, code(notebook)[1])
    assert word in " ".join(rule(notebook, "01_why"))
