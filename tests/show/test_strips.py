"""Strips say right and wrong by mark and colour; images keep their pixels and shape."""

import numpy as np
import pytest
import torch
from drawings import WORDS, X, inside, said

from kdlab.show import strips
from kdlab.show.colours import BLUE, VERMILLION
from kdlab.show.strips import strip


def test_a_strip_says_right_and_wrong_by_mark_and_colour(drawn):
    strip(X[:3], [3, 5, 8], torch.tensor([3, 3, 8]), *WORDS, title="Read")
    colours = {text.get_text(): text.get_color() for text in drawn[0].axes[0].texts}
    assert colours.pop("Read")
    assert colours == {"3 ✓": BLUE, "5 ✗": VERMILLION, "8 ✓": BLUE}


def test_strips_stand_below_each_other_with_words_or_several_models(drawn):
    several = {"labels": [0, 1], "taught": [7, 1]}
    strips.strips(
        {"seen": (X[:9], ["a 2\n27 %"] * 9, None), "read": (X[:2], several, [7, 1])}, *WORDS
    )
    words = said(drawn[0])
    assert words.count("a 2\n27 %") == 9 and {"labels", "taught", "0 ✗", "7 ✓"} <= set(words)
    first, last = (drawn[0].axes[0].images[i].get_extent()[3] for i in (0, -1))
    assert first < last
    inside(drawn[0])


def test_images_in_colour_and_of_another_shape_keep_their_pixels_and_shape(drawn):
    x = torch.rand(2, 3, 6, 12)
    strip(x, [0, 1], [0, 1], *WORDS)
    image = drawn[0].axes[0].images[1]
    np.testing.assert_allclose(image.get_array(), x[1].permute(1, 2, 0), atol=1e-6)
    left, right, bottom, top = image.get_extent()
    assert (right - left) == pytest.approx(2 * (bottom - top))


@pytest.mark.parametrize(
    "draw, words",
    [
        (lambda: strip(X[:2], [1, 2, 3], [1, 2], *WORDS), "one for each of 2 images, got 3"),
        (lambda: strips.strips({"a": X}, *WORDS), r"must be \(images, answers, right\)"),
        (lambda: strips.strips({}, *WORDS), "must hold a strip"),
    ],
)
def test_what_is_no_strip_is_named(draw, words):
    with pytest.raises((TypeError, ValueError), match=words):
        draw()
