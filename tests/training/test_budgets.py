"""At a constant learning rate several budgets are one training: the shorter are kept on the way."""

import pandas as pd
import pytest
import torch

import kdlab as kd
from kdlab.students.patchnet import patchnet

DATA = {"mlp 6": "digits", "convnet 2": "digits", "patchnet 2": "multiview"}
STUDENTS = {"mlp 6": kd.mlp(6), "convnet 2": kd.convnet(2, dropout=0.5), "patchnet 2": patchnet(2)}


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize(
    "checkpoints, at_once", [(1, None), (3, None), ([1, 2, 4], None), ([1, 2, 4], 2)]
)
def test_budgets_together_are_those_of_trainings_apart(name, checkpoints, at_once):
    tasks = kd.splits(DATA[name], 3)
    how = dict(batch=500, schedule="constant", checkpoints=checkpoints, at_once=at_once)
    together = kd.train(STUDENTS[name], tasks, epochs=[2, 5, 4], seeds=2, **how)
    assert len(together) == 18 and together.frame["run"].nunique() == 18
    for budget in (2, 4, 5):
        if isinstance(checkpoints, list):
            how["checkpoints"] = [c for c in checkpoints if c <= budget]
        alone = kd.train(STUDENTS[name], tasks, epochs=budget, seeds=2, **how)
        found = together.where(epochs=budget)
        order, left = ["unit", "seed", "epoch"], ["run", "seconds"]
        frames = [
            r.frame.drop(columns=left).sort_values(order).reset_index(drop=True)
            for r in (found, alone)
        ]
        pd.testing.assert_frame_equal(*frames)
        for t in tasks:
            for seed in range(2):
                pair = [r.where(unit=t.unit, seed=seed).module() for r in (found, alone)]
                for one, other in zip(*(m.state_dict().values() for m in pair), strict=True):
                    assert torch.equal(one, other)


def test_the_steps_are_those_of_the_longest(monkeypatch):
    from kdlab.training.stepper import Stepper

    taken, step = [], Stepper.step
    monkeypatch.setattr(Stepper, "step", lambda *a: taken.append(1) or step(*a))
    task = kd.load("digits")
    how = dict(epochs=[1, 3], batch=len(task.train))
    kd.train(kd.mlp(2), task, schedule="constant", **how)
    assert len(taken) == 3
    kd.train(kd.mlp(2), task, **how)  # a cosine is another for each budget
    assert len(taken) == 7
