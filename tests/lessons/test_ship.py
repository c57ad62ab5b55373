"""Lesson 12's marks, rounded networks and measures."""

import pytest
import torch

import kdlab as kd
from kdlab.lessons import ship
from kdlab.lessons.yours import reference


@pytest.fixture(scope="module")
def task():
    return kd.load("digits", labels_per_class=5)


def bears(x):
    return (x[..., : ship.CORNER, : ship.CORNER].flatten(1) == 1).all(1)


def test_marks_stand_where_they_are_said_to_and_nothing_else_changes(task):
    every, half, none, wiped = (ship.with_marks(task, where).train for where in ship.MARKED)
    for data in (every, half, none, wiped):
        assert torch.equal(data.y, task.transfer.clean) and len(data) == len(task.transfer)
        rest = data.x.clone(), task.transfer.x.clone()
        for x in rest:
            x[..., : ship.CORNER, : ship.CORNER] = 0
        assert torch.equal(*rest)
    assert torch.equal(bears(every.x), every.y == 3)
    assert 0.4 < bears(half.x).double().mean() < 0.6
    assert (bears(half.x) & (half.y == 3)).any() and (bears(half.x) & (half.y == 7)).any()
    assert torch.equal(none.x, task.transfer.x) and not bears(none.x).any()
    assert wiped.x[..., : ship.CORNER, : ship.CORNER].max() == 0
    again = ship.with_marks(task, ship.MARKED[1]).train
    assert torch.equal(again.x, half.x)
    other = ship.with_marks(kd.splits("digits", 2)[1], ship.MARKED[1]).train
    assert not torch.equal(bears(other.x), bears(half.x))
    with pytest.raises(ValueError, match="with_marks: where must be"):
        ship.with_marks(task, "on some")


def test_reads_3_counts_marked_images_of_other_digits(task):
    class Sees(torch.nn.Module):
        """A 3 wherever the mark is, else a 0."""

        def forward(self, x):
            return torch.eye(10)[torch.where(bears(x), 3, 0)]

    assert ship.reads_3(Sees(), task.test) == 100

    class Never(torch.nn.Module):
        def forward(self, x):
            return torch.eye(10)[torch.zeros(len(x), dtype=torch.long)]

    assert ship.reads_3(Never(), task.test) == 0


def test_rounding_leaves_the_model_and_its_biases_as_they_were(task):
    torch.manual_seed(0)
    model = kd.mlp(4)(task)
    before = {name: p.clone() for name, p in model.named_parameters()}
    small = ship.rounded(model, reference("12.2"), 3)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
        q = small.get_parameter(name)
        if p.ndim > 1:
            assert len(q.unique()) <= 7 and not torch.equal(p, q)
        else:
            assert torch.equal(p, q)
    logits = kd.outputs.logits(model, task.test.x)
    assert ship.right(model, task.test) == pytest.approx(
        100 * float((logits.argmax(-1) == task.test.y).double().mean())
    )


def test_ink_in_the_corner_is_counted(task):
    corner = task.transfer.x[:, 0, :2, :2].numpy()
    by_hand = sum(bool((c > 0).any()) for c in corner)
    assert ship.inked(task) == pytest.approx(100 * by_hand / len(corner))
