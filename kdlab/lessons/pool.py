"""A laptop in the class's experiment: it is given a split, runs it, and sends what it found.

Only the standard library and kdlab's own checks are imported, so that it is there at once."""

import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdlab.base import plain_arguments as arguments
from kdlab.base.places import cache_folder
from kdlab.base.repeats import VARIABLE
from kdlab.base.writing import beside
from kdlab.lessons.pool_asking import AwayError, RefusedError, asked, terms, words
from kdlab.lessons.pool_book import PREDICTIONS

SAID = {
    "counts": "it counts.",
    "double": "listed as double: ",
    "cannot be": "listed as one that cannot be: ",
    "late": "listed as late: ",
    "refused": "refused: ",
    "kept": "kept on this laptop, and goes with the next kd.pool(…) or pool.send(): ",
}


@dataclass(frozen=True)
class Reply:
    """What became of a result: "counts", "double", "cannot be", "late", "refused", "kept", or
    "not sent" where no pool is open.

    >>> Reply(3, "+2.50 points", "late", "it came after the pool was closed")
    Split 3, +2.50 points: listed as late: it came after the pool was closed.
    """

    split: int
    result: str
    status: str
    reason: str = ""

    def __repr__(self):
        if self.status == "not sent":
            said = f"split {self.split}, {self.result}"
            return f"No pool is open: {said} is what this laptop would send."
        end = f"{self.reason.rstrip('.')}." if self.reason else ""
        return f"Split {self.split}, {self.result}: {SAID.get(self.status, '')}{end}"


class _Place:
    """A laptop and the split that is its own."""

    split: int

    @contextlib.contextmanager
    def fresh(self) -> Iterator[int]:
        """Inside this block every split, teacher and student is this laptop's own.

        Seed 0 means what it means in repetition `split` of a lesson (KDLAB_REPEAT), so that anyone
        can run the same again.
        """
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = str(self.split)
        try:
            yield self.split
        finally:
            if before is None:
                del os.environ[VARIABLE]
            else:
                os.environ[VARIABLE] = before


class Alone(_Place):
    """A laptop where no pool is open, as `pool()` gives it: it measures, and keeps nothing.

    Its split is always the same one, which no lesson draws otherwise.

    >>> alone = Alone()
    >>> alone
    No pool is open: this laptop measures split 1 by itself.
    >>> alone.send(2.5, "helps")
    No pool is open: split 1, +2.50 points, "helps" is what this laptop would send.
    """

    split = 1

    def __repr__(self):
        return f"No pool is open: this laptop measures split {self.split} by itself."

    def send(self, difference: float | None = None, prediction: str | None = None) -> Reply | None:
        """What would be sent, a `Reply` with the status "not sent"; None where nothing is given."""
        if difference is None and prediction is None:
            return None
        difference, prediction = _checked(difference, prediction)
        return Reply(self.split, f'{difference:+.2f} points, "{prediction}"', "not sent")


class Pool(_Place):
    """A laptop's place in a pool, as `pool` gives it: question, split, measure, low and high.

    `replies`: what became of results that were kept and went now.
    """

    def __init__(self, address: str, code: str) -> None:
        self.address, self.code = address, code
        self._file = _file_of(code)
        self._kept: dict[str, Any] = _read(self._file)
        self._kept.setdefault("laptop", secrets.token_hex(16))
        self._kept.setdefault("waiting", [])
        self._save()  # before it is said to anybody: a second kernel is to be the same laptop
        self.away = ""
        try:
            self._kept["terms"] = terms(self._ask("join", {"laptop": self._kept["laptop"]}))
        except AwayError as error:
            if "terms" not in self._kept:
                raise ConnectionError(
                    f"pool: address must be that of an open pool, got {address!r}: {error}"
                ) from None
            self.away = str(error)
        except RefusedError as error:
            raise ValueError(f"pool: {_named(error, code)}") from None
        self._save()
        told = self._kept["terms"]
        self.split: int = told["split"]
        self.question: str = told["question"]
        self.measure: str = told["measure"]
        self.low, self.high = told["low"], told["high"]
        self.replies = [] if self.away else self._send_waiting()

    def __repr__(self):
        away = f"\nThe pool can't be reached now ({self.away}); results are kept."
        lines = "".join(f"\n{reply}" for reply in self.replies)
        return (
            f"{self.question}\nYours is split {self.split}; send a difference in {self.measure}."
            + (away if self.away else lines)
        )

    def send(self, difference: float | None = None, prediction: str | None = None) -> Reply | None:
        """Send a paired difference and what you had foreseen: a `Reply`.

        difference: a finite number in the pool's measure. prediction: "helps", "no difference" or
        "hurts". Where the pool can't be reached the result is kept on this laptop and goes with the
        next `kd.pool(…)`, or with `send()`, which sends what is kept, None where nothing is.
        """
        if difference is not None or prediction is not None:
            difference, prediction = _checked(difference, prediction)
            self._kept["waiting"].append(
                {"split": self.split, "difference": difference}
                | {"measure": self.measure, "prediction": prediction}
            )
            self._save()
        replies = self._send_waiting()
        return replies[-1] if replies else None

    def _send_waiting(self):
        """Send what is kept, oldest first; what nobody took stays."""
        replies, left = [], []
        for result in self._kept["waiting"]:
            told = result["split"], f"{result['difference']:+.2f} {result['measure']}"
            try:
                if left:
                    raise AwayError("the one before it waits too")
                answer = self._ask("send", {"laptop": self._kept["laptop"]} | result)
                replies.append(Reply(*told, words(answer, "status"), words(answer, "reason")))
            except AwayError as error:
                left.append(result)
                replies.append(Reply(*told, "kept", str(error)))
            except RefusedError as error:
                # a wrong code or a full pool may be mended; a wrong form is wrong for ever
                left += [result] * (error.status in (401, 403))
                status = "kept" if error.status in (401, 403) else "refused"
                replies.append(Reply(*told, status, str(error)))
        self._kept["waiting"] = left
        self._save()
        return replies

    def _ask(self, path, body):
        return asked(f"{self.address}/{path}", self.code, body)

    def _save(self):
        with contextlib.suppress(OSError):  # a home that can't be written to: then in memory only
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with beside(self._file) as new:
                new.write_text(json.dumps(self._kept), encoding="utf-8")


def pool(address: str = "", code: str = "") -> Pool | Alone:
    """Join the class's experiment: a `Pool`, which says which split is this laptop's.

    address: as the projector shows it, "http://192.168.1.7:8123". code: six letters. Run the split
    inside `with pool.fresh():`, then `pool.send(difference, prediction="helps")`. The same laptop
    has the same split each time, also where the pool can't be reached meanwhile. Nothing but a
    random name, the split's number, the difference and the prediction leaves this machine. Both
    empty: an `Alone`, for whom the same lines run, and nothing is sent or kept. Raises ValueError
    for a wrong code, ConnectionError where nobody answers and no split was given before.

    >>> pool("192.168.1.7:8123", "BCDFGH")
    Traceback (most recent call last):
    ValueError: pool: address must be such as 'http://192.168.1.7:8123', got '192.168.1.7:8123'
    """
    if address == code == "":
        return Alone()
    address = arguments.text("pool", "address", address).strip().rstrip("/")
    if not re.fullmatch(r"https?://[\w.-]+(:\d{1,5})?", address, re.ASCII):
        raise ValueError(
            f"pool: address must be such as 'http://192.168.1.7:8123', got {address!r}"
        )
    letters = re.sub(r"[\s-]", "", arguments.text("pool", "code", code)).upper()
    if not re.fullmatch("[A-Z]{6}", letters):
        raise ValueError(f"pool: code must be six letters, got {code!r}")
    return Pool(address, letters)


def _checked(difference, prediction):
    """What a laptop sends, where it is a result."""
    difference = float(arguments.number("send", "difference", difference))
    return difference, arguments.one_of("send", "prediction", prediction, PREDICTIONS)


def _named(error, code):
    return f"code must be the pool's, got {code!r}" if error.status == 401 else str(error)


def _file_of(code):
    """Where a laptop keeps its name, its split and what waits; a home may serve many machines."""
    machine = hashlib.sha256(platform.node().partition(".")[0].encode()).hexdigest()[:12]
    return cache_folder() / "pools" / f"{code}-{machine}.json"


def _read(file: Path):
    """What was kept; nothing where the file is missing or broken."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    sound = isinstance(kept, dict) and isinstance(kept.get("waiting"), list)
    return kept if sound else {}
