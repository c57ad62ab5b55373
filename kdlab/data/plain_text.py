"""Texts without labels, for language models: whole, and in small parts."""

import os

from kdlab.base import arguments
from kdlab.data.columns import check_texts, pick_text, read_texts
from kdlab.data.docstrings import FIELDS, docstrings, held_out


def plain_text(
    name: str | os.PathLike = "docstrings", text: str | None = None
) -> dict[str, list[str]]:
    """Texts without labels, for language models: {"train": [str], "test": [str]}.

    name: "docstrings", one field of them (FIELDS), a directory or a hub id.
    text: the column to read, where a set has several of texts.
    A set without a test or validation split gives its last tenth. Empty lines stay; a row without
    a text is an error. Errors as in `load_text`.

    >>> {k: len(v) > 100 for k, v in plain_text("web").items()}
    {'train': True, 'test': True}
    """
    name = arguments.place("plain_text", "name", name)
    if name == "docstrings" or name in FIELDS:
        if text is not None:
            raise ValueError(f"plain_text: text is for sets in the hub's layout, not for {name!r}")
        mine = FIELDS[name].split() if name in FIELDS else None
        found = [t for module, t in docstrings() if mine is None or module in mine]
        return {
            "train": [t for t in found if not held_out(t)],
            "test": [t for t in found if held_out(t)],
        }
    found, said = read_texts(name, "plain_text"), f"plain_text: {name!r}"
    column = pick_text(found["train"].features, text, said)
    held = next((split for split in ("test", "validation") if split in found), None)
    texts = {split: found[split][column][:] for split in ("train", held) if split}
    for split, rows in texts.items():
        if not rows:
            raise ValueError(f"{said}: the {split} split is empty")
        check_texts(rows, column, split, said, blank=True)
    train = texts["train"]
    if held is not None:
        return {"train": train, "test": texts[held]}
    if len(train) < 2:
        raise ValueError(f"{said} must hold at least two texts, one to keep for testing, got one")
    cut = len(train) * 9 // 10  # one file, such as tiny Shakespeare: its last tenth, by convention
    return {"train": train[:cut], "test": train[cut:]}


def small_texts(
    name: str | os.PathLike = "docstrings", count: int = 8, text: str | None = None
) -> dict[str, dict[str, list[str]]]:
    """Small texts, by field or by part of a set: {name: {"train": [str], "test": [str]}}.

    "docstrings": the fields of FIELDS, each with test texts of its own. Others: every count-th
    training text, with one test set. The unit of lessons 09 and 11. text and errors as in
    `plain_text`.

    >>> list(small_texts())[:3]
    ['windows', 'mail', 'web']
    """
    most = len(FIELDS) if name == "docstrings" else float("inf")
    if not isinstance(count, int) or not 1 <= count <= most:
        raise ValueError(f"small_texts: count must be a whole number in [1, {most}], got {count!r}")
    found = plain_text(name, text)
    if name == "docstrings":
        return {field: plain_text(field) for field in list(FIELDS)[:count]}
    if count > len(found["train"]):
        raise ValueError(
            "small_texts: count must be at most the number of training texts, "
            f"{len(found['train'])}, got {count}"
        )
    return {
        f"part {i}": {"train": found["train"][i::count], "test": found["test"]}
        for i in range(count)
    }
