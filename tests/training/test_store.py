"""Runs on disk: what is written comes back, all of it or nothing, and nothing is unpickled."""

import pickle
import sys
from fractions import Fraction

import pandas as pd
import pytest
import torch
from digit_runs import normed

import kdlab.training.store
from kdlab import Runs, distill, mlp


@pytest.fixture
def unpickled():
    """The classes unpickled while the test runs, by Python's own audit events."""
    found, listening = [], [True]
    sys.addaudithook(
        lambda event, args: (
            found.append(args) if event == "pickle.find_class" and listening else None
        )
    )
    yield found
    listening.clear()  # a hook can't be taken away


def test_what_is_saved_comes_back(runs, tasks, tmp_path, unpickled):
    assert pickle.loads(pickle.dumps(Fraction(1, 2))) and unpickled.pop()  # the fixture does listen
    assert runs.save(tmp_path / "deep" / "kept") == tmp_path / "deep" / "kept"
    state, again = (
        torch.get_rng_state(),
        Runs.load(tmp_path / "deep" / "kept", students=[normed], tasks=tasks),
    )
    assert not unpickled and torch.equal(torch.get_rng_state(), state)
    pd.testing.assert_frame_equal(again.frame, runs.frame, check_exact=True)
    for run in range(16):
        a, b = again.module(run=run), runs.module(run=run)
        torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)
        assert not any(m.training for m in a.modules()) and a is not again.module(run=run)
    assert again.values(on="test").equals(runs.values(on="test"))
    both = [
        distill(mlp(4), r.where(lr=1e-2, seed=1), tasks, epochs=1).frame.drop(columns="seconds")
        for r in (runs, again)
    ]
    pd.testing.assert_frame_equal(*both)
    assert sorted(p.name for p in (tmp_path / "deep" / "kept").iterdir()) == [
        "card.json",
        "frame.parquet",
        "students.safetensors",
    ]


def test_a_part_can_be_saved_and_read_without_its_students(runs, tasks, tmp_path):
    part = runs.where(seed=1, unit="digits/2")
    part.save(tmp_path / "kept")
    again = Runs.load(tmp_path / "kept", [normed], tasks)
    torch.testing.assert_close(
        again.module(lr=1e-3).state_dict(), part.module(lr=1e-3).state_dict(), rtol=0, atol=0
    )
    read = Runs.load(tmp_path / "kept")
    assert read.summary().equals(part.summary())
    with pytest.raises(
        ValueError, match="hold no students; give their builders and tasks to Runs.load"
    ):
        read.module(lr=1e-3)
    with pytest.raises(
        ValueError, match="save: 2 runs but 0 students are here, the others would be lost"
    ):
        read.save(tmp_path / "kept")
    assert Runs.load(tmp_path / "kept", [normed], tasks).module(lr=1e-3)


def test_a_failing_write_leaves_what_was_there(runs, tmp_path, monkeypatch):
    runs.where(seed=0).save(tmp_path / "kept")
    runs.where(seed=1).save(tmp_path / "kept")  # a saved directory is replaced whole
    before = {p.name: p.read_bytes() for p in (tmp_path / "kept").iterdir()}

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(kdlab.training.store, "save_file", fail)
    for name in ("kept", "new"):
        with pytest.raises(OSError, match="disk full"):
            runs.save(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert {p.name: p.read_bytes() for p in (tmp_path / "kept").iterdir()} == before
    assert Runs.load(tmp_path / "kept").frame["seed"].unique().tolist() == [1]


@pytest.mark.parametrize(
    "names",
    [
        ["thesis.txt"],
        ["card.json"],
        ["card.json", "frame.parquet", "students.safetensors", "thesis.txt"],
    ],
)
def test_another_directory_is_not_overwritten(names, runs, tmp_path):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(
        ValueError, match=f"save: directory .* holds .*{names[0]}.*; expected a new or a saved one"
    ):
        runs.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="load: .*nowhere must hold saved runs"):
        Runs.load(tmp_path / "nowhere")
