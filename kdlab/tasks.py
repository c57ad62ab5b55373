"""What is learnt: image classification as tensors, split by seed, with the difficulties a course needs."""

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits

from . import multiview, sums
from .lab import HUB_IDS, device, hub_reachable, locate


@dataclass(frozen=True)
class Data:
    """Rows of a task: x (N, c, height, width) in [0, 1]; y (N,) labels, −100 for none; clean (N,) true labels."""

    x: torch.Tensor
    y: torch.Tensor
    clean: torch.Tensor

    def __len__(self):
        return len(self.y)


@dataclass(frozen=True)
class Task:
    """One split of a data set, the unit of every interval: train, validation, test and transfer `Data`.

    `transfer` holds every training image, labelled or not (label −100): what a teacher can still label.
    `unit` names the split; two tasks with one unit hold the same images in the same splits.
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
    def shape(self):
        """(channels, height, width) of one image."""
        return tuple(self.train.x.shape[1:])

    @property
    def unit(self):
        """Name of the split, for example "digits/3"."""
        return f"{self.name}/{self.seed}"

    def __repr__(self):
        sizes = ", ".join(f"{k} {len(getattr(self, k))}" for k in ("train", "validation", "test", "transfer"))
        return f"Task({self.unit}: {len(self.classes)} classes, images {self.shape}, {sizes})"


def splits(name, count, **options):
    """`count` tasks of one data set that differ in their split: load(name, seed=0), load(name, seed=1), …

    >>> [task.unit for task in splits("digits", 2)]
    ['digits/0', 'digits/1']
    """
    return [load(name, seed=seed, **options) for seed in range(count)]


def load(name, seed=0, *, labels_per_class=None, noise=0.0, leave_out=(), sizes=None):
    """Load a classification set and split it: "digits", "multiview", "sums", a directory or a hub id → `Task`.

    Looks, in order, for "digits" (embedded), "multiview" and "sums" (generated, see their files), a directory
    `name`, KDLAB_DATA/`name`, the local hub cache and the hub. A directory has the hub's layout, with one image
    and one label column, whatever their names. Splits are stratified and fixed by `seed`; a published test split
    stays the test set of every seed.

    labels_per_class: keep that many labelled training images a class; the others stay in `transfer`.
    noise: share of training labels replaced by another class, drawn uniformly (`clean` keeps the truth;
        validation and test labels stay clean).
    leave_out: classes absent from train and transfer; validation and test keep them.
    sizes: (train, validation, test) image counts, where the whole set is more than is needed.
    Raises ValueError for arguments out of range and FileNotFoundError, listing every place tried, for an
    unreachable name.

    >>> load("digits", seed=0)
    Task(digits/0: 10 classes, images (1, 8, 8), train 1168, validation 270, test 359, transfer 1168)
    """
    if not 0 <= noise <= 1:
        raise ValueError(f"load: noise must lie in [0, 1], got {noise!r}")
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"load: seed must be an integer of at least 0, got {seed!r}")
    made = {"digits": _digits, "multiview": lambda: multiview.pools(seed), "sums": sums.pools}
    pools, classes, card = made[name]() if name in made else _image_set(name)
    leave_out = (leave_out,) if isinstance(leave_out, int) else tuple(leave_out)
    if any(c not in range(len(classes)) for c in leave_out):
        raise ValueError(f"load: leave_out must hold classes in [0, {len(classes)}), got {leave_out}")
    if sizes is not None and (len(sizes) != 3 or min(sizes) < len(classes)):
        raise ValueError(f"load: sizes must be three counts of at least {len(classes)} images, got {sizes!r}")
    kept = _split(pools, seed, sizes)
    (x, y), (vx, vy), (tx, ty) = [(_pixels(images, rows), _long(labels)[rows]) for images, labels, rows in kept]
    here = ~torch.isin(y, torch.tensor(leave_out, dtype=torch.long))
    x, clean = x[here], y[here]
    generator = torch.Generator().manual_seed(seed)
    labelled = torch.ones_like(clean, dtype=torch.bool)
    if labels_per_class is not None:
        labelled = _few(clean, labels_per_class, generator)
    noisy = _flip(clean, noise, labelled, generator)
    to = device()
    x, noisy, clean, labelled = x.to(to), noisy.to(to), clean.to(to), labelled.to(to)
    return Task(name=str(name), seed=seed, classes=classes, card=card,
                train=Data(x[labelled], noisy[labelled], clean[labelled]),
                transfer=Data(x, torch.where(labelled, noisy, -100), clean),
                validation=Data(vx.to(to), vy.to(to), vy.to(to)), test=Data(tx.to(to), ty.to(to), ty.to(to)))


def fingerprint(data):
    """Twelve hex digits that change with any image, label or order of a `Data`.

    >>> fingerprint(load("digits").train) == fingerprint(load("digits", seed=1).train)
    False
    """
    digest = hashlib.sha256(data.x.cpu().numpy().tobytes())
    digest.update(data.y.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def relabel(task, **changes):
    """The task with some fields replaced, for example relabel(task, train=task.transfer).

    >>> len(relabel(load("digits"), train=load("digits").test).train)
    359
    """
    return dataclasses.replace(task, **changes)


def _long(labels):
    return torch.as_tensor(np.asarray(labels), dtype=torch.long)


def _flip(y, share, labelled, generator):
    """Replace exactly round(share · N) of the N labels that are given by another class that is present."""
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
        raise ValueError(f"load: labels_per_class must be a whole number in [1, {smallest}], got {count!r}")
    order = torch.randperm(len(y), generator=generator)
    keep = torch.zeros_like(y, dtype=torch.bool)
    for c in y.unique():
        keep[order[y[order] == c][:count]] = True
    return keep


def _stratified(labels, rows, count, rng):
    """(chosen, rest) of the rows: `count` of them, each class in proportion, the same class counts for any seed."""
    classes, sizes = np.unique(labels[rows], return_counts=True)
    share = sizes * count / len(rows)
    quota = np.floor(share).astype(int)
    quota[np.argsort(quota - share, kind="stable")[: count - quota.sum()]] += 1  # largest remainders
    chosen = np.concatenate([rng.permutation(rows[labels[rows] == c])[:q] for c, q in zip(classes, quota, strict=True)])
    return np.sort(chosen), np.setdiff1d(rows, chosen)


def _split(pools, seed, sizes):
    """[(images, labels, rows)] for train, validation and test; 65 / 15 / 20 % where none of them is published."""
    rng, images, labels = np.random.default_rng(seed), pools["train"][0], np.asarray(pools["train"][1])
    found, rows, total = {}, np.arange(len(labels)), len(labels)
    held = {"test": round(0.2 * total), "validation": total // 6 if "test" in pools else round(0.15 * total)}
    if sizes:
        held = {"test": sizes[2], "validation": sizes[1]}
        if sizes[0] + sum(count for part, count in held.items() if part not in pools) > total:
            raise ValueError(f"load: sizes {sizes!r} ask for more images than the set has, {total}")
    for part, count in held.items():
        if part in pools:  # published: all of it, or as much as is asked for, the same for every seed
            x, y = pools[part][0], np.asarray(pools[part][1])
            count = min(count, len(y)) if sizes else len(y)
            found[part] = x, y, _stratified(y, np.arange(len(y)), count, np.random.default_rng(0))[0]
        else:
            chosen, rows = _stratified(labels, rows, count, rng)
            found[part] = images, labels, chosen
    train, _ = _stratified(labels, rows, sizes[0] if sizes else len(rows), rng)
    return [(images, labels, train), found["validation"], found["test"]]


def _digits():
    """Alpaydin and Kaynak 1998, as scikit-learn ships them: 1,797 scans of 8×8 pixels with values 0 … 16."""
    bunch = load_digits()
    card = "digits: 1,797 handwritten digits, 8×8 grey (Alpaydin and Kaynak 1998, UCI; embedded in scikit-learn)"
    return {"train": (bunch.images[:, None] / 16, bunch.target)}, [str(c) for c in range(10)], card


def _pixels(images, rows):
    """float32 (N, c, height, width) in [0, 1] from an array or from a column of PIL images."""
    if isinstance(images, np.ndarray):
        return torch.as_tensor(images[rows], dtype=torch.float32)
    column, table = images
    mode = table[0][column].mode
    mode = mode if mode in ("L", "RGB") else "L" if mode in ("1", "I", "I;16", "F", "LA") else "RGB"
    arrays = [np.asarray(image.convert(mode)) for image in table.select(rows)[column]]
    if len({a.shape for a in arrays}) > 1:
        raise ValueError(f"load: images must share one size, got {sorted({a.shape for a in arrays})[:3]}")
    x = torch.from_numpy(np.stack(arrays))
    return (x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)).float() / 255


def _image_set(name):
    """Any image-classification set with `datasets`: ({split: (images, labels)}, class names, card)."""
    where, tried = locate(str(name))
    if where is None and not hub_reachable():
        raise FileNotFoundError(
            f"load: can't find the data set {str(name)!r}. Looked at: {'; '.join(tried)}; the hub (not reachable). "
            f"Set KDLAB_DATA to a directory that holds {str(name)}/ in the hub's layout, connect once to fill the "
            "cache, or use the embedded 'digits'.")
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"load: {str(name)!r} needs the package datasets: pip install datasets") from error
    if where is not None:
        datasets.disable_progress_bars()  # nothing is fetched: a directory is read within seconds
    try:
        found = datasets.load_dataset(str(where or HUB_IDS.get(name, str(name))))
    except Exception as error:
        raise FileNotFoundError(f"load: {str(name)!r} was found at {where or 'the hub'} but can't be read as a data "
                                f"set in the hub's layout: {error}") from error
    features = next(iter(found.values())).features
    image = [k for k, f in features.items() if isinstance(f, datasets.Image)]
    label = [k for k, f in features.items() if isinstance(f, datasets.ClassLabel)]
    label = label or [k for k, f in features.items() if getattr(f, "dtype", "").startswith("int")]
    if len(image) != 1 or len(label) != 1:
        raise ValueError(f"load: {str(name)!r} must have one image and one label column, got {dict(features)}")
    train = found["train"] if "train" in found else next(iter(found.values()))
    labels = train[label[0]]
    names = getattr(features[label[0]], "names", None) or [str(c) for c in range(max(labels) + 1)]
    pools = {"train": ((image[0], train), labels)}
    test = found.get("test", found.get("validation"))
    if test is not None and min(test[label[0]]) >= 0:  # hub test sets may hide their labels as −1
        pools["test"] = ((image[0], test), test[label[0]])
    source = "the hub" if where is None or isinstance(where, str) else "a directory"
    return pools, names, f"{name}: {len(train)} training images, from {source}"
