"""What the tests of teachers share."""

import pytest

from kdlab.teachers.cache import build
from tests.caches import ABOUT, IDS, Teacher


@pytest.fixture
def made(tmp_path):
    """A finished cache of ten rows in four shards."""
    build(tmp_path / "c", IDS, Teacher(), ABOUT, shard=3)
    return tmp_path / "c"
