"""Laptops that are none: processes that join a pool and send numbers that are drawn, for a look at
the projector before the class comes."""

import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from kdlab.lessons.pool import pool
from kdlab.lessons.pool_book import PREDICTIONS

MEAN, SPREAD = 1.3, 2.4  # points: of thirty, most pools end in "helps"
CODE = "KDLAB_POOL_CODE"


def results(
    number: int, split: int, mean: float = MEAN, spread: float = SPREAD, group: int = 0
) -> list[tuple[float, str]]:
    """What a laptop sends, [(difference, prediction)]: of each ten one sends twice, and one what
    cannot be. group: another one draws other numbers for the same splits.

    >>> [len(results(number, split=number + 1)) for number in range(10)]
    [1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    """
    draw = random.Random(f"{group}/{split}")
    difference = round(draw.gauss(mean, spread), 2)
    prediction = draw.choices(PREDICTIONS, [6, 3, 1])[0]
    if number % 10 == 8:
        return [(1000.0 + difference, prediction)]
    again = [(difference + 1, prediction)] if number % 10 == 5 else []
    return [(difference, prediction), *again]


def laptop(address: str, code: str, number: int) -> None:
    """Join and send, as one laptop."""
    place = pool(address, code)
    for difference, prediction in results(number, place.split):
        place.send(difference, prediction)


def start(address: str, code: str, number: int, folder: Path) -> subprocess.Popen:
    """A laptop as a process, which keeps what it keeps under `folder`."""
    own = {"KDLAB_CACHE": str(folder / str(number)), CODE: code}
    # the code does not stand on the command line, which every user of a machine may read
    return subprocess.Popen(
        [sys.executable, "-m", "kdlab.lessons.pool_simulate", address, str(number)],
        env=os.environ | own,
        stdin=subprocess.DEVNULL,
    )


def crowd(address: str, code: str, count: int, over: threading.Event, pause: float = 1.0) -> None:
    """Start so many laptops, with a pause after each, until all are done or `over` is set."""
    started: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory(prefix="kdlab-") as folder:
        try:
            for number in range(count):
                started.append(start(address, code, number, Path(folder)))
                if over.wait(pause * random.uniform(0.3, 1.7)):
                    break
        finally:
            for process in started:
                if over.is_set():
                    process.terminate()
                process.wait()


if __name__ == "__main__":
    laptop(sys.argv[1], os.environ[CODE], int(sys.argv[2]))
