"""What the tests of pictures share: words, an estimate, images, and what stands on a figure."""

import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from kdlab import Estimate

WORDS = ("A caption.", "An alt text.")


def estimate(mean, spread=1.0):
    return Estimate(
        pd.Series([mean - spread, mean, mean, mean + spread], index=list("abcd")), "gain", "points"
    )


X = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def said(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def inside(figure):
    FigureCanvasAgg(figure).draw()
    wide, tall = figure.get_size_inches() * 72
    for text in filter(lambda t: t.get_text(), figure.axes[0].texts):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= wide and box.y0 >= 0 and box.y1 <= tall, text
        assert text.get_fontsize() >= 11
