"""Texts that belong to classes: the standard library's docstrings by field, or any set, by name."""

import os
from typing import Any

from kdlab.base import arguments
from kdlab.data.columns import (
    check_texts,
    class_labels,
    labels_hidden,
    pick_label,
    pick_text,
    read_texts,
)
from kdlab.data.docstrings import FIELDS, docstrings, held_out


def load_text(
    name: str | os.PathLike = "docstrings",
    seed: int = 0,
    sizes: tuple[int, int, int] = (1000, 300, 800),
    *,
    text: str | tuple[str, str] | None = None,
    label: str | None = None,
) -> Any:
    """A text-classification set, split, by name, directory or hub id → `datasets.DatasetDict`.

    Splits train, validation and test with the columns text and label (a ClassLabel). "docstrings"
    asks which field of the standard library a docstring comes from, of eight (kd.text.FIELDS); its
    test texts are those of `held_out`. A set in the hub's layout must have one text and one label
    column (a ClassLabel, or whole numbers where there is none), whatever their names, or those that
    `text` and `label` name; a published test split (or, where its labels are hidden, validation
    split) is the test pool of every seed. Looks where `load` looks. Classes are those of a
    ClassLabel; of whole numbers or text, the values that occur, sorted.

    sizes: how many texts of each split, drawn by `seed`, the test texts the same for every seed.
    text: the column to read, or two for pairs of sentences, text=("sentence1", "sentence2"): the
        columns are then text, text_pair and label.
    label: the column that holds the classes, for example label="coarse_label".
    Raises ValueError for a seed or sizes that can't be met, for a set without such columns or
    splits or with fewer than two classes, and, with their numbers, for rows without text or label;
    FileNotFoundError, listing every place tried, for an unknown name.

    >>> texts = load_text(sizes=(100, 20, 50))
    >>> [len(texts[k]) for k in ("train", "validation", "test")]
    [100, 20, 50]
    >>> texts["train"].features["label"].names[:2]
    ['windows', 'mail']
    """
    import datasets

    datasets.disable_progress_bars()  # what is done here, and with so few texts, takes a moment
    name, seed = (
        arguments.place("load_text", "name", name),
        arguments.whole("load_text", "seed", seed),
    )
    if name == "docstrings" and not text is label is None:
        raise ValueError(
            f"load_text: text and label are for sets in the hub's layout, not for {name!r}"
        )
    rows, test = _fields() if name == "docstrings" else _text_set(name, text, label)
    whole = isinstance(sizes, (tuple, list)) and [isinstance(n, int) for n in sizes] == [True] * 3
    if (
        not whole
        or min(sizes[0], sizes[1] + 1, sizes[2]) < 1
        or sum(sizes[:2]) > len(rows)
        or sizes[2] > len(test)
    ):
        raise ValueError(
            f"load_text: sizes must be three counts, at most {len(rows)} for train and validation "
            f"together and {len(test)} for test (only validation may be 0), got {sizes!r}"
        )
    mixed = rows.shuffle(seed=seed)
    first = sizes[0] if sizes[1] else 0  # no rows can't begin behind the last one
    return datasets.DatasetDict(
        {
            "train": mixed.select(range(sizes[0])),
            "validation": mixed.select(range(first, first + sizes[1])),
            "test": test.shuffle(seed=0).select(range(sizes[2])),
        }
    )


def _fields():
    import datasets

    field = {module: i for i, modules in enumerate(FIELDS.values()) for module in modules.split()}
    features = datasets.Features(
        text=datasets.Value("string"), label=datasets.ClassLabel(names=list(FIELDS))
    )
    known = [(text, field[module]) for module, text in docstrings() if module in field]
    return [
        datasets.Dataset.from_dict(
            {"text": [t for t, _ in part], "label": [y for _, y in part]}, features
        )
        for part in ([r for r in known if not held_out(r[0])], [r for r in known if held_out(r[0])])
    ]


def _text_set(name, text, label):
    """(train, test) of a set, with the columns text, perhaps text_pair, and label, a ClassLabel."""
    import datasets

    found, said = read_texts(name, "load_text"), f"load_text: {name!r}"
    features = found["train"].features
    columns = [pick_text(features, k, said, besides=label) for k in _one_or_two(text)]
    column = pick_label(features, label, said)
    if len({*columns, column}) <= len(columns):
        raise ValueError(
            f"{said}: text and label must name different columns, "
            f"got {', '.join(map(repr, [*columns, column]))}"
        )
    held = next(
        (
            split
            for split in ("test", "validation")
            if split in found and not labels_hidden(found[split], column)
        ),
        None,
    )
    if held is None:
        raise ValueError(
            f"{said} must have a test or validation split with labels, got {list(found)}"
        )
    tables = {split: found[split] for split in ("train", held)}
    labels, classes = class_labels(tables, column, said, guessed=label is None)
    new, parts = ["text", "text_pair"][: len(columns)], []
    for split, table in tables.items():
        for old in columns:
            check_texts(table[old][:], old, split, said)
        names = {old: name for old, name in zip(columns, new, strict=True) if old != name}
        part = table.select_columns(columns).rename_columns(names).select_columns(new)
        part = part.add_column("label", labels[split])
        parts.append(part.cast_column("label", datasets.ClassLabel(names=classes)))
    return parts


def _one_or_two(text):
    """The names of one or two text columns as a list; [None] where nobody named any."""
    names = [text] if text is None or isinstance(text, str) else text
    if (
        not isinstance(names, (tuple, list))
        or len(names) not in (1, 2)
        or (None in names and text is not None)
    ):
        raise ValueError(f"load_text: text must name one column or a pair of them, got {text!r}")
    return list(names)
