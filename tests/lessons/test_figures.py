"""What a lesson's picture picks out of its data."""

import pandas as pd
import pytest
import torch

from kdlab import Estimate, load
from kdlab.data.multiview import strengths, views
from kdlab.lessons.figures.lesson04 import shares
from kdlab.lessons.figures.lesson07 import two_minds
from kdlab.lessons.figures.lesson09 import above_untaught, three_splits
from kdlab.lessons.figures.lesson10 import estimate, exposed


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
    assert estimate(table, "before", "writes", 50).values.to_dict() == {
        field: 10.0 + k for k, field in enumerate("abcd")
    }


def test_how_far_after_whose_words_is_told_of_each_arm_and_of_the_start():
    own, data = "after its own", "after the data's words"
    rows = [
        {"arm": arm, "field": field, "step": step, own: at * step + k, data: at + step + 2 * k}
        for arm, at in (("data, forward KL", 10.0), ("student, reverse KL", 0.0))
        for step in (0, 50, 200)
        for k, field in enumerate("abcd")
    ]
    lines = exposed(pd.DataFrame(rows), 50).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == ["before", *("data, forward KL",)] + [
        "student, reverse KL"
    ]
    assert lines[0].split("  ")[-1].strip() == own and data in lines[0]
    assert "13.00 ±" in lines[1] and " 1.50 ±" in lines[1]
    assert "63.00 ±" in lines[2] and "501.50 ±" in lines[2]


@pytest.mark.parametrize("gain", [5.0, 0.0])
def test_what_a_caption_says_does_not_depend_on_what_was_measured(gain):
    """On another machine a share may be told that here could not."""

    def estimate_of(mean, measure="points"):
        return Estimate(pd.Series([mean - 9, mean, mean, mean + 9]), "gain", measure)

    found = shares(
        {"few labels": {"distilled": estimate_of(gain)}},
        {"few labels": estimate_of(10.0)},
        {"few labels": {"distilled": estimate_of(100 * gain, "%")}},
        "Reference code.",
    )
    assert found.caption.endswith(
        "A share cannot be told where its interval holds 0 and is wide, more than a quarter of the "
        "gap either way. Reference code."
    )


def test_a_student_on_the_untaught_line_is_no_odder_than_it_drawn_cooler():
    """Untaught: 5 nats at 90 % of pairs, 4 nats at 80 %; each field a little off these."""
    rows = []
    for k, field in enumerate("abcd"):
        off = 0.1 * k
        warm = {"writes": 5 + off, "distinct": 90.0, "writes at 0.8": 4 + off}
        cool = {"distinct at 0.8": 80.0}
        before = {"field": field, "step": 0, **warm, **cool}
        rows += [{"arm": arm, **before} for arm in ("on", "below")]
        rows += [{"arm": "on", "field": field, "step": 50, "writes": 4.5 + off, "distinct": 85.0}]
        rows += [{"arm": "below", "field": field, "step": 50, "writes": 3 + off, "distinct": 75.0}]
    table = pd.DataFrame(rows)
    assert above_untaught(table, "on", 50).values.tolist() == pytest.approx([0.0] * 4)
    assert above_untaught(table, "below", 50).values.tolist() == pytest.approx([-0.5] * 4)
    assert above_untaught(table, "on", 0).values.tolist() == pytest.approx([0.0] * 4)


def test_three_splits_are_told_with_their_interval():
    """Of 1, 2 and 3 the 95 % interval by Student's t is 2 ± 4.303 / √3."""
    arms = ("labels", "teacher as it is", "teacher tuned first", "mixture")
    rows = [
        {"arm": arm, "step": step, "nats": nats + step / 100}
        for arm in arms
        for step in (100, 200)
        for nats in (1.0, 2.0, 3.0)
    ] + [
        {"arm": arm, "step": None, "nats": nats}
        for arm in ("the teacher", "the teacher tuned")
        for nats in (5.0, 5.0, 5.0)
    ]
    lines = three_splits(pd.DataFrame(rows), (100, 200)).splitlines()
    assert lines[0].split() == ["100", "steps", "200", "steps"] and len(lines) == 7
    assert lines[1].endswith("5.00 ± 0.00") and lines[3].endswith("3.00 ± 2.48   4.00 ± 2.48")
