"""The course as a site: whole, offline, with every link leading somewhere, and without what
students mustn't see."""

import doctest
import html
import importlib
import inspect
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pages import ROOT, broken, built, from_elsewhere, page

pytest.importorskip(
    "sphinx", reason="the site's packages are not installed: pip install -e '.[site]'"
)
sys.path.insert(0, str(ROOT / "tools"))
import assets
import reference
import website

import kdlab

LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])


@pytest.fixture(scope="module")
def site():
    return built("website")


def words(path):
    return " ".join(" ".join(page(path).words).split())


def markdown(path):
    return "\n".join(
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    )


# --- every page ---


def test_no_page_needs_another_server(site):
    assert len(list(site.rglob("*.html"))) > len(LESSONS)
    assert from_elsewhere(site) == []


@pytest.mark.parametrize(
    "bad",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<script src="//cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="https://cdn.example/x.css">',
        '<link rel="preload" href="https://cdn.example/f.woff">',
        '<img alt="x" src="https://cdn.example/x.png">',
        '<img alt="x" src="a.png" srcset="https://cdn.example/x.png 2x">',
        "<style>@font-face { src: url('https://cdn.example/f.woff2') }</style>",
        '<style>@import "//cdn.example/x.css"</style>',
        "<script>s.src = '//cdn.example/x'</script>",
        "<script type=module>import x from 'https://cdn.example/x.mjs'</script>",
        '<p style="background: url(https://cdn.example/x.png)">',
    ],
)
def test_an_address_elsewhere_is_noticed(tmp_path, bad):
    (tmp_path / "x.html").write_text(f'<a href="https://example.org/">{bad}')
    assert len(from_elsewhere(tmp_path)) == 1


def test_every_link_leads_somewhere(site):
    assert broken(site) == []


@pytest.mark.parametrize(
    "bad",
    [
        "b.html",
        "a.html#nowhere",
        "#nowhere",
        "../a.html",
        "https:///x",
        "file:///etc/passwd",
        "javascript:x()",
        "http://",
        "x.ipynb",
    ],
)
def test_a_broken_link_is_noticed(tmp_path, bad):
    (tmp_path / "a.html").write_text(
        f'<h1 id="here"></h1><a href="{bad}">x</a><a href="a.html#here">y</a>'
        '<a href="https://example.org/x">z</a>'
    )
    assert broken(tmp_path) == [f"a.html: {bad}"]


# --- lessons ---


@each_lesson
def test_a_lesson_is_shown_as_it_was_executed(site, path):
    shown = page(site / "notebooks" / f"{path.stem}.html")
    notebook = nbformat.read(path, as_version=4)
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    images = sum(
        "".join(out.get("data", {}).get("text/html", "")).count("<img ") for out in outputs
    )
    # once each, figures and cards, and none without words
    assert images > 0 and all(shown.figures) and len(shown.figures) == images
    text = words(site / "notebooks" / f"{path.stem}.html")
    for out in outputs:
        if out.get("name") == "stdout":
            assert " ".join(out.text.split()) in text
    assert "$$" not in text and "VBox(" not in text


def test_formulas_need_no_network(site):
    pages = [
        path
        for path in site.glob("notebooks/*.html")
        if "MathJax" in path.read_text(encoding="utf-8")
        or "mathjax" in path.read_text(encoding="utf-8")
    ]
    assert len(pages) >= len(LESSONS) - 1
    for path in pages:
        for script in [load for load in page(path).loads if "mathjax" in load]:
            assert (path.parent / script.split("?")[0]).stat().st_size > 1e6  # the glyphs are in it


def output(data):
    cell = new_code_cell("x", outputs=[new_output("display_data", data=data)])
    return new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})


def test_a_control_is_shown_as_its_picture_or_as_a_sentence():
    view = {website.VIEW: {"model_id": "x"}, "text/plain": "VBox(children=(…"}
    pictured = website.still(output(view | {"text/html": "<figure>"}))
    assert set(pictured.cells[0].outputs[0].data) == {"text/html", "text/plain"}
    assert (
        "widgets" not in pictured.metadata and pictured.metadata.language_info["name"] == "python"
    )
    bare = website.still(output(dict(view))).cells[0].outputs[0].data
    assert "JupyterLab" in bare["text/html"] and website.VIEW not in bare
    assert website.still(output({"text/plain": "3"})).cells[0].outputs[0].data == {
        "text/plain": "3"
    }


def test_a_notebook_s_link_to_docs_leads_to_the_site_s_page():
    text = "[here](../docs/train.md), [there](../../docs/peaks.md), [far](https://x.org/docs/a.md)"
    shown = website.still(new_notebook(cells=[new_markdown_cell(text)])).cells[0].source
    assert shown == "[here](../train.md), [there](../../peaks.md), [far](https://x.org/docs/a.md)"


# --- homework ---


def test_homework_is_there_without_its_solutions(site):
    student = sorted((ROOT / "notebooks" / "homework" / "student").glob("*/*.ipynb"))
    instructor = sorted((ROOT / "notebooks" / "homework" / "instructor").glob("*/*.ipynb"))
    for path in student:
        assert (site / path.relative_to(ROOT)).with_suffix(".html").is_file()
    released = "\n".join(
        cell.source for path in student for cell in nbformat.read(path, as_version=4).cells
    )
    secret = set()
    for path in instructor:
        for cell in nbformat.read(path, as_version=4).cells:
            for part in re.findall(
                r"### BEGIN (?:SOLUTION|HIDDEN TESTS)(.*?)### END", cell.source, re.DOTALL
            ):
                lines = {line.strip() for line in part.splitlines() if len(line.strip()) > 40}
                secret |= {line for line in lines if line not in released}
    assert bool(secret) == bool(instructor)
    lessons = {path.stem for path in LESSONS}
    for path in site.rglob("*"):
        if path.suffix in (".html", ".ipynb", ".txt", ".js") and "_static" not in path.parts:
            text = html.unescape(path.read_text(encoding="utf-8")).replace('\\"', '"')
            assert "BEGIN SOLUTION" not in text and "BEGIN HIDDEN" not in text, path
            if path.stem not in lessons:  # their exercises are others, with solutions to reveal
                assert [line for line in secret if line in text] == [], path
    assert not [path for path in site.rglob("*instructor*") if "hw" in path.name]


# --- reference ---


def test_every_name_has_its_text_word_for_word(site):
    exported = {
        name: value
        for name in kdlab.__all__
        if inspect.isfunction(value := getattr(kdlab, name)) or inspect.isclass(value)
    }
    index = words(site / "api" / "index.html")
    for name, value in exported.items():
        where = site / "api" / f"{value.__module__.removeprefix('kdlab.')}.html"
        assert (
            f"{value.__module__}.{value.__name__}" in page(where).anchors and f"kd.{name} " in index
        )
        text = re.sub(r"\s+|¶", "", words(where))
        told = re.sub(r"\s+", "", re.sub(r"# doctest: .*", "", inspect.getdoc(value))).replace(
            "`", ""
        )
        assert told in text, f"kd.{name}"


def test_every_file_of_the_package_has_a_page(site):
    files = {
        f"{path.parent.name}.{path.stem}"
        for path in (ROOT / "kdlab").glob("*/*.py")
        if path.stem not in reference.PRIVATE
    }
    assert {path.stem for path in (site / "api").glob("*.html")} == files | {"index"}


def test_the_list_has_every_public_name_in_its_room(site):
    index = words(site / "api" / "index.html")
    rooms = reference.public(ROOT / "kdlab")
    assert sorted(name for names in rooms.values() for name, *_ in names) == sorted(kdlab.__all__)
    for room, names in rooms.items():
        assert all(f"kd.{name} {room}/{file} " in index for name, file, *_ in names), room


@pytest.mark.parametrize("module", [reference, website], ids=["reference", "website"])
def test_examples_of_the_tools(module):
    found = doctest.testmod(module)
    assert found.failed == 0


def test_lists_and_examples_of_a_docstring_keep_their_shape():
    lines = [
        "Two kinds.",
        "- one *",
        "  and on",
        "- two",
        "",
        "    a",
        "",
        "    b",
        "",
        "x, y: both, `z`",
        "and on.",
    ]
    assert [line for line in reference.restructured(lines) if line] == [
        "Two kinds.",
        "- one \\*",
        "  and on",
        "- two",
        ".. code-block:: none",
        "   a",
        "   b",
        "**x, y**: both, ``z``",
        "and on.",
    ]


def test_the_glossary_s_terms_stand_in_the_lessons_that_they_link_to():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    entries = re.findall(
        r"^(\S.*)\n  (.*\[Lesson (\d\d)\]\(\.\./notebooks/(\S+)\.ipynb\))$", text, re.MULTILINE
    )
    terms = [
        line
        for line in text.splitlines()
        if line and not line.startswith((" ", "#", "`", ":", "The field"))
    ]
    assert [entry[0] for entry in entries] == terms and 30 <= len(terms) <= 70
    for term, _, number, name in entries:
        lesson = re.sub(
            r"[\s-]+", " ", str(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4))
        ).lower()
        stem = max(re.findall(r"[\w²]+", term.lower()), key=len)[:5]
        assert name.startswith(number) and stem in lesson, term


def test_the_bibliography_is_what_the_lessons_point_to():
    bib = (ROOT / "docs" / "references.bib").read_text(encoding="utf-8")
    plain = "".join(re.findall(r"\w", bib.lower()))
    listed = {}
    for title, note in re.findall(
        r"title = \{\{(.*?)\}\}.*?note = \{Lessons? (.*?)\}", bib, re.DOTALL
    ):
        listed["".join(re.findall(r"\w", title.lower()))] = set(note.split(", "))
    assert len(listed) == bib.count("\n@") + 1
    cited = {}
    for path in LESSONS:
        named = re.split(r"\n#+ |\*\*Next\*\*", markdown(path).split("Further reading")[-1])[0]
        papers = re.findall(r"\((\d{4})\)[^*\n]*?\*([^*]+)\*", named)
        assert papers, f"{path.stem}: no paper with its year and its title in italics"
        for year, title in papers:
            title = "".join(re.findall(r"\w", title.lower()))
            whole = next((known for known in listed if known.startswith(title)), None)
            assert whole, f"{path.stem}: not in references.bib: {title}"
            assert f"year{year}" in plain[plain.index(whole) :][: len(whole) + 200]
            cited.setdefault(whole, set()).add(path.stem[:2])
    assert cited == listed


# --- building ---


def test_a_warning_leaves_the_site_that_was_there(tmp_path, monkeypatch, capfd):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("before")

    def stage(folder, text="[nowhere](nowhere.md)"):
        (folder / "conf.py").write_text('extensions = ["myst_parser"]\n')
        (folder / "index.md").write_text(f"# A page\n\n{text}\n")

    monkeypatch.setattr(website, "stage", stage)
    assert website.build(tmp_path / "site") is False and "nowhere" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert (tmp_path / "site" / "index.html").read_text() == "before"
    monkeypatch.setattr(website, "stage", lambda folder: stage(folder, "Fine."))
    assert website.build(tmp_path / "site") is True
    assert "Fine." in (tmp_path / "site" / "index.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_lists_of_pages_name_those_there_are(tmp_path):
    for name in ("b.ipynb", "a.md", "c.txt"):
        (tmp_path / name).touch()
    text = "Two *words*\n* a star\n\n[a-b]*\nnone/*\nb\n"
    assert website.listed(text, tmp_path) == "Two *words*\n* a star\n\na\nb\n\nb\n"


def test_links_from_docs_lead_to_the_site_s_pages_or_are_words(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "a.ipynb").touch()
    text = (
        "[a](../notebooks/a.ipynb#x) [folder](../notebooks) [tool](../tools/x.py)"
        " [far](https://example.org) ![map](map.png) [here](#here)"
    )
    assert (
        website.linked(text, tmp_path)
        == "[a](notebooks/a.ipynb#x) folder tool [far](https://example.org) "
        "![map](map.png) [here](#here)"
    )


def test_a_package_that_is_missing_is_named():
    with pytest.raises(SystemExit, match="no-such-package is not installed"):
        assets.folder("no-such-package", "x")
    with pytest.raises(SystemExit, match="sphinx-revealjs .* has no such/folder"):
        assets.folder("sphinx-revealjs", "such/folder")
    assert importlib.util.find_spec("site").origin != str(
        Path(website.__file__)
    )  # tools hides no module of Python's
