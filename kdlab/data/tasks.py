"""What is learnt: a task's rows as tensors, split by seed, with the difficulties a course needs."""

import dataclasses
import hashlib
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdlab.base import arguments
from kdlab.base.extras import needs
from kdlab.base.lab import device
from kdlab.base.repeats import fresh
from kdlab.data import multiview, sums
from kdlab.data.images import image_set


@dataclass(frozen=True)
class Data:
    """x (N, c, height, width) in [0, 1]; y (N,) labels, −100 for none; clean (N,) the truth.

    >>> labels = torch.tensor([3, -100])
    >>> len(Data(torch.zeros(2, 1, 8, 8), labels, clean=torch.tensor([3, 7])))
    2
    """

    x: torch.Tensor
    y: torch.Tensor
    clean: torch.Tensor

    def __len__(self):
        return len(self.y)


@dataclass(frozen=True)
class Task:
    """One split of a data set, the unit of every interval.

    Its rows are `Data`: train, validation, test and transfer. `transfer` holds every training
    image, labelled or not (label −100): what a teacher can still label. `unit` names the split; two
    tasks with one unit hold the same images in the same splits.

    >>> task = load("digits", labels_per_class=5)
    >>> task.unit, task.shape, len(task.train)
    ('digits/0', (1, 8, 8), 50)
    """

    name: str
    seed: int
    train: Data
    validation: Data
    test: Data
    transfer: Data
    classes: list
    card: str

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of one image."""
        return tuple(self.train.x.shape[1:])

    @property
    def unit(self) -> str:
        """Name of the split, for example "digits/3"."""
        return f"{self.name}/{self.seed}"

    def __repr__(self):
        sizes = ", ".join(
            f"{k} {len(getattr(self, k))}" for k in ("train", "validation", "test", "transfer")
        )
        return f"Task({self.unit}: {len(self.classes)} classes, images {self.shape}, {sizes})"


def splits(name: str | os.PathLike, count: int, **options: Any) -> list[Task]:
    """`count` tasks of one data set that differ in their split: seed 0, seed 1, …

    >>> [task.unit for task in splits("digits", 2)]
    ['digits/0', 'digits/1']
    """
    count = arguments.whole("splits", "count", count, least=1)
    return [load(name, seed=seed, **options) for seed in range(count)]


def load(
    name: str | os.PathLike,
    seed: int = 0,
    *,
    labels_per_class: int | None = None,
    noise: float = 0.0,
    leave_out: int | Sequence[int] = (),
    sizes: tuple[int, int, int] | None = None,
    image: str | None = None,
    label: str | None = None,
    resize: int | tuple[int, int] | None = None,
) -> Task:
    """Load a classification set, by name, directory or hub id, and split it → `Task`.

    Looks, in order, for "digits" (embedded), "multiview" and "sums" (generated, see their files), a
    directory `name`, KDLAB_DATA/`name`, the local hub cache and the hub. A directory has the hub's
    layout, with one image and one label column, whatever their names, or those that `image` and
    `label` name. Splits are stratified and fixed by `seed`; a published test split stays the test
    set of every seed.

    Images are grey (c = 1) where every image of the set is, else all have three colours (so have
    those with a palette). Black is 0 and white 1: values of 8 and of 16 bits are divided by their
    own maximum, 255 or 65535; floats must lie in [0, 1]. What is transparent is laid on white, and
    a camera's note on rotation (EXIF) is followed.
    Classes are those of a ClassLabel column; of whole numbers or text, the values that occur,
    sorted (1, 2, 5 become the classes 0, 1, 2, called "1", "2", "5").

    labels_per_class: keep that many labelled training images a class; the others stay in
        `transfer`.
    noise: share of training labels replaced by another class, drawn uniformly (`clean` keeps the
        truth; validation and test labels stay clean).
    leave_out: classes absent from train and transfer, where two must remain; validation and test
        keep them.
    sizes: (train, validation, test) image counts, where the whole set is more than is needed.
    image, label: columns to read, where a set has several, for example label="fine_label".
    resize: size for all images, one number or (height, width), where a set has several (bilinear).
    Raises ValueError for arguments out of range, for a set without such columns or with fewer than
    two classes, and, with their numbers, for rows without a usable image or label;
    FileNotFoundError, listing every place tried, for an unreachable name.

    >>> load("digits", seed=0)
    Task(digits/0: 10 classes, images (1, 8, 8),
         train 1168, validation 270, test 359, transfer 1168)
    """
    name, noise = arguments.place("load", "name", name), arguments.share("load", "noise", noise)
    seed = fresh(arguments.whole("load", "seed", seed))
    made = {"digits": _digits, "multiview": lambda: multiview.pools(seed), "sums": sums.pools}
    if name in made and not (image is None and label is None and resize is None):
        raise ValueError(
            f"load: image, label and resize are for sets in the hub's layout, not for {name!r}"
        )
    pools, classes, card = made[name]() if name in made else image_set(name, image, label, resize)
    leave_out = _left_out(leave_out, len(classes))
    if sizes is not None and not _three_counts(sizes, len(classes)):
        raise ValueError(
            f"load: sizes must be three counts of at least {len(classes)} images, got {sizes!r}"
        )
    train, validation, test = _split(pools, seed, sizes)
    (x, clean), *kept = map(_tensors, (_without(train, leave_out), validation, test))
    generator = torch.Generator().manual_seed(seed)
    labelled = torch.ones_like(clean, dtype=torch.bool)
    if labels_per_class is not None:
        labelled = _few(clean, labels_per_class, generator)
    noisy = _flip(clean, noise, labelled, generator)
    validation, test = (_data(images, labels, labels) for images, labels in kept)
    return Task(
        name=str(name),
        seed=seed,
        classes=classes,
        card=card,
        train=_data(x[labelled], noisy[labelled], clean[labelled]),
        transfer=_data(x, torch.where(labelled, noisy, -100), clean),
        validation=validation,
        test=test,
    )


def _data(x, y, clean):
    """A part of a task, on the device in use."""
    return Data(*(part.to(device()) for part in (x, y, clean)))


def _left_out(leave_out, classes):
    """One class or several, as a tuple of them."""
    if isinstance(leave_out, Integral):
        leave_out = (leave_out,)
    leave_out = tuple(arguments.listed("load", "leave_out", leave_out, "a class or a list"))
    if any(c not in range(classes) for c in leave_out):
        raise ValueError(f"load: leave_out must hold classes in [0, {classes}), got {leave_out}")
    return leave_out


def fingerprint(data):
    """Twelve hex digits that change with any image, label or order of a `Data`.

    >>> fingerprint(load("digits").train) == fingerprint(load("digits", seed=1).train)
    False
    """
    digest = hashlib.sha256(data.x.cpu().numpy().tobytes())
    digest.update(data.y.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def relabel(task: Task, **changes: Any) -> Task:
    """The task with some fields replaced, for example relabel(task, train=task.transfer).

    >>> len(relabel(load("digits"), train=load("digits").test).train)
    359
    """
    arguments.instance("relabel", "task", task, Task, "a Task, from load() or splits()")
    for name in changes:
        arguments.one_of("relabel", "a field", name, [f.name for f in dataclasses.fields(Task)])
    return dataclasses.replace(task, **changes)


def _tensors(part):
    """float32 images and int64 labels of (images, labels, rows); images: an array or a function."""
    images, labels, rows = part
    x = images(rows) if callable(images) else torch.as_tensor(images[rows], dtype=torch.float32)
    return x, torch.as_tensor(labels[rows], dtype=torch.long)


def _three_counts(sizes, least):
    return (
        isinstance(sizes, (tuple, list))
        and len(sizes) == 3
        and all(isinstance(n, Integral) and n >= least for n in sizes)
    )


def _without(train, leave_out):
    """(images, labels, rows) without the classes left out; an error unless two classes remain."""
    images, labels, rows = train
    rest = rows[~np.isin(labels[rows], leave_out)]
    if len(np.unique(labels[rest])) >= 2:
        return images, labels, rest
    if leave_out:
        raise ValueError(
            "load: leave_out must leave at least two of the classes in train, "
            f"{np.unique(labels[rows]).tolist()}, got {leave_out}"
        )
    raise ValueError(
        f"load: the {len(rest)} training images must hold at least two classes, "
        "got one: give larger sizes"
    )


def _flip(y, share, labelled, generator):
    """Replace exactly round(share · N) of N labels by another class, one that is present."""
    rows = labelled.nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=generator)[: round(share * len(rows))]]
    present, index = y.unique(return_inverse=True)
    shift = torch.randint(1, len(present), (len(rows),), generator=generator)
    index[rows] = (index[rows] + shift) % len(present)
    return present[index]


def _few(y, count, generator):
    """True for `count` rows of each class."""
    smallest = int(y.unique(return_counts=True)[1].min())
    if not isinstance(count, int) or not 1 <= count <= smallest:
        raise ValueError(
            f"load: labels_per_class must be a whole number in [1, {smallest}], got {count!r}"
        )
    order = torch.randperm(len(y), generator=generator)
    keep = torch.zeros_like(y, dtype=torch.bool)
    for c in y.unique():
        keep[order[y[order] == c][:count]] = True
    return keep


def _stratified(labels, rows, count, rng):
    """(chosen, rest) of the rows: `count`, each class in proportion, as many for any seed."""
    classes, sizes = np.unique(labels[rows], return_counts=True)
    share = sizes * count / len(rows)
    quota = np.floor(share).astype(int)
    # largest remainders
    quota[np.argsort(quota - share, kind="stable")[: count - quota.sum()]] += 1
    chosen = np.concatenate(
        [rng.permutation(rows[labels[rows] == c])[:q] for c, q in zip(classes, quota, strict=True)]
    )
    return np.sort(chosen), np.setdiff1d(rows, chosen)


def _split(pools, seed, sizes):
    """[(images, labels, rows)] for train, validation, test; 65 / 15 / 20 % if none is published."""
    rng, images, labels = (
        np.random.default_rng(seed),
        pools["train"][0],
        np.asarray(pools["train"][1]),
    )
    found, rows, total = {}, np.arange(len(labels)), len(labels)
    held = {
        "test": round(0.2 * total),
        "validation": total // 6 if "test" in pools else round(0.15 * total),
    }
    if sizes:
        held = {"test": sizes[2], "validation": sizes[1]}
        if sizes[0] + sum(count for part, count in held.items() if part not in pools) > total:
            raise ValueError(f"load: sizes {sizes!r} ask for more images than the set has, {total}")
    if any(count < 1 for part, count in held.items() if part not in pools):
        raise ValueError(f"load: {total} training images are too few to hold some of them out")
    for part, count in held.items():
        # published: all of it, or as much as is asked for, the same for every seed
        if part in pools:
            x, y = pools[part][0], np.asarray(pools[part][1])
            count = min(count, len(y)) if sizes else len(y)
            found[part] = (
                x,
                y,
                _stratified(y, np.arange(len(y)), count, np.random.default_rng(0))[0],
            )
        else:
            chosen, rows = _stratified(labels, rows, count, rng)
            found[part] = images, labels, chosen
    train, _ = _stratified(labels, rows, sizes[0] if sizes else len(rows), rng)
    return [(images, labels, train), found["validation"], found["test"]]


def _digits():
    """Alpaydin and Kaynak 1998, from scikit-learn: 1,797 scans of 8×8 pixels, values 0 … 16."""
    table = table_of_digits()
    images, labels = table[:, :-1].reshape(-1, 1, 8, 8) / 16, table[:, -1].astype(int)
    card = (
        "digits: 1,797 handwritten digits, "
        "8×8 grey (Alpaydin and Kaynak 1998, UCI; embedded in scikit-learn)"
    )
    return {"train": (images, labels)}, [str(c) for c in range(10)], card


def table_of_digits():
    """(1797, 65): each scan's pixels and its label.

    From the file in scikit-learn's folder: importing it takes two seconds, scipy's statistics with
    it."""
    found = importlib.util.find_spec("sklearn")
    file = found and Path(found.origin or "").parent / "datasets/data/digits.csv.gz"
    if file and file.is_file():
        return np.loadtxt(file, delimiter=",")
    with needs("course", asked="load", why="the digits come with"):
        from sklearn.datasets import load_digits
    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels])
