"""Pictures as people have them, brought to tensors of one shape in [0, 1]."""

import io
from collections import Counter
from functools import partial
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from kdlab.data.columns import (
    class_labels,
    labels_hidden,
    pick_column,
    pick_label,
    read_set,
    rows_of,
)

ORIENTATION = 0x0112  # the EXIF tag for how a camera was held
GREY = {"1", "L", "LA", "La", "F", "I", "I;16", "I;16L", "I;16B", "I;16N"}  # modes without colour


def image_set(name, image, label, resize):
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
    pools = {
        part: (
            partial(_pixels, found[split], image, shape, size is not None, said, split),
            labels[split],
        )
        for part, split in parts.items()
    }
    return pools, names, f"{name}: {len(found[whole])} training images, from {source}"


def _pair(resize):
    """(height, width) from one number or from a pair; None stays None."""
    pair = (resize, resize) if isinstance(resize, Integral) else resize
    fits = (
        isinstance(pair, (tuple, list))
        and len(pair) == 2
        and all(isinstance(n, Integral) and n >= 1 for n in pair)
    )
    if resize is not None and not fits:
        raise ValueError(
            "load: resize must be a whole number of at least 1 or a pair of them, (height, width), "
            f"got {resize!r}"
        )
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


# by a split's fingerprint: 70,000 heads take two seconds, and each seed asks again
_LOOKS: dict = {}


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
        raise ValueError(
            f"{said}: images must share one size, "
            f"got {sorted(sizes)[:3]}{' and more' if len(sizes) > 3 else ''}: "
            f"resize=(height, width) makes them one, for example the most frequent, resize={usual}"
        )
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
        raise ValueError(
            f"{said} has no usable image in {rows_of(broken, split)}: {first}"
        ) from first
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
        raise ValueError(
            "whole numbers of 32 bits don't say which of them is white: save 8 or 16 bits, "
            "or floats in [0, 1]"
        )
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
