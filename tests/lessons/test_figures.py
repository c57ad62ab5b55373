"""What a lesson's picture picks out of its data."""

import torch

from kdlab import load
from kdlab.data.multiview import strengths, views
from kdlab.lessons.figures.lesson07 import two_minds


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
