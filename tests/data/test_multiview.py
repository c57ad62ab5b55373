"""Multi-view data by its definition, its place among the data sets, and what a network learns of
it."""

import numpy as np
import pytest
import torch

from kdlab import load, splits, train
from kdlab.data import multiview
from kdlab.data.multiview import pools, strengths, views
from kdlab.data.tasks import fingerprint
from kdlab.students.patchnet import patchnet

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def world():
    return pools(3)[0]


def carried(images, world_views):
    """What each patch carries, read off the images alone: (N, 11) view numbers c·2 + v or −1, and
    (N, 11) strengths."""
    share = images[:, 0] @ world_views.reshape(20, 64).T / 4  # ⟨x_p, v⟩ / ‖v‖²
    number, size = share.argmax(-1), share.max(-1)
    return np.where(size > 0.15, number, -1), size  # noise has sd 0.03, a leaked view 0.3


@pytest.mark.parametrize("seed", [0, 5])
def test_views_are_orthogonal_and_of_norm_2(seed):
    v = views(seed)
    assert v.shape == (10, 2, 64) and v.dtype == np.float32
    np.testing.assert_allclose(v.reshape(20, 64) @ v.reshape(20, 64).T, 4 * np.eye(20), atol=1e-5)


def test_no_view_of_any_world_is_a_plain_grey():
    for seed in range(30):
        assert (abs(views(seed).sum(-1)) < 1e-6).all()  # as much light as dark


@pytest.mark.parametrize("part", PARTS)
def test_patches_carry_the_views_of_the_definition(world, part):
    images, labels = world[part]
    assert images.shape == (multiview.SIZES[part], 1, 11, 64) and images.dtype == np.float32
    number, size = carried(images, views(3))
    for example, strength, y in zip(number, size, labels, strict=True):
        own = example // 2 == y
        full = np.bincount(example[own] % 2, minlength=2).tolist()
        assert full in ([2, 2],) if part == "train" else full in ([2, 2], [2, 0], [0, 2])
        assert ((example >= 0) & ~own).sum() == 6  # views of other classes
        assert (example == -1).sum() == 11 - sum(full) - 6
        assert (abs(strength[own] - 1) < 0.2).all()
        assert (abs(strength[(example >= 0) & ~own] - 0.3) < 0.15).all()


def test_every_view_of_every_other_class_leaks_alike(world):
    images, labels = world["train"]
    number, _ = carried(images, views(3))
    away = (number - 2 * labels[:, None]) % 20  # counted from the class's own two views
    times = np.bincount(away[(number >= 0) & (away > 1)], minlength=20)
    assert (
        times[:2].tolist() == [0, 0] and times[2:].min() > 260 and times[2:].max() < 410
    )  # 333 expected, sd 18
    first, second = (away == 2).any(1), (away == 3).any(1)  # two views of one class, each by itself
    assert abs((first & second).mean() - first.mean() * second.mean()) < 0.04  # sd 0.01


def test_what_is_left_without_the_views_is_noise_of_norm_half(world):
    images = world["train"][0].astype(np.float64)
    v = views(3).reshape(20, 64).astype(np.float64)
    rest = images[:, 0] - images[:, 0] @ v.T @ v / 4  # in the 44 dimensions that hold no view
    assert (rest**2).sum(-1).mean() == pytest.approx(0.25 * 44 / 64, rel=0.01)  # se 0.2 %
    assert abs(rest.mean()) < 1e-3


def test_the_order_of_the_patches_is_random(world):
    number, _ = carried(world["train"][0], views(3))
    empty = (number == -1).sum(0)  # one patch an example holds noise alone
    assert empty.sum() == 1000 and empty.min() > 55 and empty.max() < 130  # 91 expected, sd 9


@pytest.mark.parametrize("part, single", [("train", 0), ("validation", 300), ("test", 500)])
def test_classes_and_missing_views_are_balanced(world, part, single):
    images, labels = world[part]
    assert np.bincount(labels).tolist() == [len(labels) // 10] * 10
    seen = (
        strengths(torch.tensor(images), views(3))[torch.arange(len(labels)), torch.tensor(labels)]
        > 0.65
    )
    one = seen.sum(1) == 1
    assert int(one.sum()) == single and bool(seen.any(1).all())
    assert torch.tensor(labels)[one].bincount(minlength=10).tolist() == [single // 10] * 10
    assert (
        seen[one].sum(0).tolist() == [single // 2] * 2
    )  # each view is missed as often as the other


def test_strengths_are_the_largest_projection(world):
    x, v = torch.tensor(world["test"][0][:20]), views(3)
    found = strengths(x, v)
    assert found.shape == (20, 10, 2)
    for n, c, k in [(0, 0, 0), (7, 3, 1), (19, 9, 0)]:
        assert found[n, c, k].item() == pytest.approx(
            max(float(p @ v[c, k]) / 4 for p in x[n, 0].numpy()), abs=1e-5
        )


def test_a_seed_is_a_world():
    a, b, c = pools(1)[0], pools(1)[0], pools(2)[0]
    assert all(
        np.array_equal(a[part][0], b[part][0]) and not np.array_equal(a[part][0], c[part][0])
        for part in PARTS
    )
    cosines = abs(views(1).reshape(20, 64) @ views(2).reshape(20, 64).T / 4)
    assert set(cosines.flatten().tolist()) == {0, 1}  # some patterns are in both worlds,
    assert 1 <= cosines.sum() <= 13 and cosines.trace() < 4  # of other classes; 20² / 63 expected
    assert not np.array_equal(a["train"][0][:600], a["validation"][0])


def test_multiview_loads_by_name_with_its_published_splits():
    task, again, other = (
        load("multiview", seed=3),
        load("multiview", seed=3),
        load("multiview", seed=4),
    )
    assert task.unit == "multiview/3" and task.shape == (1, 11, 64) and task.classes[9] == "class 9"
    assert "world 3" in task.card
    for part in PARTS:
        data, (images, labels) = getattr(task, part), pools(3)[0][part]
        assert torch.equal(data.x, torch.tensor(images)) and torch.equal(
            data.y, torch.tensor(labels)
        )
        assert (
            fingerprint(data)
            == fingerprint(getattr(again, part))
            != fingerprint(getattr(other, part))
        )
    assert fingerprint(task.transfer) == fingerprint(task.train)
    assert [t.seed for t in splits("multiview", 2)] == [0, 1]


def test_the_difficulties_of_load_apply_to_multiview():
    whole, small = load("multiview", seed=1), load("multiview", seed=1, sizes=(500, 100, 200))
    assert [len(getattr(small, part)) for part in PARTS] == [500, 100, 200]
    for part in PARTS:  # validation rows come from the published validation pool
        rows = {tuple(x) for x in getattr(whole, part).x.flatten(1).tolist()}
        assert all(tuple(x) in rows for x in getattr(small, part).x.flatten(1).tolist())
    task = load("multiview", seed=1, labels_per_class=20, noise=0.25)
    assert task.train.clean.bincount().tolist() == [20] * 10 and len(task.transfer) == 1000
    assert int((task.train.y != task.train.clean).sum()) == 50
    assert torch.equal(task.validation.x, whole.validation.x) and torch.equal(
        task.test.x, whole.test.x
    )
    with pytest.raises(
        ValueError,
        match=r"^load: sizes \(1001, 100, 200\) ask for more images than the set has, 1000",
    ):
        load("multiview", sizes=(1001, 100, 200))


def test_a_network_learns_both_views_examples_and_errs_where_its_view_is_missing():
    task = load("multiview")
    runs = train(
        patchnet(3), task, epochs=20, lr=1.0, batch=50, optimiser="sgd", schedule="constant"
    )
    hit = runs.module()(task.test.x).argmax(-1) == task.test.y
    both = strengths(task.test.x, views(0))[torch.arange(1000), task.test.y].amin(-1) > 0.65
    assert hit[both].float().mean() > 0.99 and 0.55 < hit[~both].float().mean() < 0.9
