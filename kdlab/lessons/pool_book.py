"""What a pool knows: who joined, who sent what, and which of it counts.

Whether an entry counts is worked out from the records before it and never written down, so a pool
that was started again comes to the same."""

import math
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from kdlab.base import plain_arguments as arguments
from kdlab.lessons.pool_journal import Journal

PREDICTIONS = ("helps", "no difference", "hurts")
MEASURES = ("points", "nats")
# what becomes of an entry; only the first is in the interval
COUNTS, DOUBLE, CANNOT, LATE = "counts", "double", "cannot be", "late"
# the most that a pool takes: laptops, entries of one of them, entries of others, who never joined
LAPTOPS, OF_ONE, OF_STRANGERS = 300, 10, 100


class FullError(RuntimeError):
    """The pool, or this laptop's share of it, takes no more."""


@dataclass(frozen=True)
class Terms:
    """What is asked: the question, the least and the greatest difference that can be, its measure.

    simulated: no student was trained, the numbers are drawn. Raises ValueError for bounds that
    leave no room.

    >>> Terms("Does the teacher help?", -100, 100).measure
    'points'
    >>> Terms("Does the teacher help?", 5, 5)
    Traceback (most recent call last):
    ValueError: pool: high must be a finite number above 5, got 5
    """

    question: str
    low: float = -100.0
    high: float = 100.0
    measure: str = "points"
    simulated: bool = False

    def __post_init__(self):
        arguments.text("pool", "question", self.question)
        arguments.number("pool", "low", self.low)
        arguments.number("pool", "high", self.high, above=self.low)
        arguments.one_of("pool", "measure", self.measure, MEASURES)
        arguments.instance("pool", "simulated", self.simulated, bool, "True or False")


@dataclass(frozen=True)
class Sent:
    """What a laptop sent: its own random name, the split it ran, what it found and had foreseen."""

    laptop: str
    split: int
    difference: float
    measure: str
    prediction: str


@dataclass(frozen=True)
class Entry:
    """What was sent, what becomes of it ("counts", "double", "cannot be", "late"), and why."""

    sent: Sent
    status: str
    reason: str = ""


class Book:
    """The state of a pool, in DIR/pool.jsonl; safe to call from several threads.

    terms: of a new pool, or None to go on with the one that is in the folder. `notes` says which
    lines of the file could not be read. Raises ValueError where the folder holds a pool of other
    terms, or none and terms is None.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     book = Book(Path(folder), Terms("Does the teacher help?"))
    ...     split = book.join("a")
    ...     book.enter(Sent("a", split, 2.5, "points", "helps")).status
    ...     book.enter(Sent("a", split, 9.5, "points", "helps")).status
    ...     book.enter(Sent("b", 7, 2.5, "points", "helps")).reason
    'counts'
    'double'
    'split 7 was not given to this laptop'
    """

    def __init__(self, folder: Path, terms: Terms | None) -> None:
        self.laptops: dict[str, int] = {}  # the split of each
        self.entries: list[Entry] = []
        self.closed = False
        self._lock = threading.RLock()
        self._journal = Journal(folder / "pool.jsonl")
        known = None
        for number, record in self._journal.records:
            try:
                known = self._replay(record) or known
            except (KeyError, TypeError, ValueError):  # changed by hand, or by another version
                self._journal.damaged.append(number)
        if known and terms not in (None, known):
            raise ValueError(f"pool: {folder} must hold a pool of these terms, got {known}")
        if not (known or terms):
            raise ValueError(f"pool: {folder} must hold a pool to go on with, got none")
        self.terms: Terms = known or terms  # type: ignore[assignment]
        if not known:
            self._journal.append({"kind": "opened"} | asdict(self.terms))

    def _replay(self, record):
        """Take a record of the file as when it came; the terms, where it is those."""
        said = dict(record)
        kind = said.pop("kind")
        if kind == "opened":
            self.terms = Terms(**said)
            return self.terms
        if kind == "joined":
            self.laptops[said["laptop"]] = arguments.whole("pool", "split", said["split"], 1)
        elif kind == "sent":
            sent = Sent(**said)
            if not self._known(sent):  # a disk that failed may have taken it all the same
                self.entries.append(self._judged(sent))
        elif kind == "closed":
            self.closed = True
        else:
            raise ValueError(kind)

    @property
    def notes(self) -> list[str]:
        """Sentences on what could not be read."""
        damaged = sorted(self._journal.damaged)
        if not damaged:
            return []
        lines = f"Line{'s' * (len(damaged) > 1)} {', '.join(map(str, damaged))}"
        return [
            f"{lines} of pool.jsonl could not be read and passed over; a laptop that got no "
            "answer sends again."
        ]

    def join(self, laptop: str) -> int:
        """The split of a laptop: the next that nobody has, the same one when it asks again."""
        with self._lock:
            if laptop not in self.laptops:
                if len(self.laptops) >= LAPTOPS:
                    raise FullError(f"this pool takes at most {LAPTOPS} laptops")
                split = max(self.laptops.values(), default=0) + 1
                self._journal.append({"kind": "joined", "laptop": laptop, "split": split})
                self.laptops[laptop] = split
            return self.laptops[laptop]

    def enter(self, sent: Sent) -> Entry:
        """Keep what was sent, and say what becomes of it; sent again unchanged, it is one entry.

        Raises `FullError` where this laptop, or everyone, has sent too much.
        """
        with self._lock:
            if same := self._known(sent):
                return same
            if sum(e.sent.laptop == sent.laptop for e in self.entries) >= OF_ONE:
                raise FullError(f"one laptop sends at most {OF_ONE} results")
            strangers = sum(e.sent.laptop not in self.laptops for e in self.entries)
            if sent.laptop not in self.laptops and strangers >= OF_STRANGERS:
                raise FullError("this laptop has not joined, and too many sent without")
            entry = self._judged(sent)
            self._journal.append({"kind": "sent"} | asdict(sent))
            self.entries.append(entry)
            return entry

    def _known(self, sent):
        """The entry of what was sent before: a laptop that got no answer sends again; or None."""
        words = repr(sent)  # NaN equals nothing, but its words do
        return next((e for e in self.entries if repr(e.sent) == words), None)

    def close(self) -> None:
        """What comes from now on is late."""
        with self._lock:
            if not self.closed:
                self._journal.append({"kind": "closed"})
                self.closed = True

    def _judged(self, sent):
        if self.closed:
            return Entry(sent, LATE, "it came after the pool was closed")
        if reason := self._impossible(sent):
            return Entry(sent, CANNOT, reason)
        if any(e.sent.laptop == sent.laptop for e in self.entries if e.status == COUNTS):
            return Entry(sent, DOUBLE, "this laptop's first result counts")
        return Entry(sent, COUNTS)

    def _impossible(self, sent):
        """Why an entry cannot be; "" where it can."""
        terms = self.terms
        if self.laptops.get(sent.laptop) != sent.split:
            return f"split {sent.split} was not given to this laptop"
        if sent.measure != terms.measure:
            return f"in {sent.measure}, asked are {terms.measure}"
        if not math.isfinite(sent.difference):
            return "no finite number"
        if not terms.low <= sent.difference <= terms.high:
            return f"outside {terms.low:g} to {terms.high:g} {terms.measure}"
        return ""

    def seen(self) -> tuple[list[Entry], set[str], bool]:
        """(entries, the laptops that joined, closed) of one moment."""
        with self._lock:
            return list(self.entries), set(self.laptops), self.closed
