"""Text to learn from: the standard library's docstrings, by field, or any set, by name."""

import ast
import gc
import hashlib
import json
import os
import sys
import sysconfig
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdlab.base import arguments
from kdlab.base.places import cache_folder
from kdlab.base.writing import beside
from kdlab.data.columns import (
    class_labels,
    labels_hidden,
    pick_column,
    pick_label,
    read_set,
    rows_of,
)

# parts of the library that people know apart; modules that a Python does not have are simply absent
FIELDS = {
    "windows": "tkinter turtle curses",
    "mail": "email mailbox imaplib poplib smtplib mimetypes quopri mailcap",
    "web": (
        "http urllib wsgiref xmlrpc socketserver html ssl ftplib cgi webbrowser telnetlib nntplib"
        " socket"
    ),
    "concurrency": (
        "asyncio multiprocessing threading concurrent queue selectors subprocess sched"
        " _threading_local"
    ),
    "numbers": (
        "_pydecimal fractions statistics numbers random datetime _pydatetime _strptime calendar"
        " colorsys ipaddress zoneinfo"
    ),
    "files": (
        "tarfile zipfile pathlib shutil tempfile _pyio os posixpath ntpath genericpath glob fnmatch"
        " gzip bz2 lzma fileinput filecmp shelve dbm pickle netrc configparser csv plistlib"
        " _compression"
    ),
    "testing": (
        "unittest doctest pdb bdb traceback trace cProfile profile pstats timeit warnings logging"
        " faulthandler"
    ),
    "code": (
        "inspect importlib ast dis tokenize symtable typing pydoc pkgutil zipimport zipapp runpy"
        " modulefinder pickletools codeop code abc types dataclasses enum functools"
    ),
}
# not the library itself, or gone from newer Pythons
LEFT_OUT = {
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "idlelib",
    "lib2to3",
    "distutils",
    "turtledemo",
    "encodings",
    "pydoc_data",
}
HELD_OUT = 5  # one docstring in five is test text, which nothing in data/teachers has seen


@cache
def docstrings() -> list:
    """Every docstring of this Python's standard library: [(top module, text)].

    Each text comes once, in a fixed order. Read from the sources, none of which is imported, and
    kept in kdlab's cache folder until one of them changes: to parse them takes seconds. Tests and
    add-on packages are left out.

    >>> found = docstrings()
    >>> len(found) > 3000, dict(found[::-1])["fractions"].split()[0]
    (True, 'Fraction,')
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = _sources(root)
    place = None
    with suppress(OSError, RuntimeError):  # RuntimeError: a user without a home
        key = _key(root, paths)
        place = cache_folder() / f"docstrings-{_digest(os.fsencode(root))[:16].decode()}.json"
        kept = place.read_bytes().split(b"\n", 2)
        if kept[:2] == [key, _digest(*kept[2:])]:
            return [(module, text) for module, text in json.loads(kept[2])]
    found = parsed(root, paths)
    with suppress(OSError):  # a disk that takes nothing: parsed anew the next time
        if place:
            text = json.dumps(found).encode()
            place.parent.mkdir(parents=True, exist_ok=True)
            with beside(place) as new:
                new.write_bytes(b"\n".join([key, _digest(text), text]))
    return found


def _sources(root):
    found = []
    for folder, inside, files in os.walk(root):
        inside[:] = set(inside) - LEFT_OUT  # add-on packages may be many times the library
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return sorted(found)


def parsed(root: Path, paths: Iterable[Path]) -> list[tuple[str, str]]:
    """The docstrings of files below root, each once: [(module, text)]."""
    found: dict[str, str] = {}
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    with trees_kept():
        for path in paths:
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, ValueError, OSError):
                continue  # a file that is no Python, such as a template
            nodes = (node for node in _statements(tree) if isinstance(node, kinds))
            for text in map(ast.get_docstring, nodes):
                if text and len(text.split()) >= 4:
                    module = path.relative_to(root).parts[0].removesuffix(".py")
                    found.setdefault(text.strip(), module)
    return [(module, text) for text, module in found.items()]


def _key(root, paths):
    """What is another one for another Python, and where a source or this file has changed."""
    files = [Path(__file__), *paths]
    stats = [f"{path} {at.st_size} {at.st_mtime_ns}" for path in files for at in [path.stat()]]
    return _digest("\n".join([sys.version, *stats]).encode("utf-8", "surrogateescape"))


def _digest(*parts):
    return hashlib.sha256(b"\n".join(parts)).hexdigest().encode()


@contextmanager
def trees_kept() -> Iterator[None]:
    """No garbage is collected while source code is parsed.

    A syntax tree is many objects without a cycle: to look through them again and again takes longer
    than to parse.

    >>> with trees_kept():
    ...     gc.isenabled()
    False
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _statements(tree):
    """As ast.walk, in the same order, without the expressions: most of the nodes, and no text."""
    waiting = deque([tree])
    while waiting:
        node = waiting.popleft()
        for part in ("body", "handlers", "orelse", "finalbody", "cases"):
            waiting.extend(getattr(node, part, ()))
        yield node


def held_out(text: str) -> bool:
    """True for the share of texts that is test text, by their hash: the same on every Python.

    >>> sum(held_out(str(i)) for i in range(1000))
    194
    """
    return hashlib.sha256(text.encode()).digest()[0] % HELD_OUT == 0


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
    asks which field of the standard library a docstring comes from, of eight (FIELDS); its test
    texts are those of `held_out`. A set in the hub's layout must have one text and one label column
    (a ClassLabel, or whole numbers where there is none), whatever their names, or those that `text`
    and `label` name; a published test split (or, where its labels are hidden, validation split) is
    the test pool of every seed. Looks where `load` looks. Classes are those of a ClassLabel; of
    whole numbers or text, the values that occur, sorted.

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
    found, said = _read(name, "plain_text"), f"plain_text: {name!r}"
    column = _text_column(found["train"].features, text, said)
    held = next((split for split in ("test", "validation") if split in found), None)
    texts = {split: found[split][column][:] for split in ("train", held) if split}
    for split, rows in texts.items():
        if not rows:
            raise ValueError(f"{said}: the {split} split is empty")
        _all_there(rows, column, split, said, blank=True)
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


def windows(tokenizer: Any, texts: Sequence[str], length: int = 128) -> Tensor:
    """Texts as rows of ids without padding, as language models are trained: [str] → (N, length).

    What fills no row at the end is left out. Each text begins with the tokenizer's
    beginning-of-text token, which so ends the one before.
    Raises TypeError for a single text, ValueError where the texts don't fill one window.

    >>> from kdlab.students.pretrained import language_model
    >>> windows(language_model("docs_lm")[1], ["Return the sum."] * 9, length=16).shape
    torch.Size([3, 16])
    """
    if isinstance(texts, str):
        raise TypeError(f"windows: texts must be a list of texts, got one: {texts[:20]!r}")
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"windows: length must be a whole number of at least 1, got {length!r}")
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    # not verbose: a text longer than the model reads is cut below, and no reason for a warning
    how = {"add_special_tokens": False, "verbose": False}
    rows = tokenizer(list(texts), **how)["input_ids"] if len(texts) else []
    found = [i for ids in rows for i in [*start, *ids]]
    if len(found) < length:
        raise ValueError(f"windows: texts must hold at least {length} tokens, got {len(found)}")
    return torch.tensor(found[: len(found) // length * length]).view(-1, length)


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

    found, said = _read(name, "load_text"), f"load_text: {name!r}"
    features = found["train"].features
    columns = [_text_column(features, k, said, besides=label) for k in _one_or_two(text)]
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
            _all_there(table[old][:], old, split, said)
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


def _text_column(features, text, said, besides=None):
    strings = ("string", "large_string")
    usable = [k for k, f in features.items() if getattr(f, "dtype", "") in strings]
    return pick_column(features, text, "text", usable, [k for k in usable if k != besides], said)


def _all_there(texts, column, split, said, blank=False):
    """An error that names the rows without a text; blank: a text of no letters counts as one."""
    missing = [i for i, t in enumerate(texts) if t is None or not (blank or t.strip())]
    if missing:
        raise ValueError(f"{said}: column {column!r} has no text in {rows_of(missing, split)}")


def _read(name, caller):
    found, _ = read_set(name, caller, "text", "docstrings")
    if "train" not in found:
        raise ValueError(f"{caller}: {str(name)!r} must have a train split, got {list(found)}")
    return found
