"""What the tests of pictures share."""

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
