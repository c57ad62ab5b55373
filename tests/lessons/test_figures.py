"""What a lesson's picture picks out of its data."""

import pandas as pd
import torch

from kdlab import load
from kdlab.data.multiview import strengths, views
from kdlab.lessons.figures.lesson07 import two_minds
from kdlab.lessons.figures.lesson10 import estimate


def test_two_networks_are_shown_that_know_one_view_each():
    """Three networks: two that read one view of class 4 each, and one that reads everything."""
    data, v = load("multiview", seed=2).validation, torch.as_tensor(views(2))
    shown = strengths(data.x, v)[torch.arange(len(data)), data.y] > 0.65
    right = torch.nn.functional.one_hot(data.y, 10).float()
    members = torch.stack([right, right, right])
    for network, view in ((2, 0), (0, 1)):  # which view it needs
        members[network, (data.y == 4) & ~shown[:, view]] = 0.0
    slips = [int(((data.y == 4) & (shown[:, v] > shown[:, 1 - v])).nonzero()[0, 0]) for v in (0, 1)]
    members[[2, 0], slips] = 0.0  # each errs once on its own view, on the first such image
    members[[0, 2], :, 5] += 0.5 * (members[[0, 2]].sum(-1) == 0)  # then it says 5
    c, pair, (both, first, second) = two_minds(data, members, v)
    assert (c, pair) == (4, [2, 0])
    assert not {first, second} & set(slips)
    assert data.y[[both, first, second]].tolist() == [4, 4, 4]
    assert shown[[both, first, second]].tolist() == [[True, True], [True, False], [False, True]]


def test_a_cell_of_who_writes_is_one_arm_at_one_step_paired_by_field():
    rows = [
        {"arm": arm, "field": field, "step": step, "writes": k + at, "writes at 0.8": -k}
        for arm, at in (("data, forward KL", 10.0), ("student, reverse KL", 0.0))
        for step in (0, 50)
        for k, field in enumerate("abcd" if at else "dcba", start=step)
    ] + [{"arm": "teacher", "field": field, "writes": 3.0} for field in "abcd"]
    table = pd.DataFrame(rows)
    found = [estimate(table, arm, "writes", 50) for arm in table["arm"].unique()[:2]]
    assert (found[0] - found[1]).values.to_dict() == {"a": 7.0, "b": 9.0, "c": 11.0, "d": 13.0}
    assert estimate(table, "teacher", "writes").mean == 3.0
    drawn = estimate(table, "data, forward KL", "writes at 0.8", 0)
    assert drawn.mean == -1.5 and drawn.measure == "nats"
