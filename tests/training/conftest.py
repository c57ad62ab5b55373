"""What the tests of training share."""

import pytest
from digit_runs import SMALL, normed

from kdlab import load, splits, train


@pytest.fixture(scope="module")
def task():
    """Few digits: batches of 16 leave a last one of 2."""
    return load("digits", sizes=(50, 40, 40))


@pytest.fixture(scope="module")
def tasks():
    """Four splits of few digits."""
    return splits("digits", 4, **SMALL)


@pytest.fixture(scope="module")
def runs(tasks):
    """Two learning rates, four units, two seeds, three checkpoints."""
    return train(normed, tasks, lr=[1e-2, 1e-3], seeds=2, epochs=3, checkpoints=3)
