"""A lesson run again on fresh splits: KDLAB_REPEAT in the environment moves every seed."""

import os

from kdlab.base import plain_arguments as arguments

VARIABLE = "KDLAB_REPEAT"
STEP = 1000  # seeds between two repetitions, more than any lesson uses


def repetition() -> int:
    """Which repetition this process is, 1, 2, …; 0 without KDLAB_REPEAT.

    tools/repeat.py sets the variable, so that a split, its teacher and its students are drawn anew
    while the lesson's code stays as it is. Raises ValueError for another value.

    >>> repetition()
    0
    """
    told = os.environ.get(VARIABLE) or "0"
    if not told.isdecimal():
        raise ValueError(f"setup: KDLAB_REPEAT must be a whole number of at least 0, got {told!r}")
    return int(told)


def fresh(seed: int) -> int:
    """The seed that this repetition draws by: its own without KDLAB_REPEAT, else STEP · k more.

    Raises ValueError as `repetition` does.

    >>> fresh(3)
    3
    """
    return arguments.whole("setup", "seed", seed) + STEP * repetition()
