"""The course's colours: readable on white, and told apart by those who see fewer."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from kdlab.show.colours import BLUE, GREEN, GREY, INK, LIGHT, MUTED, ORANGE, TINT, VERMILLION


def light(colour):
    """Its red, green and blue as light, of which eyes see sums: sRGB taken back."""
    value = np.array(to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one, other="white"):
    """As WCAG 2 counts it."""
    weights = [0.2126, 0.7152, 0.0722]
    dark, bright = sorted(0.05 + light(colour) @ weights for colour in (one, other))
    return bright / dark


# what is left of light where a kind of cones is missing: Machado, Oliveira and Fernandes 2009
SEEN = {
    "no red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue cones": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(rgb):
    """Light in CIE's L*a*b*, where 2 is the least difference that an eye sees."""
    xyz = [[0.41246, 0.35758, 0.18044], [0.21267, 0.71515, 0.07217], [0.01933, 0.11919, 0.95030]]
    parts = np.array(xyz) @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(parts > 0.008856, np.cbrt(parts), 7.787 * parts + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("colour", [INK, MUTED, BLUE, VERMILLION, GREEN])
def test_words_in_these_colours_are_readable_on_white(colour):
    assert contrast(colour) >= 4.5


@pytest.mark.parametrize("colour", [GREY, LIGHT, ORANGE])
def test_what_is_drawn_in_these_is_seen_on_white(colour):
    assert contrast(colour) >= 3


def test_words_stand_on_the_tint():
    assert contrast(INK, TINT) >= 4.5 and contrast(MUTED, TINT) >= 4.5


@pytest.mark.parametrize("kind", SEEN)
def test_what_is_told_apart_by_colour_is_so_by_every_eye(kind):
    seen = [lab(np.array(SEEN[kind]) @ light(c)) for c in (BLUE, VERMILLION, GREEN, GREY, INK)]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 10
