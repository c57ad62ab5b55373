"""Where labels stand on a sheet, against a solver that knows nothing of how they were placed."""

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from kdlab.show.sheet import apart


@pytest.mark.parametrize("seed", range(5))
def test_labels_stand_as_near_as_a_solver_finds_without_overlap(seed):
    draw = np.random.default_rng(seed)
    places, heights = np.sort(draw.uniform(-20, 220, 6)), draw.integers(10, 40, 6)
    steps = np.diff(np.eye(6), axis=0)  # from each label's centre to the next
    room = (heights[1:] + heights[:-1]) / 2
    first, last = heights[0] / 2, 200 - heights[-1] / 2
    found = minimize(
        lambda centres: ((centres - places) ** 2).sum(),
        np.linspace(first, last, 6),
        jac=lambda centres: 2 * (centres - places),
        constraints=[
            LinearConstraint(steps, room, np.inf),
            LinearConstraint(np.eye(6)[[0, -1]], [first, -np.inf], [np.inf, last]),
        ],
    )
    assert found.success and sum(heights) < 200
    np.testing.assert_allclose(apart(places, heights, top=0, bottom=200), found.x, atol=1e-3)
