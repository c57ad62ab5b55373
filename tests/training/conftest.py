"""What the tests of training share."""

import pytest

from kdlab import load


@pytest.fixture(scope="module")
def task():
    """Few digits: batches of 16 leave a last one of 2."""
    return load("digits", sizes=(50, 40, 40))
