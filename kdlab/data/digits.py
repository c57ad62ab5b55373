"""Digits that nobody has seen, as many as asked for: a seed's fonts, bent, crowded and noisy."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from kdlab.base.extras import needs
from kdlab.base.lab import device
from kdlab.data.tasks import Data

# they come with matplotlib, so that every machine draws from the same ones
FONTS = (
    "DejaVuSans",
    "DejaVuSans-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "STIXGeneral",
    "STIXGeneralBolIta",
    "cmb10",
    "cmr10",
    "cmss10",
    "cmtt10",
)
CANVAS = 48  # pixels of a digit before it is bent


def digits(seed, count, size=16, label_noise=0.0):
    """`count` grey images of the ten digits and their labels, made afresh from `seed` → `Data`.

        x = clip(contrast · max(digit, ½ · a piece of another digit) + ε),   ε ~ N(0, 0.1²)

    x: (count, 1, size, size) in [0, 1], in one of eleven fonts, turned by up to 20°, scaled by 0.9
    to 1.3, sheared and moved; a neighbouring digit reaches in from a side. y: (count,) the labels,
    of which round(label_noise · count), drawn at random, name another class; clean: the true ones,
    as equally frequent as count allows. The same arguments give the same images; those of two seeds
    have nothing in common but the fonts. Raises ValueError for arguments out of range.

    >>> digits(seed=7, count=20).x.shape
    torch.Size([20, 1, 16, 16])
    """
    for name, value, least in (("seed", seed, 0), ("count", count, 1), ("size", size, 8)):
        if not isinstance(value, int) or value < least:
            raise ValueError(
                f"digits: {name} must be a whole number of at least {least}, got {value!r}"
            )
    if not 0 <= label_noise <= 1:
        raise ValueError(f"digits: label_noise must lie in [0, 1], got {label_noise!r}")
    rng = np.random.default_rng(seed)
    clean = rng.permutation(np.arange(count) % 10)
    own = bent(rng, clean, size, shift=np.zeros((count, 2)))
    side, along = (
        rng.choice([-1, 1], count) * rng.uniform(0.95, 1.15, count),
        rng.uniform(-0.5, 0.5, count),
    )
    flat = rng.random(count) < 0.7  # most neighbours stand left or right, as in a number
    aside = np.where(flat[:, None], np.stack([side, along], 1), np.stack([along, side], 1))
    other = bent(rng, rng.integers(0, 10, count), size, shift=aside)
    contrast = torch.as_tensor(rng.uniform(0.5, 1.0, (count, 1, 1, 1)), dtype=torch.float32)
    noise = torch.as_tensor(rng.normal(0, 0.1, (count, 1, size, size)), dtype=torch.float32)
    x = (contrast * torch.maximum(own, 0.5 * other) + noise).clamp(0, 1)
    y = clean.copy()
    wrong = rng.permutation(count)[: round(label_noise * count)]
    y[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
    x, y, clean = (
        x.to(device()),
        torch.as_tensor(y).to(device()),
        torch.as_tensor(clean).to(device()),
    )
    return Data(x, y, clean)


@cache
def glyphs_of_fonts():
    """Every digit in every font, upright and central: (11 fonts, 10 digits, 48, 48) in [0, 1]."""
    with needs("course", asked="digits", why="the fonts come with"):
        import matplotlib
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    drawn = np.zeros((len(FONTS), 10, CANVAS, CANVAS), np.float32)
    for f, name in enumerate(FONTS):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), 40)
        for digit in range(10):
            image = Image.new("L", (CANVAS, CANVAS))
            ImageDraw.Draw(image).text(
                (CANVAS / 2, CANVAS / 2), str(digit), fill=255, font=font, anchor="mm"
            )
            drawn[f, digit] = np.asarray(image) / 255
    return torch.from_numpy(drawn)


def bent(rng, classes, size, shift):
    """A digit an image, moved by `shift` (N, 2) half widths, bent at random: (N, 1, size, size)."""
    n = len(classes)
    glyphs = glyphs_of_fonts()[rng.integers(0, len(FONTS), n), classes][:, None]
    angle, scale = np.deg2rad(rng.uniform(-20, 20, n)), rng.uniform(0.9, 1.3, n)
    shear, move = rng.uniform(-0.2, 0.2, n), rng.uniform(-0.12, 0.12, (n, 2)) + shift
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    turn = np.stack(
        [np.stack([cos, -sin + shear * cos], -1), np.stack([sin, cos + shear * sin], -1)], 1
    )
    # where a pixel of the image comes from
    theta = np.concatenate([turn, -turn @ move[..., None]], -1)
    grid = F.affine_grid(
        torch.as_tensor(theta, dtype=torch.float32), (n, 1, 2 * size, 2 * size), align_corners=False
    )
    return F.avg_pool2d(F.grid_sample(glyphs, grid, align_corners=False), 2)
