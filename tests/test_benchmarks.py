"""The MNIST benchmark: a killed run goes on as if nothing had happened, and its pieces do what they
say."""

import csv
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import kdlab as kd

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import hinton_mnist as bench  # noqa: E402
import table  # noqa: E402

# one run after another, each as in a process of its own: a folder, a number of epochs, and so on
JOB = """
import hinton_mnist as bench, kdlab as kd, torch, sys, types
def job(cache, epochs):
    torch.manual_seed(1)
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 60, 1, 28, 28, generator=g), torch.randint(0, 10, (2, 60), generator=g)
    task = types.SimpleNamespace(shape=(1, 28, 28), classes=range(10))
    models = [kd.mlp(20, dropout=0.3)(task) for _ in "ab"]
    torch.manual_seed(3)
    for m in models:
        m[1].reset_parameters()
    bench.Bench(cache).fit("job", models, [0, 1], [5, 6], x, kd.HardLabels(), y,
                           epochs=int(epochs), batch=16, jittered=True, max_norm=0.6)
for cache, epochs in zip(sys.argv[1::2], sys.argv[2::2]):
    job(cache, epochs)
    print("whole:", cache, flush=True)
"""


def run(*jobs, kill_at=None):
    """(exit status, the lines of what was trained to its end) of a process for these jobs."""
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, *(str(word) for one in jobs for word in one)],
        cwd=BENCHMARKS,
        text=True,
        stdout=subprocess.PIPE,
    )
    ended = []
    for line in job.stdout:
        if kill_at and line.startswith(f"job: epoch {kill_at} of"):
            job.kill()
        ended += [line.split()[-1]] if line.startswith("whole:") else []
    return job.wait(), ended


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    killed, alone = tmp_path / "killed", tmp_path / "whole"
    status, ended = run((killed, 8), kill_at=3)
    assert status != 0 and ended == []
    half = torch.load(killed / "job.pt", weights_only=True)
    assert 3 <= half["epoch"] < 8
    # the last is of another run: refused, and left as it was
    status, ended = run((killed, 8), (alone, 8), (killed, 9))
    assert status != 0 and ended == [str(killed), str(alone)]
    whole, mended = (
        torch.load(tmp_path / name / "job.pt", weights_only=True) for name in ("whole", "killed")
    )
    assert whole["epoch"] == mended["epoch"] == 8
    torch.testing.assert_close(mended["parameters"], whole["parameters"], rtol=0, atol=0)
    assert not list(tmp_path.rglob("*.new"))


def test_jitter_moves_images_by_up_to_two_pixels():
    x = torch.zeros(2, 200, 1, 28, 28)
    x[..., 10, 20] = 1
    moved = bench.shifted(x, torch.Generator().manual_seed(0))
    at = moved.flatten(0, 2).nonzero()[:, 1:] - torch.tensor([10, 20])
    assert moved.shape == x.shape and moved.sum() == x.sum()  # the dot stays inside
    assert {tuple(p) for p in at.tolist()} == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}
    edge = torch.zeros(1, 200, 1, 28, 28)
    edge[..., 0, 0] = 1  # moved out, or followed by zeros: nothing comes in on the other side
    assert not bench.shifted(edge, torch.Generator().manual_seed(0))[..., 3:, :].any()


def test_max_norm_bounds_each_units_weights_and_leaves_small_ones():
    w = torch.tensor([[[3.0, 4.0], [0.3, 0.4]]])
    parameters = {"0.weight": w.clone(), "0.bias": torch.tensor([[9.0, 9.0]])}
    bench.bound_norms(parameters, 2.0)
    torch.testing.assert_close(parameters["0.weight"], torch.tensor([[[1.2, 1.6], [0.3, 0.4]]]))
    assert parameters["0.bias"].tolist() == [[9.0, 9.0]]


def test_the_bias_is_the_one_with_fewest_errors():
    logits = torch.tensor([[2.0, 0.0], [1.5, 0.0], [1.0, 0.0], [4.0, 0.0]])
    labels = torch.tensor([1, 1, 1, 0])
    assert bench.bias_of(logits, labels, [1], np.arange(0, 6, 0.5)) == 2.5
    assert logits[0].tolist() == [2.0, 0.0]


def test_the_bootstrap_covers_images_teachers_and_students():
    rng = np.random.default_rng(0)
    errors = (rng.random((3, 2, 10000)) < 0.0075).astype(np.float32)
    draws = bench.resample({"a": errors, "same": errors[:, :1]}, draws=400)
    assert draws["a"].mean() == pytest.approx(errors.sum(-1).mean(), abs=1.0)
    assert (
        75**0.5 / 6**0.5 * 0.8 < draws["a"].std() < 75**0.5 * 1.5
    )  # between six independent counts and one
    easy = np.zeros((3, 2, 10000), np.float32)
    easy[0, :, :500] = 1  # one teacher's students fail: the teacher must be resampled
    assert bench.resample({"a": easy}, draws=400)["a"].std() > 0.4 * 500 / 3


@pytest.fixture(scope="module")
def tasks():
    """Three splits of invented images: each class has a pattern, and some of its images hardly show
    it."""
    g = torch.Generator().manual_seed(0)
    patterns = torch.rand(10, 1, 28, 28, generator=g)

    def data(n):
        y = torch.arange(n) % 10
        x = patterns[y] * torch.rand(n, 1, 1, 1, generator=g) + torch.rand(
            n, 1, 28, 28, generator=g
        )
        return kd.Data(x, y, y)

    test = data(200)
    return [
        kd.Task("invented", u, t := data(200), data(100), test, t, [str(c) for c in range(10)], "")
        for u in range(3)
    ]


def measured(tasks, cache, monkeypatch):
    monkeypatch.setattr(bench, "SIZES", {"teacher": (40, 40), "student": (30,), "narrow": (5,)})
    return bench.measure(bench.Bench(cache), tasks, epochs=1, teacher_epochs=1, seeds=[0, 1])


def test_every_arm_is_counted_and_nothing_is_chosen_on_the_test_set(tasks, tmp_path, monkeypatch):
    arms, facts = measured(tasks, tmp_path / "a", monkeypatch)
    assert set(bench.PAPER) <= set(arms) and set(arms) <= set(facts)
    assert all(
        wrong.shape[0] == 3 and wrong.shape[2] == (20 if "threes" in name else 200)
        for name, wrong in arms.items()
    )
    data = tasks[0].test
    poisoned = kd.Data(data.x.flip(0), data.y, data.clean)  # other images for each label
    again = [kd.relabel(t, test=poisoned) for t in tasks]
    others, chosen = measured(again, tmp_path / "b", monkeypatch)
    for name in facts:
        for key in ("temperature", "bias", "validation"):
            assert chosen[name].get(key) == facts[name].get(key), (name, key)
    assert any((others[name] != arms[name]).any() for name in arms)


def test_the_committed_table_has_every_arm_of_the_paper():
    import pandas as pd

    table = pd.read_csv(BENCHMARKS / "results" / "hinton_mnist.csv")
    assert set(bench.PAPER) <= set(table["arm"]) and (table["low"] <= table["ours"]).all()
    assert (table["ours"] <= table["high"]).all() and (table["teachers"] >= 3).all()
    picture = kd.plots.beside_paper(table)
    assert all(arm in picture.alt for arm in bench.PAPER)


def test_a_table_takes_the_place_of_its_own_rows_and_keeps_others(tmp_path, capsys):
    def row(hardware, arm, seconds):
        return {"hardware": hardware, "machine": "m", "arm": arm, "seconds": seconds}

    path = tmp_path / "results" / "some.csv"
    table.write(path, [row("a card", "ours", "1"), row("a card", "theirs", "2")])
    table.write(path, [row("CPU, 2 threads", "ours", "9")])
    table.write(path, [row("a card", "ours", "3") | {"note": "new"}])
    with path.open(newline="") as file:
        found = list(csv.reader(file))
    assert found[0] == ["hardware", "machine", "arm", "seconds", "note"]
    assert found[1:] == [
        ["CPU, 2 threads", "m", "ours", "9", ""],
        ["a card", "m", "ours", "3", "new"],
    ]
    assert "arm ours  seconds 3  note new" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["fused", "step"])
def test_a_peer_that_is_not_there_says_so_and_the_quickest_round_counts(name):
    module = importlib.import_module(name)
    missing = [{"note": "does not run here: ModuleNotFoundError: no such library"}] * 2
    assert module.best(missing) == missing[0]
    rounds = [{"seconds": s, "peak_MB": 10 * s, "note": ""} for s in (2.0, 1.0, 3.0)]
    assert module.best(rounds) == rounds[1] | {"spread": 3.0}
    assert table.ratio(rounds[0], rounds[1], "seconds") == "2.00"
    assert table.ratio(missing[0], rounds[1], "seconds") == ""


def test_a_peer_s_import_error_is_its_note(monkeypatch):
    fused = importlib.import_module("fused")

    def arm(*case):
        raise ModuleNotFoundError("No module named 'peer'")

    found = fused.measure(arm, 512, "float32", 1)
    assert found == {"note": "does not run here: ModuleNotFoundError: No module named 'peer'"}
