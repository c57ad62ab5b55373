"""A picture carries its words wherever it is shown."""

import base64
import io
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
from drawings import WORDS, estimate
from PIL import Image

from kdlab.show import plots
from kdlab.show.plots import COLOURS, Picture

pytestmark = pytest.mark.usefixtures("nothing_left_open")


class Figure(HTMLParser):
    """The tags, the image's attributes and the text of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.image, self.text = [], {}, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.image |= dict(attributes) if tag == "img" else {}

    def handle_data(self, data):
        self.text += data


def test_a_picture_is_one_html_figure_a_png_and_a_line_of_text():
    caption, alt = 'T² < 4 & "more" </figcaption>', 'it\'s <b>"high" & low</b>'
    fig, ax = plots.axes(figsize=(3, 2))
    ax.plot([0, 1])
    bundle = Picture(fig, caption, alt)._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    parsed = Figure(bundle["text/html"])
    kind, _, vector = parsed.image["src"].partition(";base64,")
    assert parsed.tags == ["figure", "img", "figcaption"] and bundle["text/html"].endswith(
        "</figcaption></figure>"
    )
    assert parsed.image["alt"] == alt and parsed.text == caption
    assert kind == "data:image/svg+xml"
    size = ElementTree.fromstring(base64.b64decode(vector)).attrib
    assert (size["width"], size["height"]) == ("216pt", "144pt")  # 3 × 2 inches of 72
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert image.format == "PNG" and image.size == (330, 220)
    assert caption in bundle["text/plain"] and alt in bundle["text/plain"]


def test_a_picture_closes_the_figure_it_is_made_of_and_is_the_same_each_time():
    def draw():
        fig, ax = plt.subplots()
        ax.plot([0, 1], [1, 0], label="a")
        ax.legend()
        return Picture(fig, *WORDS)

    one, other = draw(), draw()
    assert one.png == other.png and one.svg == other.svg
    assert b"</text>" in one.svg and b"dc:date" not in one.svg  # text as text, and no clock


def test_a_figure_too_large_as_vectors_is_shown_as_png():
    fig, ax = plots.axes()
    ax.imshow(np.random.default_rng(0).random((300, 300, 3)))
    picture = Picture(fig, *WORDS)
    bundle = picture._repr_mimebundle_()
    assert len(picture.svg) > 150_000
    assert Figure(bundle["text/html"]).image["src"].endswith(bundle["image/png"])


def test_a_notebook_holds_the_png_in_few_colours_and_as_it_was():
    fig, ax = plots.axes(figsize=(3, 2))
    ax.fill_between([0, 1], [0, 1], color=COLOURS[0], alpha=0.3)
    picture = Picture(fig, *WORDS)
    small = base64.b64decode(picture._repr_mimebundle_()["image/png"])
    one, other = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int) for png in (picture.png, small)
    )
    assert len(small) < len(picture.png) and np.abs(one - other).mean() < 1


@pytest.mark.parametrize(
    "caption, alt", [("", "alt"), ("caption", ""), (" \n", "alt"), ("caption", "\t")]
)
def test_a_picture_without_words_is_refused(caption, alt):
    fig, _ = plots.axes()
    with pytest.raises(ValueError, match="caption and alt must say something"):
        Picture(fig, caption, alt)
    with pytest.raises(ValueError, match="caption and alt must say something"):
        plots.intervals({"a": estimate(1)}, caption, alt, "points")


@pytest.mark.parametrize("figure", [None, "figure.png", b"", plots.axes()[1], estimate(1)])
def test_only_a_figure_makes_a_picture(figure):
    with pytest.raises(
        TypeError, match=f"figure must be a matplotlib Figure, got {type(figure).__name__}"
    ):
        Picture(figure, *WORDS)


def test_style_is_a_context_that_leaves_no_trace():
    before = dict(plt.rcParams)
    with plots.style():
        assert plt.rcParams["font.size"] == 12 and not plt.rcParams["legend.frameon"]
    fig, ax = plots.axes(2, 3, figsize=(5, 4), sharex=True)
    assert ax.shape == (2, 3) and fig.get_size_inches().tolist() == [5, 4]
    assert not ax[0, 0].spines["top"].get_visible()
    assert dict(plt.rcParams) == before
