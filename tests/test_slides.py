"""Every lesson as slides: cut by rule, whole, and without another server."""

import re
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

from kdlab.lessons.predict import questions

LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])


def kinds(notebook):
    return [cell.metadata["slideshow"]["slide_type"] for cell in notebook.cells]


def test_a_slide_has_a_heading_a_sentence_and_what_is_set_apart():
    heading, words, spoken = slides.told(
        "## A\n\nA *b* (2.5 c.). D e.\n\n$$x$$\n\nF.\n\n> **G.** H.\n\n"
        "<details><summary>S</summary>\n\nI.\n\n</details>"
    )
    assert (heading, words) == ("## A", "A *b* (2.5 c.).\n\n$$x$$\n\n> **G.** H.")
    assert spoken.startswith("D e.\n\nF.\n\n<details>") and spoken.endswith("</details>")


def test_a_list_stays_whole_also_without_a_heading():
    assert slides.told("- One. Two.\n- Three.\n\nFour.") == (None, "- One. Two.\n- Three.", "Four.")


def test_every_heading_of_a_cell_has_a_slide():
    assert slides.parts("A.\n\n## B\n\nC.\n\n### D\n- E.") == ["A.", "## B\n\nC.", "### D\n\n- E."]


def test_code_blocks_and_tables_are_not_cut():
    code, table = "```\n# no heading\n\n\nx\n```", "| a | b |\n|---|---|\n| 1 | 2 |"
    assert slides.blocks(f"{code}\n\n{table}\n- a\n- b") == [code, table, "- a\n- b"]


def out(plain, markup=None, **more):
    data = {"text/plain": plain} | ({"text/html": markup} if markup else {}) | more
    return new_output("execute_result", data=data, execution_count=1)


def test_a_question_its_figure_its_answer_and_the_code_below():
    hidden = {"jupyter": {"source_hidden": True}}
    lesson = new_notebook(
        cells=[
            new_markdown_cell("# Lesson\n\nOne. Two."),
            new_code_cell("lab = kd.setup()", outputs=[new_output("stream", text="kdlab on cpu")]),
            new_code_cell(
                'kd.predict("03.a")', metadata=hidden, outputs=[out("Predict", "<p>?</p>")]
            ),
            new_markdown_cell("## Part\n\nThree."),
            new_code_cell("runs = train()"),
            new_code_cell("draw()", outputs=[out("Figure", "<p>!</p>", **{"image/png": "x"})]),
            new_code_cell('f = kd.yours("03.1", f)', outputs=[out("○ 03.1 f: dots", "<p>o</p>")]),
            new_markdown_cell("mine", metadata={"slideshow": {"slide_type": "fragment"}}),
            new_code_cell("mine()", metadata={"slideshow": {"slide_type": "skip"}}),
        ]
    )
    before = nbformat.writes(lesson)
    made = slides.deck(lesson)
    assert nbformat.writes(lesson) == before  # the lesson itself is not changed
    seen = [(kind, cell.source) for kind, cell in zip(kinds(made), made.cells, strict=True)]
    asked = questions()["03.a"]
    assert [kind for kind, _ in seen] == [
        *("slide", "-", "notes", "subslide"),  # the title with its question
        *("slide", "-", "subslide", "subslide", "slide"),  # the figure, its code, the answer
        *("subslide", "fragment", "skip"),
    ]
    assert seen[0][1] == "# Lesson\n\nOne." and seen[2][1] == "Two."
    assert seen[4][1] == "## Part\n\nThree." and seen[6][1] == "runs = train()"
    assert asked.right in seen[8][1] and asked.because in seen[8][1]
    assert made.cells[1].outputs[0].data["text/html"] == "<p>?</p>" and made.cells[7].outputs == []
    assert made.metadata["title"] == "Lesson"
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


def test_what_has_no_slides_is_words():
    text = "[a](demos/1_a.ipynb), [page](../train.md), [far](https://x.org/b/c.md)"
    assert slides.OTHER.sub(r"\1", text) == "a, page, [far](https://x.org/b/c.md)"


@each_lesson
def test_every_figure_and_every_heading_is_in_the_deck(decks, path):
    lesson, shown = nbformat.read(path, as_version=4), page(decks / f"{path.stem}.html")
    figures = sum(
        "".join(out.get("data", {}).get("text/html", "")).count("<img ")
        for cell in lesson.cells
        for out in cell.get("outputs", [])
    )
    assert len(shown.figures) == figures and all(shown.figures)
    told = "".join("".join(shown.words).split())
    for cell in lesson.cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else []:
            if line.startswith("#"):
                assert "".join(line.strip("# ").split()) in told
    assert not re.search(
        r"not timed yet|^(Claim \(|Exercise [0-9.]+: )", "\n".join(shown.words), re.MULTILINE
    )


def test_one_deck_is_built_beside_the_others(tmp_path):
    slides.build(tmp_path / "slides", LESSONS[:2])
    first = tmp_path / "slides" / f"{LESSONS[0].stem}.html"
    first.write_text("<title>kept</title>")
    assert slides.build(tmp_path / "slides", LESSONS[1:2]) == [LESSONS[1].stem]
    assert first.read_text() == "<title>kept</title>"
    assert "kept" in (tmp_path / "slides" / "index.html").read_text()


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
