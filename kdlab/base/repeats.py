"""A lesson run again on fresh splits: KDLAB_REPEAT in the environment moves every seed."""

import os

from kdlab.base import plain_arguments as arguments

VARIABLE = "KDLAB_REPEAT"
STEP = 1000  # seeds between two repetitions, more than any lesson uses


def fresh(seed: int) -> int:
    """The seed that this repetition draws by: its own without KDLAB_REPEAT, else STEP · k more.

    tools/repeat.py sets the variable to 1, 2, …, so that a split, its teacher and its students are
    drawn anew while the lesson's code stays as it is. Raises ValueError for another value.

    >>> fresh(3)
    3
    """
    told = os.environ.get(VARIABLE) or "0"
    if not told.isdecimal():
        raise ValueError(f"setup: KDLAB_REPEAT must be a whole number of at least 0, got {told!r}")
    return arguments.whole("setup", "seed", seed) + STEP * int(told)
