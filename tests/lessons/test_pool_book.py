"""What a pool keeps: whose split is whose, and what becomes of what was sent."""

import json
import threading

import pytest
from laptops import NAMES, TERMS, sent

from kdlab.lessons.pool_book import LAPTOPS, OF_ONE, OF_STRANGERS, Book, FullError, Terms
from kdlab.lessons.pool_reading import Reading


def test_each_laptop_has_its_own_split_and_keeps_it(tmp_path):
    book = Book(tmp_path, TERMS)
    assert [book.join(name) for name in ("a", "b", "a", "c", "b")] == [1, 2, 1, 3, 2]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (sent("a", 2), "split 2 was not given to this laptop"),
        (sent("b", 1), "split 1 was not given to this laptop"),
        (sent("a", 1, float("nan")), "no finite number"),
        (sent("a", 1, float("-inf")), "no finite number"),
        (sent("a", 1, 20.1), "outside -20 to 20 points"),
        (sent("a", 1, measure="nats"), "in nats, asked are points"),
    ],
)
def test_what_cannot_be_is_kept_with_its_reason(what, reason, tmp_path):
    book = Book(tmp_path, TERMS)
    book.join("a")
    entry = book.enter(what)
    assert (entry.status, entry.reason) == ("cannot be", reason)
    (shown,) = json.loads(json.dumps(Reading(book).now(), allow_nan=False))["apart"]
    assert shown["reason"] == reason
    assert book.enter(sent("a", 1)).status == "counts"  # the mistake can be mended


def test_the_first_counts_and_the_same_once_more_is_no_double(tmp_path):
    book = Book(tmp_path, TERMS)
    book.join("a")
    for _ in range(3):  # the answer was lost on its way
        assert book.enter(sent("a", 1, 2.0)).status == "counts"
    assert book.enter(sent("a", 1, 3.0)).status == "double"
    book.close()
    assert book.enter(sent("a", 1, 2.0)).status == "counts"
    assert book.enter(sent("a", 1, 4.0)).status == "late"
    assert len(book.entries) == 3


def test_there_is_an_end_to_what_one_laptop_and_all_of_them_send(tmp_path):
    book = Book(tmp_path, TERMS)
    book.join("a")
    for i in range(OF_ONE):
        book.enter(sent("a", 1, float(i)))
    with pytest.raises(FullError, match=f"at most {OF_ONE} results"):
        book.enter(sent("a", 1, -1.0))
    for i in range(OF_STRANGERS):
        book.enter(sent(f"stranger {i}", 1))
    with pytest.raises(FullError, match="too many sent without"):
        book.enter(sent("one more", 1))
    for i in range(1, LAPTOPS):
        book.join(NAMES[i])
    assert book.enter(sent(NAMES[1], 2)).status == "counts"  # strangers leave room
    with pytest.raises(FullError, match=f"at most {LAPTOPS} laptops"):
        book.join("one more")
    assert book.join("a") == 1


def test_threads_that_join_and_send_at_once_share_no_split(tmp_path):
    book = Book(tmp_path, TERMS)

    def one(name):
        book.enter(sent(name, book.join(name)))

    threads = [threading.Thread(target=one, args=(name,)) for name in NAMES[:40]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(book.laptops.values()) == list(range(1, 41))
    assert Book(tmp_path, None).entries == book.entries


def test_the_terms_of_a_pool_stay(tmp_path):
    Book(tmp_path, TERMS)
    with pytest.raises(ValueError, match="must hold a pool of these terms, got Terms"):
        Book(tmp_path, Terms("Another question?"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold a pool to go on with, got none"):
        Book(tmp_path / "empty", None)
