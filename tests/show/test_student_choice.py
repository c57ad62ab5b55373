"""Which student a budget buys, by the table made beforehand and by a clock of our own."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import kdlab as kd
from kdlab import Estimate
from kdlab.show import student_choice as tradeoff


def estimates(**means):
    spread = np.array([-0.1, 0.0, 0.0, 0.1])
    return {
        name: Estimate(pd.Series(mean + spread), "accuracy", "%") for name, mean in means.items()
    }


@pytest.mark.parametrize(
    "size, latency, rule, expected",
    [
        (100, 100, tradeoff.BEST, "large"),
        (20, 100, tradeoff.BEST, "middle"),
        (5, 100, tradeoff.BEST, "small"),
        (4, 100, tradeoff.BEST, None),
        (100, 50, tradeoff.BEST, "middle"),
        (100, 9, tradeoff.BEST, None),
    ],
)
def test_the_budget_buys(size, latency, rule, expected):
    sizes, slow = (
        {"small": 5, "middle": 20, "large": 90},
        estimates(small=10.0, middle=50.0, large=100.0),
    )
    accuracy = estimates(small=90.0, middle=95.0, large=97.0)
    assert tradeoff.pick(accuracy, sizes, slow, size, latency, rule)[0] == expected


def test_the_smallest_not_surely_worse_is_told_by_paired_differences():
    sizes, slow = (
        {"small": 5, "middle": 20, "large": 90},
        estimates(small=1.0, middle=1.0, large=1.0),
    )
    accuracy = estimates(small=90.0, large=97.0)
    accuracy["middle"] = Estimate(
        accuracy["large"].values + [0.2, -0.3, 0.1, -0.2], "accuracy", "%"
    )
    assert tradeoff.pick(accuracy, sizes, slow, 100, 100, tradeoff.SMALLEST)[0] == "middle"
    accuracy["middle"] = Estimate(
        accuracy["large"].values - 0.01, "accuracy", "%"
    )  # a hair, but surely
    assert tradeoff.pick(accuracy, sizes, slow, 100, 100, tradeoff.SMALLEST)[0] == "large"


def test_the_table_beforehand_is_what_distilling_anew_gives():
    table = pd.read_csv(tradeoff.MEASURED)
    first = table[table["unit"] == "digits/0"].set_index("student")["accuracy"]
    assert table.groupby("student").size().eq(6).all() and set(first.index) == set(
        tradeoff.BUILDERS
    )
    task = kd.splits("digits", 1, sizes=tradeoff.SIZES)
    teacher = kd.train(tradeoff.BUILDERS[tradeoff.TEACHER], task, epochs=12, batch=64)
    student = kd.distill(kd.mlp(16), teacher, task, epochs=25, batch=64)
    for name, runs in ((tradeoff.TEACHER, teacher), ("mlp 16", student)):
        assert abs(runs.last()["accuracy"].iloc[0] - first[name]) < 0.02


class Ticking(torch.nn.Module):
    """Each call takes `seconds` of a clock of our own; the first of every five is held up."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def forward(self, x):
        self.calls += 1  # the first one only warms up
        self.clock[0] += 100.0 if self.calls % 5 == 2 else self.seconds
        return x


def test_a_call_that_was_held_up_changes_no_latency(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(tradeoff, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    reference, student = Ticking(clock, 2.0), Ticking(clock, 1.0)
    found = tradeoff.latency_ratios({"s": student}, reference, torch.zeros(1, 4), 6, calls=5)
    assert found["s"].values.tolist() == [50.0] * 6
    assert student.calls == reference.calls == 1 + 6 * 5


def test_a_larger_model_takes_longer_than_a_smaller_one():
    small, large = (
        torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(n)]) for n in (1, 30)
    )
    found = tradeoff.latency_ratios({"small": small, "large": large}, large, torch.zeros(1, 64))
    assert found["small"].mean < 60 < found["large"].mean
