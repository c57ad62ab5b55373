"""What surrounds the loop of `sweep`: checkpoints, what is left untouched, what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from plain_loop import first_class
from torch import nn

from kdlab import (
    KDLoss,
    LabelSmoothing,
    convnet,
    distill,
    load,
    metrics,
    mlp,
    sweep,
    train,
)

SMALL = {"sizes": (50, 40, 40)}
QUICK = {"epochs": 2, "batch": 16}


@pytest.mark.parametrize(
    "epochs, checkpoints, expected",
    [(1, 1, [1]), (6, 3, [2, 4, 6]), (5, 3, [2, 4, 5]), (2, 5, [1, 2])],
)
def test_checkpoints_are_evenly_spaced_and_the_last_is_the_end(epochs, checkpoints, expected, task):
    runs = train(mlp(6), task, epochs=epochs, seeds=2, checkpoints=checkpoints)
    for _, rows in runs.frame.groupby("run"):
        assert rows["epoch"].tolist() == expected
    assert len(runs) == 2 and runs.last()["epoch"].tolist() == [epochs] * 2
    once = train(mlp(6), task, epochs=epochs, seeds=2).frame
    for column in ("loss", "nll"):
        np.testing.assert_allclose(runs.last()[column], once[column], rtol=1e-5)


@pytest.mark.parametrize(
    "epochs, checkpoints, expected",
    [(6, [1, 2, 5], [1, 2, 5, 6]), (3, (3, 1), [1, 3]), (4, range(1, 5), [1, 2, 3, 4])],
)
def test_checkpoints_may_be_listed(epochs, checkpoints, expected, task):
    runs = train(mlp(6), task, epochs=epochs, checkpoints=checkpoints)
    assert runs.frame["epoch"].tolist() == expected


def test_a_list_of_checkpoints_may_go_further_than_a_shorter_budget(task):
    runs = train(mlp(6), task, epochs=[2, 4], checkpoints=[1, 3], batch=16)
    found = runs.frame.groupby("epochs")[["epoch", "steps"]].agg(list)
    assert found["epoch"].to_dict() == {2: [1, 2], 4: [1, 3, 4]}
    assert found["steps"].to_dict() == {2: [4, 8], 4: [4, 12, 16]}  # 50 images: four an epoch


def normed(task):
    return nn.Sequential(
        nn.Flatten(1), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10)
    )


@pytest.mark.parametrize(
    "student", [mlp(6), mlp(6, dropout=0.5), convnet(2), normed], ids=lambda b: b.__name__
)
def test_the_random_state_and_the_teacher_are_left_alone(student, task):
    guide = nn.Sequential(
        nn.Flatten(1), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10)
    )
    guide.train()[2].eval()  # each layer keeps the mode its owner gave it
    modes = [m.training for m in guide.modules()]
    before = {k: v.clone() for k, v in guide.state_dict().items()}
    state = torch.get_rng_state()
    distill(student, guide, task, **QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in guide.modules()] == modes and modes.count(False) == 1
    torch.testing.assert_close(guide.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None and p.requires_grad for p in guide.parameters())


def test_a_builder_that_returns_the_teacher_is_refused(task):
    guide = mlp(8)(task)
    with pytest.raises(
        ValueError,
        match="student must be another model than the teacher, got a builder that returns",
    ):
        distill(lambda task: guide, guide, task, **QUICK)


def zeros(rows=50, classes=10, value=0.0):
    return torch.full((rows, classes), value)


def labelled(task, label):
    y = task.train.y.clone()
    y[3] = label
    return replace(task, train=replace(task.train, y=y))


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (
            {"student": nn.Linear(64, 10)},
            TypeError,
            "student must be a builder .* got Linear; a trained model is not",
        ),
        ({"student": 64}, TypeError, "student must be a builder .* got int"),
        (
            {"student": [mlp(6), mlp(6)]},
            ValueError,
            r"student must hold values of different names.*got \['mlp 6', 'mlp 6",
        ),
        (
            {"student": lambda task: nn.Sequential(nn.Flatten(1), nn.Dropout(), nn.Linear(64, 10))},
            ValueError,
            "'1' is torch's dropout; use kdlab.students.builders.Dropout",
        ),
        ({"tasks": "digits"}, TypeError, "tasks must be one Task or a list of them, .* got "),
        ({"tasks": []}, ValueError, r"tasks must be at least one, .* got \[\]"),
        (
            {"tasks": [load("digits", **SMALL)] * 2},
            ValueError,
            "tasks must be .* each of another split, got .*digits/0",
        ),
        (
            {"tasks": [load("digits", **SMALL), load("digits", seed=1, sizes=(60, 40, 40))]},
            ValueError,
            r"tasks must agree in images, labels and classes, got .*50.*60",
        ),
        (
            {"objective": "kd"},
            TypeError,
            r"objective must be such as KDLoss\(\) or HardLabels.*, got 'kd'",
        ),
        (
            {"objective": [LabelSmoothing(0.1), LabelSmoothing(0.2)]},
            ValueError,
            "objective must hold .* different names",
        ),
        ({"temperature": 0}, ValueError, "temperature must be above 0 and finite, got 0"),
        (
            {"temperature": [4.0, -1.0]},
            ValueError,
            "temperature must be above 0 and finite, got -1.0",
        ),
        ({"temperature": math.inf}, ValueError, "temperature must be above 0 and finite, got inf"),
        ({"alpha": 1.5}, ValueError, r"alpha must lie in \[0, 1\], got 1.5"),
        ({"alpha": [0.5, -0.1]}, ValueError, r"alpha must lie in \[0, 1\], got -0.1"),
        ({"lr": 0}, ValueError, "lr must be a finite number above 0, got 0"),
        ({"lr": [1e-2, math.nan]}, ValueError, "lr must be a finite number above 0, got nan"),
        ({"epochs": 0}, ValueError, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": 2.5}, ValueError, "epochs must be a whole number of at least 1, got 2.5"),
        ({"batch": [16, 0]}, ValueError, "batch must be a whole number of at least 1, got 0"),
        ({"checkpoints": 0}, ValueError, "checkpoints must be a whole number of at least 1, got 0"),
        (
            {"checkpoints": [1, 3]},
            ValueError,
            r"checkpoints must be a whole number in \[1, 2\], got 3",
        ),
        (
            {"checkpoints": [0, 1]},
            ValueError,
            r"checkpoints must be a whole number in \[1, 2\], got 0",
        ),
        ({"checkpoints": []}, ValueError, "checkpoints must hold at least one epoch, got none"),
        (
            {"checkpoints": "all"},
            TypeError,
            "checkpoints must be a whole number or a list of epochs, got str",
        ),
        ({"metrics": first_class}, TypeError, "metrics must be a list of functions .*got function"),
        (
            {"metrics": ["accuracy"]},
            TypeError,
            r"metrics must be a list of functions .*\['accuracy",
        ),
        (
            {"metrics": [first_class] * 2},
            ValueError,
            r"metrics must have names of their own, .*got \['first_class', 'first_class'\]",
        ),
        (
            {"metrics": [metrics.accuracy]},
            ValueError,
            r"metrics must have names of their own, .*got \['accuracy'\]",
        ),
        ({"at_once": -1}, ValueError, "at_once must be a whole number of at least 1, got -1"),
        (
            {"seeds": [1, 2, 1]},
            ValueError,
            r"seeds must be distinct and at least one, got \[1, 2, 1\]",
        ),
        ({"seeds": 0}, ValueError, r"seeds must be distinct and at least one, got \[\]"),
        ({"on": "test"}, ValueError, "on must be 'train' or 'transfer', got 'test'"),
        ({"optimiser": "lion"}, ValueError, "optimiser must be one of .* got 'lion'"),
        ({"schedule": "linear"}, ValueError, "schedule must be one of .*got .linear."),
        ({"teacher": None}, ValueError, "teacher must be given for an objective that distils"),
        (
            {"teacher": mlp(8)},
            TypeError,
            "teacher must be Runs, an nn.Module or logits, got function",
        ),
        (
            {"teacher": [nn.Linear(64, 10)]},
            TypeError,
            "teacher must be Runs, an nn.Module or logits, got list",
        ),
        (
            {"teacher": zeros(rows=49)},
            ValueError,
            r"teacher logits for digits/0 .* \(50, 10\).* got \(49, 10\)",
        ),
        (
            {"teacher": zeros(classes=9)},
            ValueError,
            r"teacher logits for digits/0 .* \(50, 10\).* got \(50, 9\)",
        ),
        (
            {"teacher": nn.Sequential(nn.Flatten(1), nn.Linear(64, 11))},
            ValueError,
            r"\(50, 10\).* got \(50, 11\)",
        ),
        (
            {"teacher": [zeros()] * 2},
            ValueError,
            "teacher must give logits for each of the 1 tasks, got 2",
        ),
        (
            {
                "teacher": zeros(20),
                "on": "transfer",
                "tasks": load("digits", labels_per_class=2, **SMALL),
            },
            ValueError,
            (
                r"one row for each row of task.transfer, or \(1, 50, 10\), one teacher a seed, got"
                r" \(20, 10\)"
            ),
        ),
        (
            {"teacher": zeros(value=math.nan)},
            ValueError,
            r"teacher logits for digits/0 hold NaN, \+inf or a row of −inf",
        ),
        (
            {"teacher": zeros(value=-math.inf)},
            ValueError,
            "teacher logits for digits/0 hold .* a row of −inf",
        ),
        (
            {"teacher": zeros(value=math.inf)},
            ValueError,
            r"teacher logits for digits/0 hold NaN, \+inf or a row of −inf",
        ),
        (
            {"tasks": labelled(load("digits", **SMALL), 10)},
            ValueError,
            r"digits/0 must lie in \[0, 10\) .* got 0 … 10",
        ),
        (
            {"tasks": labelled(load("digits", **SMALL), -1)},
            ValueError,
            r"digits/0 must lie in \[0, 10\) .* got -1 … 9",
        ),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(arguments, error, words, task):
    given = {
        "student": mlp(6),
        "tasks": task,
        "teacher": zeros(),
        "objective": KDLoss,
        **QUICK,
    } | arguments
    with pytest.raises(error, match=words):
        sweep(given.pop("student"), given.pop("tasks"), **given)


def test_a_teacher_of_the_wrong_units_or_of_many_runs_is_refused(task):
    one, two = (
        train(mlp(6), load("digits", seed=1, **SMALL), **QUICK),
        train(mlp(6), task, seeds=2, **QUICK),
    )
    with pytest.raises(
        ValueError,
        match=r"teacher: Runs must hold one run for digits/0, got 0 \(units \['digits/1'\]",
    ):
        distill(mlp(6), one, task)
    with pytest.raises(
        ValueError, match=r"one run for digits/0, got 2 .*select with where\(seed=0\) or best"
    ):
        distill(mlp(6), two, task)
    with pytest.raises(ValueError, match="where: no run has .*digits/0"):
        train(mlp(6), task, start=one)
