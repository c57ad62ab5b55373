"""Digits drawn from fonts: the same for a seed, new for another, and with as many wrong labels as
were asked for."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kdlab.data import digits as rendered
from kdlab.data.digits import digits


def test_a_seed_gives_the_same_images_and_another_gives_others():
    first, again, other = digits(3, 50), digits(3, 50), digits(4, 50)
    assert torch.equal(first.x, again.x) and torch.equal(first.y, again.y)
    assert not torch.equal(first.x, other.x) and not torch.equal(first.y, other.y)


def test_images_are_grey_squares_and_classes_equally_frequent():
    data = digits(0, 205, size=20)
    assert data.x.shape == (205, 1, 20, 20) and data.x.dtype == torch.float32
    assert data.x.min() >= 0 and 0.9 < data.x.max() <= 1
    counts = data.clean.bincount(minlength=10)
    assert counts.max() - counts.min() <= 1 and torch.equal(data.y, data.clean)


def test_label_noise_names_another_class_in_exactly_that_share():
    data, quiet = digits(1, 333, label_noise=0.4), digits(1, 333)
    assert (data.y != data.clean).sum() == round(0.4 * 333)
    assert torch.equal(data.x, quiet.x) and torch.equal(data.clean, quiet.clean)
    assert torch.equal(
        digits(1, 40, label_noise=1).y != digits(1, 40).clean, torch.ones(40, dtype=torch.bool)
    )


def test_no_font_draws_two_digits_alike_or_leaves_one_out():
    glyphs = rendered.glyphs_of_fonts()
    assert glyphs.shape == (len(rendered.FONTS), 10, 48, 48)
    ink = glyphs.sum((2, 3))
    assert ink.min() > 40, "a digit is missing from a font"
    for font in glyphs.flatten(2):
        apart = torch.cdist(font, font) + 99 * torch.eye(10)
        assert apart.min() > 5, "two digits look the same, as the box for a missing character would"
    assert glyphs[:, :, 0].max() == 0 and glyphs[:, :, -1].max() == 0, "a digit is cut off"


def test_a_digit_stands_in_the_middle_and_upright():
    """Without bending, an image is its own glyph made smaller."""

    class Still:
        def integers(self, low, high, size):
            return np.zeros(size, int)

        def uniform(self, low, high, size):
            return np.full(size, float(low > 0))  # no angle, shear or move; a scale of 1

    found = rendered.bent(Still(), np.arange(10), 24, shift=np.zeros((10, 2)))
    expected = F.avg_pool2d(rendered.glyphs_of_fonts()[0][:, None], 2)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_neighbour_stands_beside_the_digit_and_not_over_it():
    here, right = (
        rendered.bent(np.random.default_rng(0), [8] * 40, 16, shift=np.array([[x, 0.0]] * 40))
        for x in (0.0, 1.0)
    )
    columns = torch.arange(16.0)
    middle = [
        float((image.sum((0, 1, 2)) * columns).sum() / image.sum()) for image in (here, right)
    ]
    assert abs(middle[0] - 7.5) < 1 and middle[1] > 11


@pytest.mark.parametrize(
    "arguments, told",
    [
        ({"seed": -1, "count": 5}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 0, "count": 0}, "count must be a whole number of at least 1, got 0"),
        ({"seed": 0, "count": 5, "size": 4}, "size must be a whole number of at least 8, got 4"),
        ({"seed": 0.5, "count": 5}, "seed must be a whole number of at least 0, got 0.5"),
        ({"seed": 0, "count": 5, "label_noise": 1.5}, r"label_noise must lie in \[0, 1\], got 1.5"),
    ],
)
def test_errors_name_the_argument(arguments, told):
    with pytest.raises(ValueError, match=f"digits: {told}"):
        digits(**arguments)


def test_more_pixels_show_the_same_digits():
    small, large = digits(5, 30, size=16).x, digits(5, 30, size=32).x
    alike = F.cosine_similarity(F.avg_pool2d(large, 2).flatten(1), small.flatten(1))
    assert alike.min() > 0.6
