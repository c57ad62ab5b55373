"""What the class takes home of a pool."""

import pandas as pd
from laptops import NAMES, TERMS, filled

from kdlab.lessons.pool_book import Book, Terms
from kdlab.lessons.pool_picture import keep, picture, table


def test_what_is_kept_says_all_of_it(tmp_path):
    book = Book(tmp_path, Terms("Does <it> & help?", -20, 20, simulated=True))
    assert {path.name for path in keep(book, tmp_path)} >= {"pooled.csv", "pooled.svg"}
    filled(book, [1.0, 2.0, 3.0, 2.5, 50.0])
    keep(book, tmp_path)
    frame = pd.read_csv(tmp_path / "pooled.csv")
    assert frame["difference"].tolist() == [1.0, 2.0, 3.0, 2.5, 50.0]
    assert frame["status"].tolist() == ["counts"] * 4 + ["cannot be"]
    assert frame["simulated"].all()
    drawn = (tmp_path / "pooled.svg").read_text(encoding="utf-8")
    assert "Does &lt;it&gt; &amp; help? (simulated)" in drawn and "helps (4 splits)" in drawn


def test_a_table_names_no_laptop_and_a_picture_says_in_words_what_it_shows(tmp_path):
    book = Book(tmp_path, TERMS)
    filled(book, [1.0, 2.0, 3.0])
    assert not any(name in table(book) for name in NAMES)
    alt = picture(book).alt
    assert "3 splits, fewer than 4 splits, no interval" in alt and "helps 3" in alt
