"""Learning platforms' downloads: who handed in what, which attempt is the newest, and what is
refused."""

import importlib
import io
import json
import sys
import unicodedata
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
lms, submissions = (importlib.import_module(name) for name in ("lms", "submissions"))

CANVAS = {"doejane_LATE_4711_90210_hw1-1.ipynb": "new", "doejane_4711_90100_hw1.ipynb": "old"}
MOODLE = {
    "Jané Doe_4711_assignsubmission_file_/hw1.ipynb": "new",
    "Jané Doe_4711_assignsubmission_onlinetext_/onlinetext.html": "words",
}
FLAT = {"Jané Doe_4711_assignsubmission_file_hw1.ipynb": "new"}
BLACKBOARD = {
    "gradebook_KD_hw1_jdoe_attempt_2026-11-20-14-03-22.txt": "Name: Jane",
    "gradebook_KD_hw1_jdoe_attempt_2026-11-20-14-03-22_hw1.ipynb": "old",
    "gradebook_KD_hw1_jdoe_attempt_2026-11-21-09-00-00_hw1 (2).ipynb": "new",
}


def notebook(answer):
    cell = new_code_cell(answer, metadata={"nbgrader": {"grade_id": "hw1-q1"}})
    return nbformat.writes(new_notebook(cells=[cell]))


def zipped(files, when=(2026, 11, 20, 12, 0, 0)):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            if isinstance(content, str) and name.endswith(".ipynb"):
                content = notebook(content)
            archive.writestr(zipfile.ZipInfo(name, when), content)
    return buffer.getvalue()


def found(tmp_path, content, name="download.zip"):
    """{student: (the answer that counts, remarks)} of an archive, and the lines about it."""
    source = tmp_path / name
    source.write_bytes(content)
    folder, lines = lms.gather(source, tmp_path / "unpacked")
    here, more = submissions.find(folder, {"hw1": None})
    told = {one.student: (one.cells and one.cells[0][3], one.remarks) for one in here}
    assert len(told) == len(here)
    return told, [*lines, *more]


@pytest.mark.parametrize(
    "files, student",
    [
        (CANVAS, "doejane_4711"),
        (MOODLE, "Jané Doe_4711"),
        (FLAT, "Jané Doe_4711"),
        (BLACKBOARD, "jdoe"),
        ({"jane/deep/hw1.ipynb": "new"}, "jane"),
        ({"jane.zip": zipped({"hw1.ipynb": "new"})}, "jane"),
        ({"doejane_4711_90210_all.zip": zipped({"a/hw1.ipynb": "new"})}, "doejane_4711"),
    ],
    ids=["Canvas", "Moodle", "Moodle, flat", "Blackboard", "folders", "zips", "Canvas, zips"],
)
def test_each_platform_tells_the_student_and_the_newest_counts(tmp_path, files, student):
    told, _ = found(tmp_path, zipped(files))
    ((who, (answer, remarks)),) = told.items()
    assert who == student and answer == "new"
    if len([name for name in files if name.endswith("ipynb")]) > 1:
        assert any("2 files for hw1: the newest, " in remark for remark in remarks)


def test_a_late_mark_is_told(tmp_path):
    _, lines = found(tmp_path, zipped(CANVAS))
    assert "doejane_4711: hw1-1.ipynb is marked late by the platform" in lines


def test_copies_of_a_browser_are_newer_by_time_then_by_number(tmp_path):
    files = {"jane/hw1.ipynb": "first", "jane/hw1 (2).ipynb": "third", "jane/hw1 (1).ipynb": "2nd"}
    told, _ = found(tmp_path, zipped(files))
    assert told["jane"][0] == "third"


def test_names_as_a_mac_writes_them_are_one_student(tmp_path):
    decomposed = unicodedata.normalize("NFD", "José")
    told, _ = found(tmp_path, zipped({f"{decomposed}/hw1.ipynb": "new", "José/hw1.txt": b""}))
    assert list(told) == ["José"]
    place = tmp_path / "folder" / decomposed
    place.mkdir(parents=True)
    (place / "hw1.ipynb").write_text(notebook("new"), encoding="utf-8")
    here, lines = submissions.find(tmp_path / "folder", {"hw1": None})
    assert [one.student for one in here] == ["José"] and lines == []


def test_a_folder_of_archives_is_a_student_each(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    for student in ("ada", "bob"):
        (place / f"{student}.zip").write_bytes(zipped({"homework/hw1.ipynb": student}))
    folder, _ = lms.gather(place, tmp_path / "unpacked")
    here, _ = submissions.find(folder, {"hw1": None})
    assert {one.student: one.cells[0][3] for one in here} == {"ada": "ada", "bob": "bob"}
    assert lms.gather(folder, tmp_path / "other") == (folder, [])  # already folders of students


@pytest.mark.parametrize(
    "name", ["../out.ipynb", "jane/../../out.ipynb", "/etc/out.ipynb", "C:\\out.ipynb"]
)
def test_nothing_is_written_outside(tmp_path, name):
    with pytest.raises(lms.ArchiveError, match="outside"):
        found(tmp_path, zipped({name: "bad"}))
    assert not list(tmp_path.rglob("out.ipynb"))


def test_what_is_no_archive_or_too_much_is_told(tmp_path, monkeypatch):
    with pytest.raises(lms.ArchiveError, match="not an archive that can be read"):
        found(tmp_path, b"PK no")
    with pytest.raises(lms.ArchiveError, match="holds no files"):
        found(tmp_path, zipped({}))
    with pytest.raises(lms.ArchiveError, match=r"expected a folder or a \.zip"):
        lms.gather(tmp_path / "nothing.rar", tmp_path / "unpacked")
    told, lines = found(tmp_path, zipped({"a/hw1.ipynb": "new", "b/all.zip": b"PK no"}))
    assert told["a"][0] == "new" and "cannot be read" in lines[0]
    monkeypatch.setattr(lms, "MOST_BYTES", 100)
    with pytest.raises(lms.ArchiveError, match="holds more than"):
        found(tmp_path, zipped({"a/big.bin": b"0" * 101}))


def test_archives_in_archives_end(tmp_path):
    content = zipped({"hw1.ipynb": "new"})
    for _ in range(6):
        content = zipped({"jane.zip": content})
    told, lines = found(tmp_path, content)
    assert told == {} and "archives deep, left out" in lines[0]


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
def test_lines_of_windows_and_the_notebooks_of_long_ago_are_read(tmp_path, ends):
    path = tmp_path / "hw1.ipynb"
    path.write_text(notebook(f"a = 1{ends}b = 2"), encoding="utf-8")
    assert submissions.read_cells(path)[0][3] == "a = 1\nb = 2"
    mark = {"nbgrader": {"grade_id": "hw1-q1"}}
    cells = [{"cell_type": "code", "input": ["a = 1\n", "b"], "metadata": mark, "outputs": []}]
    path.write_text(json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]}))
    assert submissions.read_cells(path)[0][:2] == ("code", "hw1-q1")
    assert submissions.read_cells(path)[0][3] == "a = 1\nb"


def test_answers_are_known_by_their_cells_where_the_metadata_were_stripped():
    marks = {"nbgrader": {"grade_id": "hw1-q1", "solution": True}}
    given = new_notebook(cells=[new_code_cell("...", metadata=marks, id="abc")])
    cells = [("code", "", "abc", "answer = 42", {})]
    restored, remarks = submissions.restored(given, given, cells)
    assert restored.cells[0].source == "answer = 42" and remarks == []
