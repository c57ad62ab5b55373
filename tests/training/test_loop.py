"""What the loop of `sweep` measures on the way, and what an interrupt leaves of it."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_loop import first_class

from kdlab import Runs, load, mlp, train
from kdlab.training.stepper import Stepper

SMALL = {"sizes": (50, 40, 40)}
QUICK = {"epochs": 2, "batch": 16}


def test_steps_are_counted_up_to_an_interrupt(task, monkeypatch):
    interrupted_at(monkeypatch, 5)
    assert train(mlp(6), task, epochs=4, batch=16, checkpoints=4).frame["steps"].tolist() == [4, 5]


def test_a_metric_sees_each_student_s_logits_and_its_own_split():
    tasks = [load("digits", seed=seed, **SMALL) for seed in (0, 1)]
    seen = []

    def notes(logits, data):
        seen.append((tuple(logits.shape), data))
        return (logits.argmax(1) == data.y).float().mean()

    runs = train(mlp(6), tasks, seeds=2, checkpoints=2, metrics=[notes, first_class], **QUICK)
    np.testing.assert_allclose(runs.frame["notes"], runs.frame["accuracy"])
    assert {shape for shape, _ in seen} == {(40, 10)} and len(seen) == 8
    assert all(data is tasks[i // 2 % 2].validation for i, (_, data) in enumerate(seen))
    guess = runs.module(run=3)(tasks[1].validation.x).argmax(1)
    assert runs.last()["first_class"][3] == pytest.approx((guess == 0).float().mean().item())


def test_a_metric_is_not_asked_about_a_student_that_diverged(task):
    runs = train(mlp(6), task, lr=1e36, optimiser="sgd", metrics=[first_class], **QUICK)
    assert runs.frame["diverged"].all() and runs.frame["first_class"].isna().all()


def test_a_metric_that_gives_no_number_is_named(task):
    def rows(logits, data):
        return logits.argmax(1) == data.y

    with pytest.raises(TypeError, match="sweep: metrics must return a share, .*tensor.* from rows"):
        train(mlp(6), task, metrics=[rows], **QUICK)


def interrupted_at(monkeypatch, steps):
    step, count = Stepper.step, itertools.count()

    def stop(self, *args):
        if next(count) == steps:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Stepper, "step", stop)


@pytest.mark.parametrize(
    "steps, checkpoints, reached",
    [
        (0, 1, [0, 0]),
        (2, 1, [0.5, 0.5]),
        (4, 1, [1, 1]),
        (5, 4, [1.25, 1.25]),
        (8, 2, [2, 2]),
        (14, 2, [3.5, 3.5]),
        (15, 1, [3.75, 3.75]),
        (16, 1, [4, 4, 0, 0]),
        (30, 1, [4, 4, 3.5, 3.5]),
    ],
)
def test_an_interrupt_keeps_what_there_is(steps, checkpoints, reached, task, monkeypatch, capsys):
    options = {
        "seeds": 4,
        "at_once": 2,
        "epochs": 4,
        "batch": 16,
    }  # four steps an epoch, sixteen a stack
    whole = train(mlp(6), task, **options)
    interrupted_at(monkeypatch, steps)
    runs = train(mlp(6), task, checkpoints=checkpoints, **options)
    told = f"Interrupted: {len(reached)} of 4 runs are kept, each with the epoch it reached.\n"
    assert capsys.readouterr().out == told
    assert (
        runs.last()["epoch"].tolist() == reached
        and not runs.frame.duplicated(["run", "epoch"]).any()
    )
    for row in runs.last().itertuples():  # the row describes the student that was kept
        with torch.no_grad():
            z = runs.module(run=row.run)(task.validation.x)
        assert row.nll == pytest.approx(F.cross_entropy(z, task.validation.y).item(), rel=1e-4)
    finished = runs.frame.query("epoch == 4")
    for column in ("loss", "nll") if len(finished) else ():
        np.testing.assert_allclose(
            finished[column], whole.frame[column][: len(finished)], rtol=1e-6
        )


def test_an_interrupt_before_the_first_step_keeps_nothing(task, monkeypatch, capsys):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("kdlab.training.replicas.Replicas.__init__", stop)
    runs = train(mlp(6), task, at_once=1)
    assert isinstance(runs, Runs) and len(runs) == 0 and repr(runs) == "Runs(none)"
    assert capsys.readouterr().out.startswith("Interrupted: 0 of 1 runs are kept")
