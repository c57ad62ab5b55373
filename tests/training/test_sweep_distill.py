"""`train`, `distill` and `sweep` against the usual loop, one student at a time."""

import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_loop import alone, built, logits_of, own_dropout
from torch import nn

from kdlab import (
    HardLabels,
    KDLoss,
    LabelSmoothing,
    convnet,
    distill,
    load,
    mlp,
    splits,
    sweep,
    train,
)
from kdlab.students.builders import Dropout

SMALL = {"sizes": (50, 40, 40)}  # batches of 16 leave a last one of 2
QUICK = {"epochs": 2, "batch": 16}


@pytest.fixture(scope="module")
def tasks():
    return splits("digits", 2, **SMALL)


@pytest.fixture(scope="module")
def task(tasks):
    return tasks[0]


@pytest.fixture(scope="module")
def teacher(tasks):
    """Runs with one teacher a unit."""
    return train(mlp(16), tasks, epochs=5, lr=3e-2)


def same_weights(model, reference):
    torch.testing.assert_close(model.state_dict(), reference.state_dict(), rtol=1e-3, atol=1e-5)


def weights(runs):
    return [runs.module(run=run).state_dict() for run in runs.frame["run"].unique()]


def normed(task):
    return nn.Sequential(
        nn.Flatten(1),
        nn.Linear(64, 12, bias=False),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        Dropout(0.3),
        nn.Linear(12, 10),
    )


@pytest.mark.parametrize(
    "student", [mlp(12), mlp(12, 8, dropout=0.4), convnet(3), normed], ids=lambda b: b.__name__
)
def test_distil_is_the_usual_loop(student, tasks, teacher):
    runs = distill(
        student,
        teacher,
        tasks,
        temperature=3.0,
        alpha=0.7,
        seeds=[4, 9],
        lr=2e-2,
        epochs=3,
        batch=16,
    )
    for row in runs.frame.itertuples():
        task = next(t for t in tasks if t.unit == row.unit)
        guide = teacher.module(unit=row.unit)
        reference = own_dropout(built(student, task, row.seed), row.seed)
        loss = alone(
            reference,
            task.train.x,
            task.train.y,
            logits_of(guide, task.train.x),
            seed=row.seed,
            T=3.0,
            alpha=0.7,
            lr=2e-2,
        )
        model = runs.module(unit=row.unit, seed=row.seed)
        same_weights(model, reference)
        assert not any(m.training for m in model.modules())
        z, y = logits_of(reference, task.validation.x), task.validation.y
        assert row.loss == pytest.approx(
            loss, rel=1e-4
        )  # also says that the small last batch counts by its rows
        assert row.loss == pytest.approx(0.7 * 9 * row.soft + 0.3 * row.hard, rel=1e-4)
        assert row.accuracy == pytest.approx((z.argmax(1) == y).double().mean().item(), abs=1e-6)
        assert row.nll == pytest.approx(F.cross_entropy(z, y).item(), rel=1e-4)
        agrees = z.argmax(1) == logits_of(guide, task.validation.x).argmax(1)
        assert row.agreement == pytest.approx(agrees.double().mean().item(), abs=1e-6)
    assert len(runs) == len(runs.frame) == 4


@pytest.mark.parametrize(
    "objective, smoothing", [(None, 0.0), (HardLabels(), 0.0), (LabelSmoothing(0.2), 0.2)]
)
def test_train_is_cross_entropy(objective, smoothing, task):
    runs = train(mlp(12), task, objective=objective, seeds=[4], epochs=3, batch=16)
    reference = built(mlp(12), task, 4)
    loss = alone(reference, task.train.x, task.train.y, seed=4, smoothing=smoothing)
    same_weights(runs.module(), reference)
    assert runs.frame["loss"].item() == pytest.approx(loss, rel=1e-4)
    assert (
        runs.frame[["temperature", "alpha"]].isna().all(axis=None) and "agreement" not in runs.frame
    )


def test_other_optimisers_are_passed_on(task):
    runs = train(
        mlp(12),
        task,
        optimiser="sgd",
        momentum=0.5,
        clip=0.1,
        schedule="constant",
        epochs=3,
        batch=16,
    )
    reference = built(mlp(12), task, 0)
    alone(
        reference,
        task.train.x,
        task.train.y,
        seed=0,
        optimiser=torch.optim.SGD,
        momentum=0.5,
        clip=0.1,
        schedule="constant",
    )
    same_weights(runs.module(), reference)


def test_a_grid_is_every_combination_and_each_cell_a_run_of_its_own(tasks, teacher):
    axes = {
        "lr": [1e-2, 3e-3],
        "temperature": [1.0, 8.0],
        "alpha": [0.3, 1.0],
        "batch": [16, 50],
        "epochs": [1, 2],
    }
    runs = sweep([mlp(6), mlp(9)], tasks, teacher=teacher, seeds=[1, 2], **axes)
    cells = runs.frame[["student", "unit", "seed", *axes]].itertuples(index=False, name=None)
    expected = itertools.product(
        ["mlp 6", "mlp 9"], ["digits/0", "digits/1"], [1, 2], *axes.values()
    )
    assert sorted(cells) == sorted(expected) and len(runs) == 256
    cell = {"lr": 3e-3, "temperature": 8.0, "alpha": 0.3, "batch": 50, "epochs": 2}
    one = distill(mlp(9), teacher.where(unit="digits/1"), tasks[1], seeds=[2], **cell)
    there = runs.where(student="mlp 9", unit="digits/1", seed=2, **cell)
    torch.testing.assert_close(weights(there), weights(one), rtol=1e-3, atol=1e-6)
    assert there.frame["nll"].item() == pytest.approx(one.frame["nll"].item(), rel=1e-4)


def test_objectives_are_an_axis(task, teacher):
    runs = sweep(
        mlp(6),
        task,
        teacher=teacher,
        objective=[KDLoss, HardLabels(), KDLoss(2.0, 1.0)],
        **QUICK,
    )
    told = runs.frame[["objective", "temperature", "alpha"]].fillna(-1).values.tolist()
    assert told == [
        ["KDLoss", 4, 0.9],
        ["HardLabels", -1, -1],
        ["KDLoss", 2, 1],
    ]
    torch.testing.assert_close(
        weights(runs)[1:],
        weights(train(mlp(6), task, **QUICK))
        + weights(distill(mlp(6), teacher, task, temperature=2.0, alpha=1.0, **QUICK)),
        rtol=1e-3,
        atol=1e-6,
    )


@pytest.mark.parametrize("student", [mlp(6, dropout=0.5), convnet(2)], ids=["dropout", "convnet"])
@pytest.mark.parametrize("at_once", [1, 3])
def test_how_many_are_stacked_changes_nothing(student, at_once, tasks, teacher):
    options = {"temperature": [1, 4], "lr": [1e-2, 3e-3], "seeds": 2, **QUICK}
    a, b = (distill(student, teacher, tasks, at_once=n, **options) for n in (None, at_once))
    torch.testing.assert_close(weights(a), weights(b), rtol=1e-3, atol=1e-6)
    told = [
        "run",
        "unit",
        "seed",
        "student",
        "batch",
        "epochs",
        "objective",
        "lr",
        "temperature",
        "alpha",
        "epoch",
    ]
    assert a.frame[told].equals(b.frame[told])
    np.testing.assert_allclose(a.frame["loss"], b.frame["loss"], rtol=1e-4)


def test_a_teacher_may_be_runs_a_module_or_logits(tasks, teacher):
    modules = [teacher.module(unit=t.unit) for t in tasks]
    z = [logits_of(m, t.train.x) for m, t in zip(modules, tasks, strict=True)]
    by_runs = weights(distill(mlp(6), teacher, tasks, **QUICK))
    for other in (z, torch.stack(z)):
        torch.testing.assert_close(weights(distill(mlp(6), other, tasks, **QUICK)), by_runs)
    for one in (modules[0], z[0], [z[0]]):
        torch.testing.assert_close(weights(distill(mlp(6), one, tasks[0], **QUICK)), by_runs[:1])
    assert (
        "agreement" not in distill(mlp(6), z[0], tasks[0], **QUICK).frame
    )  # logits tell nothing of validation


def test_a_class_that_the_teacher_rules_out_has_no_probability(task, teacher):
    z = logits_of(teacher.module(unit=task.unit), task.train.x)
    low, out = z.clone(), z.clone()
    low[:, 3], out[:, 3] = -1e4, -torch.inf
    a, b = (distill(mlp(6), logits, task, alpha=1.0, **QUICK) for logits in (low, out))
    torch.testing.assert_close(weights(a), weights(b))
    assert a.frame["loss"].item() == pytest.approx(b.frame["loss"].item())  # close also says finite


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_unlabelled_rows_teach_by_their_soft_term_alone(alpha, teacher):
    few = load("digits", labels_per_class=2, **SMALL)
    guide = teacher.module(unit="digits/0")
    runs = distill(mlp(12), guide, few, on="transfer", alpha=alpha, epochs=3, batch=16)
    reference, x, y = built(mlp(12), few, 0), few.transfer.x, few.transfer.y
    assert len(few.train) == 20 and (y == -100).sum() == 30
    loss = alone(reference, x, y, logits_of(guide, x), seed=0, alpha=alpha)
    same_weights(runs.module(), reference)
    assert runs.frame["loss"].item() == pytest.approx(loss, rel=1e-4)


def test_without_a_teacher_unlabelled_rows_do_not_count():
    few = load("digits", labels_per_class=2, **SMALL)
    a, b = (train(mlp(6), few, on=on, optimiser="sgd", **QUICK) for on in ("train", "transfer"))
    torch.testing.assert_close(weights(a), weights(b))
    assert a.frame.drop(columns="seconds").equals(b.frame.drop(columns="seconds"))


def test_start_goes_on_from_the_weights_of_unit_and_seed(tasks, teacher):
    first = distill(normed, teacher, tasks, seeds=[2, 5], **QUICK)
    before = weights(first)
    second = train(normed, tasks, start=first, seeds=[5, 2], epochs=3, batch=16)
    for t, seed in itertools.product(tasks, [2, 5]):
        reference = own_dropout(first.module(unit=t.unit, seed=seed), seed)
        alone(reference, t.train.x, t.train.y, seed=seed)
        same_weights(second.module(unit=t.unit, seed=seed), reference)
    torch.testing.assert_close(weights(first), before, rtol=0, atol=0)


def test_a_student_may_start_as_its_own_teacher_which_stays_as_it_was(tasks, teacher):
    before = weights(teacher)
    runs = distill(mlp(16), teacher, tasks, start=teacher, alpha=0.5, **QUICK)
    torch.testing.assert_close(weights(teacher), before, rtol=0, atol=0)
    assert not torch.equal(weights(runs)[0]["1.weight"], before[0]["1.weight"])


def test_seconds_are_a_students_share_of_its_stack(tasks, monkeypatch):
    clock = itertools.count(100, 12)  # twelve seconds pass between two looks
    monkeypatch.setattr(
        sys.modules["kdlab.training.loop"], "time", SimpleNamespace(perf_counter=clock.__next__)
    )
    runs = train(mlp(4), tasks, seeds=3, **QUICK)
    assert runs.frame["seconds"].tolist() == [12 / 6] * 6  # two splits × three seeds


def test_a_teacher_that_nobody_asks_is_refused(tasks, teacher):
    for guide in ("garbage", teacher):
        with pytest.raises(ValueError, match=r"^train: teacher must be left out for HardLabels\("):
            train(mlp(6), tasks, teacher=guide, **QUICK)
    smooth = LabelSmoothing(0.1)
    with pytest.raises(ValueError, match=r"^train: teacher .*LabelSmoothing.*, got Runs; to learn"):
        train(mlp(6), tasks, objective=smooth, teacher=teacher, **QUICK)
    for objective in (HardLabels(), HardLabels, [HardLabels(), smooth]):
        with pytest.raises(ValueError, match="^distill: objective must be one that needs a teach"):
            distill(mlp(6), teacher, tasks, objective=objective, **QUICK)
    with pytest.raises(TypeError, match="^sweep: teacher must be Runs, .*, got str"):
        sweep(mlp(6), tasks, teacher="garbage", objective=HardLabels(), **QUICK)
    beside = sweep(mlp(6), tasks, teacher=teacher, objective=HardLabels(), **QUICK)
    torch.testing.assert_close(weights(beside), weights(train(mlp(6), tasks, **QUICK)))
