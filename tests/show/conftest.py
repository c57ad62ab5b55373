"""What the tests of pictures share."""

import matplotlib.pyplot as plt
import pytest

from kdlab.show.picture import Picture


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were made into pictures, whoever made them."""
    figures, whole = [], Picture.__init__

    def kept(self, figure, caption, alt):
        figures.append(figure)
        whole(self, figure, caption, alt)

    monkeypatch.setattr(Picture, "__init__", kept)
    return figures


@pytest.fixture
def nothing_left_open():
    """No figure stays open behind a test."""
    plt.close("all")
    yield
    assert plt.get_fignums() == []
