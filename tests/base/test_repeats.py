"""KDLAB_REPEAT moves the seeds, so that a lesson's code draws other splits."""

import pytest
import torch

from kdlab import load, mlp, splits, train
from kdlab.base.repeats import fresh


@pytest.mark.parametrize("told", [None, "", "0"])
def test_without_it_a_seed_stays(told, monkeypatch):
    monkeypatch.delenv("KDLAB_REPEAT", raising=False)
    if told is not None:
        monkeypatch.setenv("KDLAB_REPEAT", told)
    assert [fresh(seed) for seed in (0, 7)] == [0, 7]
    assert load("digits").unit == "digits/0"


def test_each_repetition_draws_splits_that_no_other_draws(monkeypatch):
    seen = set()
    for k in range(3):
        monkeypatch.setenv("KDLAB_REPEAT", str(k))
        seen |= {fresh(seed) for seed in range(100)}
    assert len(seen) == 300


def test_the_splits_are_those_of_the_moved_seeds(monkeypatch):
    asked = dict(labels_per_class=5, noise=0.2)
    expected = [load("digits", seed=2000 + i, **asked) for i in range(2)]
    monkeypatch.setenv("KDLAB_REPEAT", "2")
    found = splits("digits", 2, **asked)
    assert [task.unit for task in found] == ["digits/2000", "digits/2001"]
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.train.x, b.train.x) and torch.equal(a.train.y, b.train.y)
        assert torch.equal(a.test.x, b.test.x)


@pytest.mark.parametrize("told", ["-1", "1.5", "often"])
def test_another_value_is_refused(told, monkeypatch):
    monkeypatch.setenv("KDLAB_REPEAT", told)
    with pytest.raises(ValueError, match=f"KDLAB_REPEAT must be a whole number .* got '{told}'"):
        load("digits")


def test_first_weights_and_the_order_of_images_are_drawn_anew(monkeypatch):
    task = load("digits", sizes=(50, 20, 20))

    def weights(k, **options):
        monkeypatch.setenv("KDLAB_REPEAT", str(k))
        runs = train(mlp(8), task, epochs=1, **options)
        assert runs.frame["seed"].tolist() == [0]
        return next(runs.module().parameters())

    still = dict(lr=1e-12)  # hardly moves, so what is seen are the first weights
    assert torch.equal(weights(0, **still), weights(0, **still))
    assert (weights(0, **still) - weights(1, **still)).abs().max() > 1e-3
    start = train(mlp(8), task, epochs=1)  # from the same weights, what is left is the order
    assert torch.equal(weights(0, start=start), weights(0, start=start))
    assert not torch.equal(weights(0, start=start), weights(1, start=start))
