"""A matrix of shares without its diagonal, the largest first."""

import numpy as np
import pytest
import torch
from drawings import WORDS, X, inside, said

from kdlab.show import heat


def test_heat_shows_shares_without_the_diagonal_and_the_largest_first(drawn):
    matrix = torch.tensor([[0.9, 0.3, 0.01], [0.2, 0.8, 0.0], [0.05, 0.4, 0.5]])
    heat.heat(matrix, X[:3], *WORDS, pairs=2, labels="abc", marked=1)
    canvas = drawn[0].axes[0]
    shown = np.ma.filled(canvas.images[0].get_array().astype(float), np.nan)
    assert np.isnan(np.diag(shown)).all() and shown[2, 1] == pytest.approx(0.4)
    words = said(drawn[0])
    assert {"30", "20", "5", "40"} <= set(words) and "90" not in words and "1" not in words
    assert [w for w in words if "% for" in w] == ["40 % for b", "30 % for b"]
    assert [w for w in words if "shown" in w] == ["shown: c", "shown: a"]
    inside(drawn[0])


@pytest.mark.parametrize(
    "rows, images, words",
    [(3, 3, r"shares \(C, C\)"), (10, 3, "each of 10 classes, got 3")],
)
def test_what_is_no_matrix_of_shares_is_named(rows, images, words):
    with pytest.raises((TypeError, ValueError), match=words):
        heat.heat(torch.full((rows, 10), 0.1), X[:images], *WORDS)
