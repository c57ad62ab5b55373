"""Data sets: honest splits, the difficulties a course needs, and where a name leads."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sets import looked_at
from sklearn.datasets import load_digits

from kdlab import load, splits
from kdlab.base import lab
from kdlab.data import tasks
from kdlab.data.tasks import fingerprint, relabel

PARTS = ("train", "validation", "test")
DIGITS = torch.from_numpy(load_digits().images).float() / 16


def same(a, b):
    return all(torch.equal(x, y) for x, y in ((a.x, b.x), (a.y, b.y), (a.clean, b.clean)))


def in_order(x):
    """Rows of images as a sorted list: equal for two sets of images, however ordered."""
    return sorted(map(tuple, x.flatten(1).tolist()))


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_every_image_is_in_exactly_one_split_with_its_label(seed):
    task = load("digits", seed=seed)
    x = torch.cat([getattr(task, part).x for part in PARTS])
    y = torch.cat([getattr(task, part).y for part in PARTS])
    assert x.dtype == torch.float32 and x.min() == 0 and x.max() == 1 and task.shape == (1, 8, 8)
    tagged = torch.cat([x.flatten(1), y[:, None]], 1)
    assert in_order(tagged) == in_order(
        torch.cat([DIGITS.flatten(1), torch.tensor(load_digits().target)[:, None]], 1)
    )


@pytest.mark.parametrize("origin", ["/nowhere/sklearn/__init__.py", None])
def test_the_digits_are_the_same_where_scikit_learn_keeps_them_elsewhere(origin, monkeypatch):
    usual = tasks.table_of_digits()
    util = SimpleNamespace(find_spec=lambda name: SimpleNamespace(origin=origin))
    monkeypatch.setattr(tasks, "importlib", SimpleNamespace(util=util))
    assert np.array_equal(tasks.table_of_digits(), usual)


def test_each_class_has_its_share_of_each_split():
    counts = np.bincount(load_digits().target)
    task, other = load("digits"), load("digits", seed=9)
    for part, share in zip(PARTS, (0.65, 0.15, 0.20), strict=True):
        data = getattr(task, part)
        assert len(data) == pytest.approx(share * 1797, abs=2)
        assert np.abs(data.y.bincount().numpy() - counts * len(data) / 1797).max() <= 1
        assert torch.equal(
            data.y.bincount(), getattr(other, part).y.bincount()
        )  # so that splits can be stacked


def test_one_seed_one_split_and_another_seed_another():
    a, b, c = load("digits", seed=3), load("digits", seed=3), load("digits", seed=4)
    for part in (*PARTS, "transfer"):
        assert same(getattr(a, part), getattr(b, part))
        assert (
            fingerprint(getattr(a, part))
            == fingerprint(getattr(b, part))
            != fingerprint(getattr(c, part))
        )
        assert not torch.equal(getattr(a, part).x, getattr(c, part).x)
    assert (a.unit, c.unit) == ("digits/3", "digits/4")
    assert all(
        same(task.train, load("digits", seed=i).train) for i, task in enumerate(splits("digits", 2))
    )


def test_few_labels_leave_the_other_images_to_transfer():
    whole, task = load("digits", seed=1), load("digits", seed=1, labels_per_class=5)
    assert task.train.y.bincount().tolist() == [5] * 10
    assert torch.equal(task.transfer.x, whole.train.x) and torch.equal(
        task.transfer.clean, whole.train.y
    )
    labelled = task.transfer.y != -100
    assert torch.equal(task.transfer.x[labelled], task.train.x) and torch.equal(
        task.transfer.y[labelled], task.train.y
    )
    assert same(task.validation, whole.validation) and same(task.test, whole.test)


@pytest.mark.parametrize("noise", [0.1, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("few", [{}, {"labels_per_class": 10}])
def test_noise_replaces_exactly_its_share_of_the_labels(noise, few):
    calm, task = load("digits", seed=2, **few), load("digits", seed=2, noise=noise, **few)
    assert torch.equal(
        task.train.x, calm.train.x
    )  # the same images are labelled whatever the noise
    assert torch.equal(task.train.clean, calm.train.y)
    assert int((task.train.y != task.train.clean).sum()) == round(noise * len(task.train))
    assert task.train.y.min() >= 0 and task.train.y.max() <= 9
    for part in ("validation", "test"):
        assert same(getattr(task, part), getattr(calm, part)) and torch.equal(
            task.test.y, task.test.clean
        )


def test_noise_falls_on_every_other_class_alike():
    task = load("digits", noise=1.0)
    shift = ((task.train.y - task.train.clean) % 10).bincount(minlength=10)
    assert shift[0] == 0 and shift[1:].min() > 90 and shift[1:].max() < 170  # expected 130, sd 11


@pytest.mark.parametrize("out", [3, (3, 8)])
def test_a_class_left_out_stays_only_in_validation_and_test(out):
    whole, task = load("digits"), load("digits", leave_out=out, noise=0.5)
    gone = [out] if isinstance(out, int) else list(out)
    rest = [c for c in range(10) if c not in gone]
    for data in (task.train, task.transfer):
        assert data.clean.unique().tolist() == rest and data.y.unique().tolist() == rest
    assert len(task.train) == int(torch.isin(whole.train.y, torch.tensor(rest)).sum())
    assert (
        same(task.validation, whole.validation)
        and same(task.test, whole.test)
        and len(task.classes) == 10
    )


def test_sizes_keep_the_shares():
    task = load("digits", sizes=(500, 100, 200))
    assert [len(getattr(task, part)) for part in PARTS] == [500, 100, 200]
    counts = np.bincount(load_digits().target)
    assert np.abs(task.train.y.bincount().numpy() - counts * 500 / 1797).max() <= 1
    assert len(set(in_order(torch.cat([getattr(task, part).x for part in PARTS])))) == 800


def test_a_fingerprint_knows_every_pixel_label_and_order():
    data = load("digits").test
    x, y = data.x.clone(), data.y.clone()
    x[0, 0, 0, 0] += 1
    y[0] += 1
    others = [
        type(data)(x, data.y, data.clean),
        type(data)(data.x, y, data.clean),
        type(data)(data.x.flip(0), data.y.flip(0), data.clean.flip(0)),
    ]
    assert len({fingerprint(d) for d in (data, *others)}) == 4
    assert relabel(load("digits"), train=others[0]).train.x is x


@pytest.mark.parametrize(
    "options, words",
    [
        ({"noise": 1.2}, r"noise must be a number in \[0, 1\], got 1.2"),
        ({"noise": float("nan")}, r"noise must be a number in \[0, 1\], got nan"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        (
            {"labels_per_class": 0},
            r"labels_per_class must be a whole number in \[1, 1\d\d\], got 0",
        ),
        (
            {"labels_per_class": 5000},
            r"labels_per_class must be a whole number in \[1, 1\d\d\], got 5000",
        ),
        ({"leave_out": 10}, r"leave_out must hold classes in \[0, 10\), got \(10,\)"),
        (
            {"sizes": (100, 100)},
            r"sizes must be three counts of at least 10 images, got \(100, 100\)",
        ),
        (
            {"sizes": (100, 5, 100)},
            r"sizes must be three counts of at least 10 images, got \(100, 5, 100\)",
        ),
        (
            {"sizes": (1500, 200, 200)},
            r"sizes \(1500, 200, 200\) ask for more images than the set has, 1797",
        ),
        (
            {"sizes": (100, 100, 5000)},
            r"sizes \(100, 100, 5000\) ask for more images than the set has, 1797",
        ),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=f"^load: {words}"):
        load("digits", **options)


def write(directory, split, values, kinds, colour, names=("ant", "bee", "cat")):
    """A parquet split, columns scan and kind, of images that hold one value each (green and blue: 1
    and 2 more)."""
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    pixels = [
        np.full((6, 4, 3) if colour else (6, 4), v, np.uint8)
        + (np.arange(3, dtype=np.uint8) if colour else 0)
        for v in values
    ]
    kind = datasets.ClassLabel(names=list(names)) if names else datasets.Value("int64")
    features = datasets.Features(
        {"note": datasets.Value("string"), "kind": kind, "scan": datasets.Image()}
    )
    rows = {"note": [""] * len(kinds), "kind": kinds, "scan": [Image.fromarray(p) for p in pixels]}
    (directory / "data").mkdir(parents=True, exist_ok=True)
    file = directory / "data" / f"{split}-00000-of-00001.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
    return directory


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty working directory, an empty KDLAB_DATA and empty caches: (here, data)."""
    datasets = pytest.importorskip("datasets")
    import huggingface_hub.constants as hub

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("here", "data"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("KDLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(lab, "chosen", None)
    return tmp_path / "here", tmp_path / "data"


@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
def test_an_image_set_is_read_pixel_by_pixel_whatever_its_columns_are_called(places, colour):
    write(places[1] / "zoo", "train", range(60), [i % 3 for i in range(60)], colour)
    task = load("zoo", seed=1)
    assert task.classes == ["ant", "bee", "cat"] and task.shape == (3 if colour else 1, 6, 4)
    x, y = (torch.cat([getattr(getattr(task, part), k) for part in PARTS]) for k in "xy")
    value = (x[:, 0, 0, 0] * 255).round().long()
    assert sorted(value.tolist()) == list(range(60)) and torch.equal(y, value % 3)
    expected = torch.stack([value + c for c in range(task.shape[0])], 1)[..., None, None].expand_as(
        x
    )
    torch.testing.assert_close(x * 255, expected.float())
    assert [getattr(task, part).y.bincount().tolist() for part in PARTS] == [
        [13] * 3,
        [3] * 3,
        [4] * 3,
    ]


def test_a_published_test_split_stays_the_test_set_of_every_seed(places):
    write(places[1] / "zoo", "train", range(60), [i % 3 for i in range(60)], False)
    write(places[1] / "zoo", "test", range(100, 130), [i % 3 for i in range(30)], False)
    tasks = splits("zoo", 2)
    assert same(tasks[0].test, tasks[1].test) and not torch.equal(
        tasks[0].train.x, tasks[1].train.x
    )
    for task in tasks:
        assert sorted((task.test.x[:, 0, 0, 0] * 255).round().tolist()) == list(range(100, 130))
        rest = torch.cat([task.train.x, task.validation.x])[:, 0, 0, 0]
        assert sorted((rest * 255).round().tolist()) == list(range(60))


def test_a_directory_comes_before_kdlab_data(places):
    here, data = places
    write(
        data / "zoo",
        "train",
        range(60),
        [i % 3 for i in range(60)],
        False,
        names=("far", "far 2", "far 3"),
    )
    assert load("zoo").classes[0] == "far"
    write(
        here / "zoo",
        "train",
        range(60),
        [i % 3 for i in range(60)],
        False,
        names=("near", "near 2", "near 3"),
    )
    assert load("zoo").classes[0] == "near"
    assert load(data / "zoo").classes[0] == "far"  # a path is a name too


def test_a_set_in_the_hub_cache_is_read_by_its_id_and_plain_integers_name_the_classes(
    places, tmp_path, monkeypatch
):
    import datasets

    (tmp_path / "hub" / "datasets--ylecun--mnist" / "snapshots").mkdir(parents=True)
    stand_in = str(
        write(tmp_path / "zoo", "train", range(60), [i % 3 for i in range(60)], False, names=())
    )
    asked, read = [], datasets.load_dataset
    monkeypatch.setattr(
        datasets, "load_dataset", lambda hub_id: asked.append(hub_id) or read(stand_in)
    )
    task = load("mnist")
    assert (
        asked == ["ylecun/mnist"]
        and task.classes == ["0", "1", "2"]
        and task.card.endswith("from the hub")
    )


def test_an_unreachable_name_lists_where_it_looked_and_what_to_do(places, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError) as error:
        load("mnist")
    said = str(error.value)
    assert looked_at(said, "mnist", places[1], "ylecun/mnist", "not reachable)")
    assert (
        said.startswith("load: can't find the data set 'mnist'")
        and "Set KDLAB_DATA to a directory" in said
    )


def test_a_directory_that_is_no_image_set_is_named(places):
    (places[1] / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match="^load: 'empty' was found at .*empty but can't be read"
    ):
        load("empty")
    write(places[1] / "blind", "train", range(6), [0, 1] * 3, False)
    import datasets

    file = next((places[1] / "blind" / "data").iterdir())
    datasets.Dataset.from_dict({"kind": [0, 1]}).to_parquet(file)
    with pytest.raises(ValueError, match="^load: 'blind' must have one image column, got {'kind'"):
        load("blind")


def test_without_the_package_datasets_the_digits_still_load(places, monkeypatch):
    (places[1] / "zoo").mkdir()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ImportError, match="^load: 'zoo' needs the package datasets: pip install datasets"
    ):
        load("zoo")
    assert len(load("digits").train) > 1000


DATA = Path(os.environ.get("KDLAB_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.mark.skipif(
    not (DATA / "mnist").is_dir(), reason="no KDLAB_DATA and no ../shared/data with mnist"
)
def test_mnist_by_name(places, monkeypatch):
    monkeypatch.setenv("KDLAB_DATA", str(DATA))
    task = load("mnist", sizes=(600, 200, 300), labels_per_class=20)
    assert task.classes == [str(c) for c in range(10)] and task.shape == (1, 28, 28)
    assert [len(d) for d in (task.train, task.transfer, task.validation, task.test)] == [
        200,
        600,
        200,
        300,
    ]
    mean = torch.cat([task.transfer.x, task.test.x]).mean().item()
    assert mean == pytest.approx(0.1307, abs=0.01)  # LeCun et al.'s training images
    assert task.test.y.bincount().tolist()[1] in (
        34,
        35,
    )  # 1,135 of the 10,000 test images are ones
