"""A file of records after a crash, another hand, and a disk that is full."""

import json
import os

import pytest
from laptops import NAMES, TERMS, ask, filled, sent

from kdlab.lessons.pool_book import Book
from kdlab.lessons.pool_journal import Journal
from kdlab.lessons.pool_reading import Reading

pytestmark = pytest.mark.usefixtures("own_cache")


def test_half_a_line_is_passed_over_and_said_and_the_next_one_is_whole(tmp_path):
    filled(Book(tmp_path, TERMS), [1.0, 2.0])
    path = tmp_path / "pool.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # a crash in the middle of the fifth
    book = Book(tmp_path, None)
    assert [e.sent.difference for e in book.entries] == [1.0]
    assert "Line 5 of pool.jsonl could not be read" in Reading(book).now()["notes"][0]
    book.enter(sent(NAMES[1], 2, 2.0))  # who got no answer sends again
    again = Book(tmp_path, None)
    assert [e.status for e in again.entries] == ["counts", "counts"]
    assert len(again.notes) == 1


def test_a_line_that_another_hand_wrote_is_passed_over(tmp_path):
    filled(Book(tmp_path, TERMS), [1.0])
    with (tmp_path / "pool.jsonl").open("ab") as file:
        file.write(b'\xff\n[]\n{"kind": "flown"}\n{"kind": "sent", "laptop": "a"}\n')
    book = Book(tmp_path, None)
    assert len(book.entries) == 1 and "Lines 4, 5, 6, 7 of" in book.notes[0]


def test_a_disk_that_takes_nothing_changes_nothing(running, monkeypatch):
    name = NAMES[0]
    running.book.join(name)

    def full(file):
        raise OSError("no space left")

    what = {"laptop": name, "split": 1, "difference": 1.0, "measure": "points"}
    what["prediction"] = "helps"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert ask(running.address, "send", running.code, what)[0] == 503
        assert running.book.entries == []
    assert json.loads(ask(running.address, "send", running.code, what)[1])["status"] == "counts"
    assert len(Book(running.folder, None).entries) == 1


def test_what_was_appended_is_there_for_who_reads_it_next(tmp_path):
    records = [{"kind": "joined", "laptop": "Åsa"}, {"kind": "closed"}]
    for record in records:
        Journal(tmp_path / "a.jsonl").append(record)
    again = Journal(tmp_path / "a.jsonl")
    assert (again.records, again.damaged) == (list(enumerate(records, start=1)), [])


def test_a_line_that_a_full_disk_cut_stays_alone(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "a.jsonl")

    def full(file):
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(os, "fsync", full)
        journal.append({"number": 1})
    journal.path.write_bytes(journal.path.read_bytes()[:-4])  # not all of it was taken
    journal.append({"number": 2})
    again = Journal(journal.path)
    assert (again.records, again.damaged) == ([(2, {"number": 2})], [1])
