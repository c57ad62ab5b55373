"""What is learnt: image classification as tensors, split by seed, with the difficulties a course needs."""

import dataclasses
import hashlib
import io
import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_digits

from . import arguments, multiview, sums
from .lab import HUB_IDS, device, hub_reachable, locate

ORIENTATION = 0x0112  # the EXIF tag for how a camera was held
GREY = {"1", "L", "LA", "La", "F", "I", "I;16", "I;16L", "I;16B", "I;16N"}  # modes without colour


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
    count = arguments.whole("splits", "count", count, least=1)
    return [load(name, seed=seed, **options) for seed in range(count)]


def load(name, seed=0, *, labels_per_class=None, noise=0.0, leave_out=(), sizes=None,
         image=None, label=None, resize=None):
    """Load a classification set and split it: "digits", "multiview", "sums", a directory or a hub id → `Task`.

    Looks, in order, for "digits" (embedded), "multiview" and "sums" (generated, see their files), a directory
    `name`, KDLAB_DATA/`name`, the local hub cache and the hub. A directory has the hub's layout, with one image
    and one label column, whatever their names, or those that `image` and `label` name. Splits are
    stratified and fixed by `seed`; a published test split stays the test set of every seed.

    Images are grey (c = 1) where every image of the set is, else all have three colours (so have
    those with a palette). Black is 0 and white 1: values of 8 and of 16 bits are divided by their
    own maximum, 255 or 65535; floats must lie in [0, 1]. What is transparent is laid on white, and
    a camera's note on rotation (EXIF) is followed.
    Classes are those of a ClassLabel column; of whole numbers or text, the values that occur,
    sorted (1, 2, 5 become the classes 0, 1, 2, called "1", "2", "5").

    labels_per_class: keep that many labelled training images a class; the others stay in `transfer`.
    noise: share of training labels replaced by another class, drawn uniformly (`clean` keeps the truth;
        validation and test labels stay clean).
    leave_out: classes absent from train and transfer, where two must remain; validation and test
        keep them.
    sizes: (train, validation, test) image counts, where the whole set is more than is needed.
    image, label: columns to read, where a set has several, for example label="fine_label".
    resize: size for all images, one number or (height, width), where a set has several (bilinear).
    Raises ValueError for arguments out of range, for a set without such columns or with fewer than
    two classes, and, with their numbers, for rows without a usable image or label;
    FileNotFoundError, listing every place tried, for an unreachable name.

    >>> load("digits", seed=0)
    Task(digits/0: 10 classes, images (1, 8, 8), train 1168, validation 270, test 359, transfer 1168)
    """
    name, noise = arguments.place("load", "name", name), arguments.share("load", "noise", noise)
    seed = arguments.whole("load", "seed", seed)
    made = {"digits": _digits, "multiview": lambda: multiview.pools(seed), "sums": sums.pools}
    if name in made and not image is label is resize is None:
        raise ValueError("load: image, label and resize are for sets in the hub's layout, "
                         f"not for {name!r}")
    pools, classes, card = made[name]() if name in made else _image_set(name, image, label, resize)
    one = isinstance(leave_out, Integral)
    leave_out = (leave_out,) if one else tuple(arguments.listed("load", "leave_out", leave_out, "a class or a list"))
    if any(c not in range(len(classes)) for c in leave_out):
        raise ValueError(f"load: leave_out must hold classes in [0, {len(classes)}), got {leave_out}")
    if sizes is not None and not _three_counts(sizes, len(classes)):
        raise ValueError(f"load: sizes must be three counts of at least {len(classes)} images, got {sizes!r}")
    train, validation, test = _split(pools, seed, sizes)
    (x, clean), (vx, vy), (tx, ty) = map(_tensors, (_without(train, leave_out), validation, test))
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


def _tensors(part):
    """float32 images and int64 labels of (images, labels, rows); images: an array or a function."""
    images, labels, rows = part
    x = images(rows) if callable(images) else torch.as_tensor(images[rows], dtype=torch.float32)
    return x, torch.as_tensor(labels[rows], dtype=torch.long)


def _three_counts(sizes, least):
    return (isinstance(sizes, (tuple, list)) and len(sizes) == 3
            and all(isinstance(n, Integral) and n >= least for n in sizes))


def _without(train, leave_out):
    """(images, labels, rows) without the classes left out; an error unless two classes remain."""
    images, labels, rows = train
    rest = rows[~np.isin(labels[rows], leave_out)]
    if len(np.unique(labels[rest])) >= 2:
        return images, labels, rest
    if leave_out:
        raise ValueError("load: leave_out must leave at least two of the classes in train, "
                         f"{np.unique(labels[rows]).tolist()}, got {leave_out}")
    raise ValueError(f"load: the {len(rest)} training images must hold at least two classes, "
                     "got one: give larger sizes")


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
    if any(count < 1 for part, count in held.items() if part not in pools):
        raise ValueError(f"load: {total} training images are too few to hold some of them out")
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


def _image_set(name, image, label, resize):
    """Any image-classification set with `datasets`: ({split: (images, labels)}, class names, card).

    images: a function from an array of row numbers to float32 (rows, c, height, width) in [0, 1].
    """
    size, said = _pair(resize), f"load: {str(name)!r}"
    found, source = read_set(name, "load", "data set", "digits")
    from datasets import Image as ImageColumn

    whole = "train" if "train" in found else next(iter(found))
    features = found[whole].features
    pictures = [k for k, f in features.items() if isinstance(f, ImageColumn)]
    image = pick_column(features, image, "image", pictures, pictures, said)
    column = pick_label(features, label, said)
    parts = {"train": whole}  # our split → its name in the set
    published = [k for k in ("test", "validation") if k in found and k != whole][:1]
    if published and not labels_hidden(found[published[0]], column):
        parts["test"] = published[0]
    tables = {split: found[split] for split in parts.values()}
    labels, names = class_labels(tables, column, said, guessed=label is None)
    said = f"{said}: column {image!r}"
    looks = {split: _looked_at(table, image) for split, table in tables.items()}
    shape = _common_shape(looks, size, said)
    pools = {part: (partial(_pixels, found[split], image, shape, size is not None, said, split),
                    labels[split]) for part, split in parts.items()}
    return pools, names, f"{name}: {len(found[whole])} training images, from {source}"


def _pair(resize):
    """(height, width) from one number or from a pair; None stays None."""
    pair = (resize, resize) if isinstance(resize, Integral) else resize
    fits = isinstance(pair, (tuple, list)) and len(pair) == 2 and all(
        isinstance(n, Integral) and n >= 1 for n in pair)
    if resize is not None and not fits:
        raise ValueError("load: resize must be a whole number of at least 1 or a pair of them, "
                         f"(height, width), got {resize!r}")
    return pair and tuple(pair)


def _opened(entry):
    """A PIL image, its pixels still unread, from {"bytes", "path"}."""
    if entry["bytes"] is not None:
        return Image.open(io.BytesIO(entry["bytes"]))
    if Path(entry["path"]).is_file():
        return Image.open(entry["path"])
    import datasets

    return datasets.Image().decode_example(entry)  # in an archive or on the hub


def _turned(image):
    """True where a camera's note says that the image is turned or mirrored."""
    if image.format == "PNG" and image.fp:  # asked for its notes, PIL decodes it; most have none
        place = image.fp.tell()
        image.fp.seek(0)
        content = image.fp.read()
        image.fp.seek(place)
        if not any(note in content for note in (b"eXIf", b"exif", b"xmp")):
            return False
    return image.getexif().get(ORIENTATION, 1) > 1


_LOOKS = {}  # by a split's fingerprint: 70,000 heads take two seconds, and each seed asks again


def _looked_at(table, column):
    """{"colour", "sizes", "missing", "broken"} of a split's images, from the heads of all files.

    What the whole set has in common is so known without decoding more than the rows in use.
    """
    key = table._fingerprint, column
    if key in _LOOKS:
        return _LOOKS[key]
    look = {"colour": False, "sizes": Counter(), "missing": [], "broken": []}
    for row, entry in enumerate(table.with_format("arrow")[column]):
        entry = entry.as_py()
        if entry is None or entry["bytes"] is entry["path"] is None:
            look["missing"].append(row)
            continue
        try:
            with _opened(entry) as image:
                if image.width != image.height and _turned(image):
                    ImageOps.exif_transpose(image, in_place=True)
                look["sizes"][image.height, image.width] += 1
                look["colour"] |= image.mode not in GREY
        except Exception:  # whatever PIL finds wrong with a file
            look["broken"].append(row)
    _LOOKS[key] = look
    return look


def _common_shape(looks, size, said):
    """(c, height, width) of every image of a set, from {split: what its images look like}."""
    for split, look in looks.items():
        if look["missing"]:
            raise ValueError(f"{said} has no image in {rows_of(look['missing'], split)}")
        if look["broken"]:
            raise ValueError(f"{said} has no readable image in {rows_of(look['broken'], split)}")
    sizes = sum((look["sizes"] for look in looks.values()), Counter())
    if size is None and len(sizes) > 1:
        usual = sizes.most_common(1)[0][0]
        raise ValueError(f"{said}: images must share one size, got {sorted(sizes)[:3]}"
                         f"{' and more' if len(sizes) > 3 else ''}: resize=(height, width) makes "
                         f"them one, for example the most frequent, resize={usual}")
    colour = any(look["colour"] for look in looks.values())
    return (3 if colour else 1, *(size or next(iter(sizes))))


def _pixels(table, column, shape, resized, said, split, rows):
    """float32 (rows, *shape) in [0, 1] from a column of image files."""
    x = np.empty((len(rows), *shape), np.float32)
    broken, first = [], None
    for i, entry in enumerate(table.select(rows).with_format("arrow")[column]):
        try:
            with _opened(entry.as_py()) as image:
                x[i] = _values(image, shape, resized)
        except Exception as error:  # whatever PIL finds wrong with a file
            broken.append(int(rows[i]))
            first = first or error
    if broken:
        raise ValueError(f"{said} has no usable image in {rows_of(broken, split)}: "
                         f"{first}") from first
    return torch.from_numpy(x)


def _values(image, shape, resized):
    """A PIL image of any mode in [0, 1]: float32 (3, height, width), if grey (height, width)."""
    png = image.format == "PNG"
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or (image.mode == "I" and png):  # I: 16 bits for older PILs
        top, grey = 65535, np.asarray(image).astype(np.float32)
        grey[grey == image.info.get("transparency", -1)] = top
        image = Image.fromarray(grey)  # floats: resizing rounds nothing
    elif image.mode == "F":
        top, (low, high) = 1, image.getextrema()
        if not (np.isfinite(np.asarray(image)).all() and 0 <= low and high <= 1):
            raise ValueError(f"floats must lie in [0, 1], got {low:g} to {high:g}")
    elif image.mode == "I":
        raise ValueError("whole numbers of 32 bits don't say which of them is white: save 8 or "
                         "16 bits, or floats in [0, 1]")
    else:
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        top, mode = 255, "RGB" if shape[0] == 3 else "L"
        image = image if image.mode == mode else image.convert(mode)
    if resized:
        image = image.resize((shape[2], shape[1]), Image.Resampling.BILINEAR)
    values = np.asarray(image, np.float32) / top
    return values.transpose(2, 0, 1) if values.ndim == 3 else values


def rows_of(rows, split):
    """Row numbers, the first ten of them, as an error says them.

    >>> rows_of([3, 17], "train")
    'rows [3, 17] of the train split'
    >>> rows_of(list(range(200)), "test")
    'rows [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …] (200) of the test split'
    """
    some = f"[{', '.join(map(str, rows[:10]))}, …] ({len(rows)})" if len(rows) > 10 else rows
    return f"rows {some} of the {split} split"


def pick_column(features, wanted, argument, usable, likely, said):
    """The column that an argument names or, without it, the only likely one.

    features: {column: type}; usable: columns that may be named; likely: those for no name;
    said: how an error begins. Raises ValueError, listing the columns to choose from.

    >>> features = {"id": "int64", "scan": "Image"}
    >>> pick_column(features, None, "image", ["scan"], ["scan"], "load: 'zoo'")
    'scan'
    """
    if wanted is None:
        if len(likely) == 1:
            return likely[0]
        hint = f": name it by {argument}=, one of {likely or usable}" if likely or usable else ""
        raise ValueError(f"{said} must have one {argument} column, "
                         f"got {likely or dict(features)}{hint}")
    if not isinstance(wanted, str) or wanted not in features:
        raise ValueError(f"{said}: {argument} must name one of the columns {list(features)}, "
                         f"got {wanted!r}")
    if wanted not in usable:
        raise ValueError(f"{said}: {argument} must name one of {usable}, got {wanted!r}, which "
                         f"holds {features[wanted]!r}")
    return wanted


def pick_label(features, wanted, said):
    """The label column: the one named, else the only ClassLabel, else the only whole numbers.

    Text and booleans are labels too where they are named; floats and lists are none.

    >>> import datasets
    >>> features = datasets.Features(idx=datasets.Value("int64"), kind=datasets.ClassLabel(2))
    >>> pick_label(features, None, "load: 'zoo'")
    'kind'
    """
    import datasets

    def of(*types):
        return [k for k, f in features.items()
                if isinstance(f, datasets.Value) and f.dtype.startswith(types)]

    classes = [k for k, f in features.items() if isinstance(f, datasets.ClassLabel)]
    numbers = of("int", "uint")
    usable = classes + numbers + of("string", "large_string", "bool")
    return pick_column(features, wanted, "label", usable, classes or numbers, said)


def labels_hidden(table, column):
    """True where a split keeps every label to itself, as −1 or as nothing: a hub's test set.

    >>> import datasets
    >>> labels_hidden(datasets.Dataset.from_dict({"kind": [-1, -1]}), "kind")
    True
    """
    values = table[column][:]
    return bool(values) and all(map(_hidden, values))


def _hidden(value):
    return value is None or (not isinstance(value, str) and value < 0)


def class_labels(tables, column, said, guessed=False):
    """Labels as classes: ({split: int64 (rows,)}, class names).

    tables: {split: Dataset}, the one to learn from first. Classes are a ClassLabel's own, else the
    values that occur in any split, sorted: a gap leaves no class without rows. said: how an error
    begins; guessed: nobody named the column, which might only number the rows.
    Raises ValueError for a label that is missing or hidden, with its row, for an empty split, and
    for fewer than two classes to learn.

    >>> import datasets
    >>> moods = datasets.Dataset.from_dict({"mood": ["sad", "glad", "sad"]})
    >>> class_labels({"train": moods}, "mood", "load_text: 'films'")
    ({'train': array([1, 0, 1])}, ['glad', 'sad'])
    """
    said, features = f"{said}: column {column!r}", next(iter(tables.values())).features
    names, values = getattr(features[column], "names", None), {}
    for split, table in tables.items():
        found = [v.strip() or None if isinstance(v, str) else v for v in table[column][:]]
        values[split] = found
        if not found:
            raise ValueError(f"{said} has no rows: the {split} split is empty")
        if missing := [i for i, v in enumerate(found) if v is None]:
            raise ValueError(f"{said} has no value in {rows_of(missing, split)}")
        if hidden := [i for i, v in enumerate(found) if _hidden(v)]:
            raise ValueError(f"{said} has hidden labels (below 0) in {rows_of(hidden, split)}; "
                             "where such numbers are classes, write them as text")
        if names and max(found) >= len(names):
            beyond = [i for i, v in enumerate(found) if v >= len(names)]
            raise ValueError(f"{said} has no name for the class in {rows_of(beyond, split)}")
    learnt = next(iter(values.values()))
    if names is None:
        present = sorted(set().union(*values.values()))
        if guessed and len(set(learnt)) == len(learnt):
            raise ValueError(f"{said} only numbers the rows, no two alike: name the label column "
                             f"by label=, one of {list(features)}")
    else:
        present = range(len(names))
    names = names or [str(value) for value in present]
    code = {value: i for i, value in enumerate(present)}
    if len(set(learnt)) < 2:
        raise ValueError(f"{said} must hold at least two classes in the {next(iter(values))} split,"
                         f" got {names[code[learnt[0]]]!r} alone")
    return {k: np.array([code[v] for v in found]) for k, found in values.items()}, names


def read_set(name, caller, what, spare):
    """Any set in the hub's layout, with `datasets`: (DatasetDict, "the hub" or "a directory").

    caller, what, spare: for the words of an error, who asks, for what, and what is always there.

    >>> read_set("no/such", "load", "data set", "digits")
    Traceback (most recent call last):
    FileNotFoundError: load: can't find the data set 'no/such' (name: a directory or a hub id). Looked at: ...
    """
    where, tried = locate(str(name))
    if where is None and not hub_reachable():
        raise FileNotFoundError(
            f"{caller}: can't find the {what} {str(name)!r} (name: a directory or a hub id). Looked "
            f"at: {'; '.join(tried)}; the hub (not reachable). Set KDLAB_DATA to a directory that "
            f"holds {str(name)}/ in the hub's layout, connect once to fill the cache, or use the embedded {spare!r}.")
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"{caller}: {str(name)!r} needs the package datasets: "
                          "pip install datasets") from error
    if where is not None:
        datasets.disable_progress_bars()  # nothing is fetched: a directory is read within seconds
    try:
        found = datasets.load_dataset(str(where or HUB_IDS.get(name, str(name))))
    except Exception as error:
        if empty := re.search(r'Instruction "(\w+)" corresponds to no data', str(error)):
            raise ValueError(f"{caller}: {str(name)!r}: the {empty[1]} split is empty") from error
        raise FileNotFoundError(
            f"{caller}: {str(name)!r} was found at {where or 'the hub'} but can't be read as a "
            f"data set in the hub's layout: {error.__cause__ or error}") from error
    return found, "the hub" if where is None or isinstance(where, str) else "a directory"
