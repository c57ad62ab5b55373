"""What the entries of a pool come to: the interval after each, the verdict, the predictions."""

import threading
from collections import Counter
from typing import Any

import pandas as pd

from kdlab.evidence.intervals import DELTA, Estimate
from kdlab.lessons.pool_book import COUNTS, PREDICTIONS, Book, Entry, Terms

LEAST = 4  # what `Estimate` asks for
UNITS = "splits, each on a laptop of its own"


def pooled(entries: list[Entry], terms: Terms) -> Estimate | None:
    """The mean difference of the entries that count, None while they are fewer than four.

    >>> from kdlab.lessons.pool_book import Sent
    >>> values = enumerate([1.0, 2.0, 3.0, 2.0], start=1)
    >>> entries = [Entry(Sent(str(i), i, v, "points", "helps"), "counts") for i, v in values]
    >>> print(pooled(entries, Terms("Does the teacher help?")))
    +2.00 ± 1.30 points
    """
    found = {e.sent.split: e.sent.difference for e in entries if e.status == COUNTS}
    if len(found) < LEAST:
        return None
    return Estimate(pd.Series(found, dtype=float), "difference", terms.measure, 0, UNITS)


def dots(entries: list[Entry], terms: Terms) -> list[dict[str, Any]]:
    """Each entry that counts, in order, with the interval and the verdict as it came.

    >>> dots([], Terms("Does the teacher help?"))
    []
    """
    counted = [e for e in entries if e.status == COUNTS]
    found = []
    for i, entry in enumerate(counted, start=1):
        dot = {"split": entry.sent.split, "difference": entry.sent.difference}
        told = pooled(counted[:i], terms)
        low, high = told.interval() if told else (None, None)
        now = {"mean": told and told.mean, "low": low, "high": high}
        found.append(dot | now | {"verdict": told.verdict() if told else ""})
    return found


def predictions(entries: list[Entry]) -> dict[str, int]:
    """How many of those that count had foreseen what.

    >>> predictions([])
    {'helps': 0, 'no difference': 0, 'hurts': 0}
    """
    told = Counter(e.sent.prediction for e in entries if e.status == COUNTS)
    return {words: told[words] for words in PREDICTIONS}


class Reading:
    """What the projector shows of a book, worked out once for each entry that comes.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Reading(Book(Path(folder), Terms("Does the teacher help?"))).now()["verdict"]
    ''
    """

    def __init__(self, book: Book) -> None:
        self.book = book
        self._of = -1  # how many entries the next line was worked out from
        self._known: dict[str, Any] = {}
        self._lock = threading.Lock()

    def now(self) -> dict[str, Any]:
        """All of it, as what JSON can hold; no laptop is named in it."""
        with self._lock:
            entries, joined, closed = self.book.seen()
            if len(entries) != self._of:
                self._known, self._of = _worked_out(entries, self.book.terms), len(entries)
        heard = len({e.sent.laptop for e in entries} & joined)
        return self._known | {
            "joined": len(joined),
            "heard": heard,
            "closed": closed,
            "notes": self.book.notes,
        }


def _worked_out(entries, terms):
    told = pooled(entries, terms)
    return {
        "question": terms.question,
        "measure": terms.measure,
        "simulated": terms.simulated,
        "delta": DELTA[terms.measure],
        "least": LEAST,
        "dots": dots(entries, terms),
        "apart": [_apart(e) for e in entries if e.status != COUNTS],
        "predictions": predictions(entries),
        "verdict": told.verdict() if told else "",
        "said": str(told) if told else "",
    }


def _apart(entry):
    """An entry that does not count, in words: its number may be one that JSON can't hold."""
    sent = entry.sent
    return {
        "split": sent.split,
        "difference": f"{sent.difference:+.4g} {sent.measure}",
        "status": entry.status,
        "reason": entry.reason,
    }
