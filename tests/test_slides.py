"""Every lesson as slides: cut by rule, whole, and without another server."""

import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pages import ROOT, broken, built, from_elsewhere, page

pytest.importorskip(
    "sphinx", reason="the site's packages are not installed: pip install -e '.[site]'"
)
sys.path.insert(0, str(ROOT / "tools"))
import slides

LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])


def kinds(notebook):
    return [cell.metadata["slideshow"]["slide_type"] for cell in notebook.cells]


def text(words, length):
    return (words * (length // len(words) + 1))[:length]


def test_a_heading_begins_a_slide_and_long_text_goes_on_with_its_title():
    long = [text("some words ", 400), text("other words ", 400), "$$x$$", "A short end."]
    found, title = slides.pages("\n\n".join(["# A", "First.", "## B & C", *long]), "before")
    assert [kind for kind, _ in found] == ["slide"] * 3 and title == "B & C"
    assert found[0][1] == "# A\n\nFirst." and found[1][1].startswith("## B & C\n\nsome words")
    assert found[2][1].startswith('<p class="where">B &amp; C</p>\n\nother words')
    assert found[2][1].endswith("$$x$$\n\nA short end.")
    found, title = slides.pages("$$x$$", "before")
    assert found == [("slide", '<p class="where">before</p>\n\n$$x$$')] and title == "before"


def test_folded_answers_are_the_speaker_s():
    fold = "<details><summary>Answers</summary>\n\n1. One.\n\n2. Two.\n\n</details>"
    found, _ = slides.pages(f"## Check\n\n1. Why?\n\n{fold}\n\nMore.", "")
    assert found == [("slide", "## Check\n\n1. Why?\n\nMore."), ("notes", fold)]


def test_code_blocks_and_tables_are_not_cut():
    code, table = "```\n# no heading\n\n\nx\n```", "| a | b |\n|---|---|\n| 1 | 2 |"
    assert slides.blocks(f"{code}\n\n{table}\n- a\n- b") == [code, table, "- a\n- b"]


def card(plain, markup):
    return new_output(
        "execute_result", data={"text/plain": plain, "text/html": markup}, execution_count=1
    )


def test_results_have_slides_and_code_lies_below():
    fold = "<details><summary>Answer</summary><p>(a)</p></details>"
    hidden = {"jupyter": {"source_hidden": True}}
    lesson = new_notebook(
        cells=[
            new_markdown_cell("# Lesson"),
            new_code_cell("lab = kd.setup()", outputs=[new_output("stream", text="kdlab on cpu")]),
            new_code_cell(
                "kd.predict()", metadata=hidden, outputs=[card("Predict: x", f"<p>x</p>{fold}")]
            ),
            new_markdown_cell("## Your turn"),
            new_code_cell("2 + 2", outputs=[card("4", "<b>4</b>")]),
            new_code_cell("kd.check()", outputs=[card("Exercise 01.1: not attempted", "<p>○</p>")]),
            new_markdown_cell("mine", metadata={"slideshow": {"slide_type": "fragment"}}),
            new_code_cell("mine()", metadata={"slideshow": {"slide_type": "skip"}}),
        ]
    )
    before = nbformat.writes(lesson)
    made = slides.deck(lesson)
    assert nbformat.writes(lesson) == before  # the lesson itself is not changed
    assert kinds(made) == [
        "slide",
        "subslide",
        "slide",
        "-",
        "slide",
        "-",
        "subslide",
        "subslide",
        "fragment",
        "skip",
    ]
    assert (
        made.metadata["title"] == "Lesson" and made.cells[2].source == '<p class="where">Lesson</p>'
    )
    answer = made.cells[3].outputs[0].data["text/html"]
    assert answer == '<p>x</p><div class="fragment"><p>(a)</p></div>'
    assert made.cells[5].outputs[0].data["text/html"] == "<b>4</b>" and made.cells[6].outputs == []
    assert len({cell.id for cell in made.cells}) == len(made.cells)


@pytest.fixture(scope="module")
def decks():
    return built("slides")


def test_no_deck_needs_another_server(decks):
    assert {path.name for path in decks.glob("*.html")} == {"index.html"} | {
        f"{path.stem}.html" for path in LESSONS
    }
    assert from_elsewhere(decks) == []
    assert (decks / "reveal" / "LICENSE").is_file()


def test_every_link_leads_somewhere(decks):
    assert broken(decks) == []


@each_lesson
def test_every_figure_and_every_word_is_in_the_deck(decks, path):
    lesson, shown = nbformat.read(path, as_version=4), page(decks / f"{path.stem}.html")
    figures = sum(
        "image/png" in out.get("data", {})
        for cell in lesson.cells
        for out in cell.get("outputs", [])
    )
    assert len(shown.figures) == figures and all(shown.figures)
    told = "".join("".join(shown.words).split())
    for cell in lesson.cells:
        if (
            cell.cell_type == "code"
        ):  # what a cell prints; the set-up's line and unattempted exercises are left out
            for out in cell.outputs:
                assert "kd.setup(" in cell.source or "".join(out.get("text", "").split()) in told
        else:
            for line in cell.source.splitlines():
                if line.startswith("#"):
                    assert "".join(line.strip("# ").split()) in told


def test_a_failure_leaves_the_slides_that_were_there(tmp_path):
    old = tmp_path / "slides"
    old.mkdir()
    (old / "index.html").write_text("before")
    bad = tmp_path / "09_bad.ipynb"
    bad.write_text("{")
    with pytest.raises(Exception, match="JSON"):
        slides.build(old, [LESSONS[0], bad])
    assert (old / "index.html").read_text() == "before" and {
        p.name for p in tmp_path.iterdir()
    } == {"slides", bad.name}
