"""What the entries of a pool come to, against scipy."""

import pandas as pd
import pytest
from laptops import NAMES, TERMS, filled, sent
from scipy import stats

from kdlab.lessons.pool_book import Book
from kdlab.lessons.pool_reading import Reading


def test_the_interval_is_that_of_the_entries_that_count(tmp_path):
    book, values = Book(tmp_path, TERMS), [1.0, 2.5, -0.5, 3.0, 2.0]
    assert Reading(book).now()["verdict"] == ""
    filled(book, values)
    book.enter(sent(NAMES[0], 1, 9.0))  # double
    book.enter(sent("stranger", 3, 9.0))
    book.close()
    book.enter(sent("another", 4, 9.0))
    told = Reading(book).now()
    low, high = stats.t.interval(0.95, 4, pd.Series(values).mean(), stats.sem(values))
    assert told["dots"][-1]["low"] == pytest.approx(low)
    assert told["dots"][-1]["high"] == pytest.approx(high)
    assert told["dots"][2]["low"] is None and told["dots"][3]["low"] is not None
    assert told["said"] == f"+{sum(values) / 5:.2f} ± {(high - low) / 2:.2f} points"
    assert [e["status"] for e in told["apart"]] == ["double", "cannot be", "late"]
    assert told["predictions"] == {"helps": 5, "no difference": 0, "hurts": 0}
    assert (told["joined"], told["heard"]) == (5, 5)


def test_each_dot_has_the_verdict_that_the_class_had_then(tmp_path):
    book = Book(tmp_path, TERMS)
    filled(book, [9.0, 9.1, 8.9, 9.0, -20.0])
    dots = Reading(book).now()["dots"]
    assert [dot["verdict"] for dot in dots] == ["", "", "", "helps", "cannot tell"]
