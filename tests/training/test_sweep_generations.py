"""Students that teach students, against chains of plain loops; a teacher for each seed, against one
call for each."""

import itertools
import sys

import pytest
import torch
from plain_loop import alone, built, logits_of
from torch import nn

from kdlab import LabelSmoothing, convnet, distill, each, generations, load, mlp, splits, train

SMALL = {"sizes": (50, 40, 40)}  # batches of 16 leave a last one of 2
QUICK = {"epochs": 3, "batch": 16}


@pytest.fixture(scope="module")
def tasks():
    return splits("digits", 2, **SMALL)


def weights(runs):
    return [runs.module(run=run).state_dict() for run in runs.frame["run"].unique()]


def chain(student, task, seeds, T, alpha):
    """Each model learns from the one before it, the first from labels, on all the rows of
    transfer."""
    x, y, z = task.transfer.x, task.transfer.y, None
    for seed in seeds:
        model = built(student, task, seed)
        there = y >= 0 if z is None else slice(None)
        alone(model, x[there], y[there], z, seed=seed, T=T, alpha=alpha)
        z = logits_of(model, x)
        yield model


@pytest.mark.parametrize(
    "student, on, few",
    [(mlp(12), "train", None), (convnet(2), "train", None), (mlp(12), "transfer", 2)],
    ids=["mlp", "convnet", "transfer"],
)
def test_each_generation_learns_from_its_own_predecessor(student, on, few):
    tasks = splits("digits", 2, labels_per_class=few, **SMALL)
    born = generations(student, tasks, 3, seeds=2, temperature=3.0, alpha=0.7, on=on, **QUICK)
    assert [runs.frame["seed"].tolist() for runs in born] == [
        [0, 1, 0, 1],
        [2, 3, 2, 3],
        [4, 5, 4, 5],
    ]
    for task, first in itertools.product(tasks, (0, 1)):
        for g, reference in enumerate(
            chain(student, task, (first, first + 2, first + 4), 3.0, 0.7)
        ):
            model = born[g].module(unit=task.unit, seed=first + 2 * g)
            torch.testing.assert_close(
                model.state_dict(), reference.state_dict(), rtol=2e-3, atol=5e-5
            )
    swapped = distill(
        student,
        [z.flip(0) for z in each(born[0], tasks, on)],
        tasks,
        seeds=[2, 3],
        temperature=3.0,
        alpha=0.7,
        on=on,
        **QUICK,
    )
    for a, b in zip(
        weights(swapped), weights(born[1]), strict=True
    ):  # another teacher teaches something else
        assert max((a[k] - b[k]).abs().max() for k in a) > 0.01


def test_generations_are_the_same_each_time(tasks):
    a = generations(mlp(6, dropout=0.3), tasks, 2, seeds=2, **QUICK)
    torch.manual_seed(1)
    b = generations(mlp(6, dropout=0.3), tasks, 2, seeds=2, **QUICK)
    torch.testing.assert_close([weights(r) for r in a], [weights(r) for r in b], rtol=0, atol=0)
    one = generations(mlp(6, dropout=0.3), tasks[0], 1, **QUICK)
    assert len(one) == 1
    torch.testing.assert_close(
        weights(one[0]), weights(train(mlp(6, dropout=0.3), tasks[0], **QUICK))
    )


@pytest.mark.parametrize("name", ["count", "seeds"])
@pytest.mark.parametrize("value", [0, -1, 2.0, "2", [0, 1]])
def test_generations_are_counted(name, value, tasks):
    with pytest.raises(
        ValueError, match=f"^generations: {name} must be a whole number of at least 1, got "
    ):
        generations(mlp(4), tasks, **{name: value})


@pytest.mark.parametrize("name", ["teacher", "objective"])
def test_generations_choose_their_own_teachers_before_anything_is_trained(name, tasks, monkeypatch):
    monkeypatch.setattr(sys.modules["kdlab.training.sweep"], "train", None)
    given = {"teacher": nn.Linear(64, 10), "objective": LabelSmoothing(0.1)}[name]
    with pytest.raises(ValueError, match=rf"^generations: {name} must be left out, .*, got L"):
        generations(mlp(4), tasks, **{name: given})


def answers(units, seeds, rows=50):
    return 3 * torch.randn(units, seeds, rows, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("student", [mlp(6), convnet(2)], ids=lambda b: b.__name__)
@pytest.mark.parametrize("at_once", [None, 1, 5])
@pytest.mark.parametrize("kind", [list, torch.stack], ids=["list", "tensor"])
def test_a_teacher_for_each_seed(student, at_once, kind, tasks):
    z, seeds = answers(2, 3), [7, 2, 4]
    runs = distill(
        student, kind(list(z)), tasks, seeds=seeds, temperature=[1.0, 4.0], at_once=at_once, **QUICK
    )
    assert len(runs) == 12
    for i, seed in enumerate(seeds):
        one = distill(student, list(z[:, i]), tasks, seeds=[seed], temperature=[1.0, 4.0], **QUICK)
        torch.testing.assert_close(
            weights(runs.where(seed=seed)), weights(one), rtol=1e-3, atol=1e-5
        )


def test_a_teacher_for_each_seed_is_the_usual_loop_on_unlabelled_rows_too():
    few = load("digits", labels_per_class=2, **SMALL)
    z = answers(1, 2)
    runs = distill(mlp(6), list(z), few, seeds=[3, 8], on="transfer", alpha=0.6, **QUICK)
    for i, seed in enumerate([3, 8]):
        reference = built(mlp(6), few, seed)
        alone(reference, few.transfer.x, few.transfer.y, z[0, i], seed=seed, alpha=0.6)
        torch.testing.assert_close(
            runs.module(seed=seed).state_dict(), reference.state_dict(), rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize(
    "z, words",
    [
        (answers(2, 2), r"\(50, 10\), .* or \(3, 50, 10\), one teacher a seed, got \(2, 50, 10\)"),
        (
            answers(2, 3, rows=49),
            r"\(50, 10\), .* or \(3, 50, 10\), one teacher a seed, got \(3, 49, 10\)",
        ),
        (
            answers(2, 3).mT,
            r"\(50, 10\), .* or \(3, 50, 10\), one teacher a seed, got \(3, 10, 50\)",
        ),
        (answers(2, 3)[:1], "must give logits for each of the 2 tasks, got 1"),
    ],
)
def test_teachers_that_are_not_one_a_seed_are_refused(z, words, tasks):
    with pytest.raises(ValueError, match=f"^sweep: teacher .*{words}"):
        distill(mlp(4), list(z), tasks, seeds=3, **QUICK)


def test_tasks_must_agree_in_how_many_teachers_they_have(tasks):
    z = answers(2, 3)
    with pytest.raises(
        ValueError,
        match=r"each task one a seed, got logits of shapes \[\(3, 50, 10\), \(50, 10\)\]",
    ):
        distill(mlp(4), [z[0], z[1, 0]], tasks, seeds=3, **QUICK)
