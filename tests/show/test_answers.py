"""Images stay sharp and keep their pixels; bars and numbers under them say what was given."""

import re

import numpy as np
import pytest
import torch
from drawings import WORDS, X, inside, said
from matplotlib.colors import to_hex

from kdlab.show.answers import bars, images_with_bars
from kdlab.show.colours import GREY, PALE, VERMILLION

Z = torch.randn(12, 10, generator=torch.Generator().manual_seed(1))
P = torch.softmax(Z, -1)
Y = P.argmax(-1)


def heights(figure):
    """[(height, colour)] of the bars on the canvas, in the order they were drawn."""
    return [
        (-bar.get_height(), to_hex(bar.get_facecolor()).upper())
        for container in figure.axes[0].containers
        for bar in container
    ]


@pytest.mark.parametrize("count", [1, 6, 9, 12])
def test_every_image_has_its_pixels_and_bars_that_add_up(drawn, count):
    images_with_bars(X[:count], P[:count], Y[:count], *WORDS)
    figure = drawn[0]
    for image, x in zip(figure.axes[0].images, X[:count, 0], strict=True):
        np.testing.assert_allclose(image.get_array(), x)
        assert image.get_interpolation() == "none"
    tall = np.array([h for h, _ in heights(figure)]).reshape(count, 10)
    floor = np.maximum(P[:count].numpy() * 96, 0.8)  # a share too small to see is still a line
    np.testing.assert_allclose(tall, floor, rtol=1e-5)
    rows = {image.get_extent()[3] for image in figure.axes[0].images}
    assert len(rows) == (2 if count > 9 else 1)
    inside(figure)


def test_right_and_marked_class_have_their_colours_and_the_share_is_written(drawn):
    p = torch.tensor([[0.1, 0.7, 0.2], [0.6, 0.4 - 1e-3, 1e-3]])
    images_with_bars(X[:2], p, [1, 0], *WORDS, marked=2, labels="abc", notes=["one", "two"])
    colours = [colour for _, colour in heights(drawn[0])]
    grey, pale, strong = (c.upper() for c in (GREY, PALE, VERMILLION))
    assert colours == [pale, grey, strong, grey, pale, strong]
    assert {"20 %", "< 1 %", "one", "two", "c"} <= set(said(drawn[0]))
    images_with_bars(X[:2], p, [1, 0], *WORDS, labels="abc")
    assert {"70 %", "60 %"} <= set(said(drawn[1]))


def test_several_answers_are_rows_of_bars_and_a_label_has_no_number(drawn):
    label = torch.eye(10)[Y[:6]]
    arms = {"label": label, "T = 1": P[:6], "T = 4": torch.softmax(Z[:6] / 4, -1)}
    images_with_bars(X[:6], arms, Y[:6], *WORDS, title="A title")
    figure = drawn[0]
    assert {"A title", *arms} <= set(said(figure)) and len(heights(figure)) == 6 * 3 * 10
    assert "100 %" not in said(figure)
    inside(figure)


def test_long_names_of_classes_are_written_where_they_matter(drawn):
    labels = [f"class number {i}" for i in range(10)]
    images_with_bars(X[:9], P[:9], Y[:9], *WORDS, labels=labels, marked=3)
    assert said(drawn[0]).count("class number 3") == 9 + 1 + int((Y[:9] == 3).sum())  # and the key
    assert "class number 3" in said(drawn[0])


def test_bars_of_one_image_share_a_linear_scale(drawn):
    bars({"T = 1": P[0], "T = 4": torch.softmax(Z[0] / 4, -1)}, *WORDS, image=X[0], right=int(Y[0]))
    one, four = drawn[0].axes[1:]
    assert one.get_ylim() == four.get_ylim() and one.get_ylim()[0] == 0
    assert one.get_yscale() == "linear"
    np.testing.assert_allclose([bar.get_height() for bar in one.patches], P[0], rtol=1e-6)
    assert f"{100 * P[0].max():.0f}" in [t.get_text() for t in one.texts]


def test_pixels_stay_pixels_in_the_vectors_and_the_picture_small():
    svg = images_with_bars(X[:9], P[:9], Y[:9], *WORDS).svg.decode()
    assert len(svg) < 150_000 and svg.count("<image") == 9
    assert svg.count("image-rendering:pixelated") == 9
    assert re.search(r"<text[^>]*>0</text>", svg)


@pytest.mark.parametrize(
    "draw, words",
    [
        (lambda: images_with_bars(X[:2], Z[:2], [1, 2], *WORDS), "are these logits"),
        (
            lambda: images_with_bars(X[:2], P[:3], [1, 2], *WORDS),
            "a row for each of 2 images, got 3",
        ),
        (lambda: images_with_bars(X[0, 0], P[:1], [1], *WORDS), r"\(N, H, W\), got \(8, 8\)"),
        (lambda: images_with_bars(X[:2] * 9, P[:2], [1, 2], *WORDS), r"must lie in \[0, 1\]"),
        (lambda: images_with_bars(X[:2], P[:2], [1, 10], *WORDS), "below 10 classes"),
        (lambda: images_with_bars(X[:2], P[:2], [1], *WORDS), "a class for each of 2 images"),
        (lambda: images_with_bars(X[:2], P[:2], [1, 2], *WORDS, labels="abc"), "name 10 classes"),
        (lambda: images_with_bars(X[:2], P[:2], [1, 2], *WORDS, notes=["a"]), "each of 2 images"),
        (lambda: images_with_bars(X[:2], {}, [1, 2], *WORDS), "the same classes"),
        (lambda: images_with_bars("abc", P[:2], [1, 2], *WORDS), "images must be numbers"),
        (lambda: images_with_bars(X[:2, [0, 0]], P[:2], [1, 2], *WORDS), "one channel or three"),
        (lambda: bars({}, *WORDS), "number in .1, 6., got 0"),
        (lambda: bars({"a": P[0], "b": [0.5, 0.5]}, *WORDS), "the same classes"),
        (lambda: bars({"a": P[0]}, *WORDS, right=10), "right must be a whole number"),
        (lambda: bars({"a": 3.0}, *WORDS), r"must have the shape \(C,\)"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, words):
    with pytest.raises((TypeError, ValueError), match=words):
        draw()
