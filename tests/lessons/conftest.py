"""What the tests of a pool share."""

import pytest
from laptops import TERMS

from kdlab.lessons.pool_server import opened


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A laptop that has joined nothing yet, in no repetition of a lesson."""
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KDLAB_REPEAT", raising=False)


@pytest.fixture
def running(tmp_path, own_cache):
    """An open pool."""
    with opened(tmp_path / "pool", TERMS) as found:
        yield found
