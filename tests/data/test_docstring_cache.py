"""Docstrings kept on disk: not parsed again, and made anew where anything changed."""

import importlib
import os
import sys

import pytest

docstrings = importlib.import_module("kdlab.data.docstrings")


def test_what_was_read_is_kept_and_not_parsed_again(library, tmp_path, monkeypatch):
    library("good.py", '"""A text of five words, \\ud800."""')
    first = library.read()
    assert first == [("good", "A text of five words, \ud800.")]
    assert len(list((tmp_path / "own" / "cache").iterdir())) == 1  # and nothing half written
    monkeypatch.setattr(docstrings, "parsed", lambda *_: pytest.fail("parsed"))
    assert library.read() == first and type(library.read()[0]) is tuple


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept[:-9],
        lambda kept: b"",
        lambda kept: b"\xff" + kept,
        lambda kept: kept.replace(b"five", b"nine"),
        lambda kept: kept[:70].replace(b"\n", b"0\n") + kept[70:],  # of another library
    ],
    ids=["cut off", "empty", "no text", "changed", "other key"],
)
def test_kept_docstrings_that_are_damaged_are_made_anew(library, tmp_path, damage):
    library("good.py", '"""A text of five words."""')
    first = library.read()
    (kept,) = (tmp_path / "own" / "cache").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert kept.read_bytes() != whole
    assert library.read() == first and kept.read_bytes() == whole


def test_docstrings_of_a_library_that_changed_are_read_anew(library, tmp_path, monkeypatch):
    library("good.py", '"""A text of five words."""')
    library.read()
    library("good.py", '"""A text of nine words."""')
    os.utime(tmp_path / "lib" / "good.py", ns=(1, 1))  # as long as before, and within a clock tick
    assert library.read() == [("good", "A text of nine words.")]
    library("more.py", '"""Another text of five words."""')
    assert len(library.read()) == 2
    monkeypatch.setattr(sys, "version", "3.99")
    monkeypatch.setattr(docstrings, "parsed", lambda *_: [("other", "Python")])
    assert library.read() == [("other", "Python")]


def test_docstrings_are_read_where_nothing_can_be_kept(library, tmp_path):
    library("good.py", '"""A text of five words."""')
    (tmp_path / "own").write_text("a file where the folder would be")
    assert library.read() == [("good", "A text of five words.")]
    (tmp_path / "own").unlink()
    library.read()
    (kept,) = (tmp_path / "own" / "cache").iterdir()
    kept.unlink()
    kept.mkdir()  # nor can it be replaced
    assert library.read() == [("good", "A text of five words.")]
