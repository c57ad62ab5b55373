"""Text to learn from: the standard library's own docstrings, by field; or any set of texts, by name."""

import ast
import hashlib
import sysconfig
from functools import cache
from pathlib import Path

import torch

from .lab import HUB_IDS, hub_reachable, locate

# parts of the library that people know apart; modules that a Python does not have are simply absent
FIELDS = {
    "windows": "tkinter turtle curses",
    "mail": "email mailbox imaplib poplib smtplib mimetypes quopri mailcap",
    "web": "http urllib wsgiref xmlrpc socketserver html ssl ftplib cgi webbrowser telnetlib nntplib socket",
    "concurrency": "asyncio multiprocessing threading concurrent queue selectors subprocess sched _threading_local",
    "numbers": "_pydecimal fractions statistics numbers random datetime _pydatetime _strptime calendar colorsys "
               "ipaddress zoneinfo",
    "files": "tarfile zipfile pathlib shutil tempfile _pyio os posixpath ntpath genericpath glob fnmatch gzip bz2 lzma "
             "fileinput filecmp shelve dbm pickle netrc configparser csv plistlib _compression",
    "testing": "unittest doctest pdb bdb traceback trace cProfile profile pstats timeit warnings logging faulthandler",
    "code": "inspect importlib ast dis tokenize symtable typing pydoc pkgutil zipimport zipapp runpy modulefinder "
            "pickletools codeop code abc types dataclasses enum functools",
}
# not the library itself, or gone from newer Pythons
LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "distutils", "turtledemo",
            "encodings", "pydoc_data"}
HELD_OUT = 5  # one docstring in five is test text, which nothing in data/teachers has seen


@cache
def docstrings():
    """Every docstring of this Python's standard library: [(top module, text)], each text once, in a fixed order.

    Read from the sources, none of which is imported. Tests and add-on packages are left out.

    >>> found = docstrings()
    >>> len(found) > 3000, dict(found[::-1])["fractions"].split()[0]
    (True, 'Fraction,')
    """
    root, found = Path(sysconfig.get_paths()["stdlib"]), {}
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if LEFT_OUT & set(parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError):
            continue  # a file that is no Python, such as a template
        for text in (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)):
            if text and len(text.split()) >= 4:
                found.setdefault(text.strip(), parts[0].removesuffix(".py"))
    return [(module, text) for text, module in found.items()]


def held_out(text):
    """True for the share of texts that is test text, by a hash of the text: the same on every Python.

    >>> sum(held_out(str(i)) for i in range(1000))
    194
    """
    return hashlib.sha256(text.encode()).digest()[0] % HELD_OUT == 0


def load_text(name="docstrings", seed=0, sizes=(1000, 300, 800)):
    """A text-classification set, split: "docstrings" (embedded), a directory or a hub id → `datasets.DatasetDict`.

    Splits train, validation and test with the columns text and label (a ClassLabel). "docstrings" asks which
    field of the standard library a docstring comes from, of eight (FIELDS); its test texts are those of `held_out`.
    A set in the hub's layout must have one text and one label column (a ClassLabel, or whole numbers from 0 where there
    is none), whatever their names; a published test split (or, where its labels are hidden, validation split) is the
    test pool of every seed. Looks where `load` looks.
    sizes: how many texts of each split, drawn by `seed`, the test texts the same for every seed.
    Raises ValueError for a seed or sizes that can't be met and for a set without such columns or splits,
    FileNotFoundError, listing every place tried, for an unknown name.

    >>> texts = load_text(sizes=(100, 20, 50))
    >>> [len(texts[k]) for k in ("train", "validation", "test")], texts["train"].features["label"].names[:2]
    ([100, 20, 50], ['windows', 'mail'])
    """
    import datasets

    datasets.disable_progress_bars()  # what is done here, and with so few texts, takes a moment
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"load_text: seed must be an integer of at least 0, got {seed!r}")
    rows, test = _fields() if name == "docstrings" else _text_set(name)
    whole = isinstance(sizes, (tuple, list)) and [isinstance(n, int) for n in sizes] == [True] * 3
    if not whole or min(sizes[0], sizes[1] + 1, sizes[2]) < 1 or sum(sizes[:2]) > len(rows) or sizes[2] > len(test):
        raise ValueError(f"load_text: sizes must be three counts, at most {len(rows)} for train and validation "
                         f"together and {len(test)} for test (only validation may be 0), got {sizes!r}")
    mixed = rows.shuffle(seed=seed)
    return datasets.DatasetDict({"train": mixed.select(range(sizes[0])),
                                 "validation": mixed.select(range(sizes[0], sizes[0] + sizes[1])),
                                 "test": test.shuffle(seed=0).select(range(sizes[2]))})


def plain_text(name="docstrings"):
    """Texts without labels, for language models: {"train": [str], "test": [str]}.

    name: "docstrings", one field of them (FIELDS), a directory or a hub id. Errors as in `load_text`.

    >>> {k: len(v) > 100 for k, v in plain_text("web").items()}
    {'train': True, 'test': True}
    """
    if name == "docstrings" or name in FIELDS:
        mine = FIELDS[name].split() if name in FIELDS else None
        found = [text for module, text in docstrings() if mine is None or module in mine]
        return {"train": [t for t in found if not held_out(t)], "test": [t for t in found if held_out(t)]}
    found = _read(name, "plain_text")
    column = _column(found, "string", name, "plain_text")
    test = found.get("test", found.get("validation"))
    train = list(found["train"][column])
    if test is None:  # one file, such as tiny Shakespeare: its last tenth, by convention
        cut = len(train) * 9 // 10
        return {"train": train[:cut], "test": train[cut:]}
    return {"train": train, "test": list(test[column])}


def small_texts(name="docstrings", count=8):
    """Small texts, one a field or `count` parts of another set: {name: {"train": [str], "test": [str]}}.

    "docstrings": the fields of FIELDS, each with test texts of its own. Others: every count-th training text, with
    one test set. The unit of lessons 07 and 08. Errors as in `load_text`.

    >>> list(small_texts())[:3]
    ['windows', 'mail', 'web']
    """
    most = len(FIELDS) if name == "docstrings" else float("inf")
    if not isinstance(count, int) or not 1 <= count <= most:
        raise ValueError(f"small_texts: count must be a whole number in [1, {most}], got {count!r}")
    if name == "docstrings":
        return {field: plain_text(field) for field in list(FIELDS)[:count]}
    found = plain_text(name)
    return {f"part {i}": {"train": found["train"][i::count], "test": found["test"]} for i in range(count)}


def windows(tokenizer, texts, length=128):
    """Texts as rows of ids without padding, as language models are trained: [str] → (N, length), the rest left out.

    Each text begins with the tokenizer's beginning-of-text token, which so ends the one before. Raises TypeError for
    a single text, ValueError where the texts don't fill one window.

    >>> from kdlab.models import language_model
    >>> windows(language_model("docs_lm")[1], ["Return the sum."] * 9, length=16).shape
    torch.Size([3, 16])
    """
    if isinstance(texts, str):
        raise TypeError(f"windows: texts must be a list of texts, got one: {texts[:20]!r}")
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"windows: length must be a whole number of at least 1, got {length!r}")
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
    found = [i for ids in rows for i in [*start, *ids]]
    if len(found) < length:
        raise ValueError(f"windows: texts must hold at least {length} tokens, got {len(found)}")
    return torch.tensor(found[: len(found) // length * length]).view(-1, length)


def _fields():
    import datasets

    field = {module: i for i, modules in enumerate(FIELDS.values()) for module in modules.split()}
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=list(FIELDS)))
    known = [(text, field[module]) for module, text in docstrings() if module in field]
    return [datasets.Dataset.from_dict({"text": [t for t, _ in part], "label": [y for _, y in part]}, features)
            for part in ([r for r in known if not held_out(r[0])], [r for r in known if held_out(r[0])])]


def _text_set(name):
    import datasets

    found = _read(name, "load_text")
    text = _column(found, "string", name, "load_text")
    label = _column(found, "label", name, "load_text")
    test = found.get("test")
    if test is None or min(test[label]) < 0:  # the hub hides test labels as −1
        test = found.get("validation")
    if test is None:
        raise ValueError(f"load_text: {name!r} must have a test or validation split with labels, got {list(found)}")
    names = {old: new for old, new in ((text, "text"), (label, "label")) if old != new}
    parts = [part.select_columns([text, label]).rename_columns(names) for part in (found["train"], test)]
    if getattr(parts[0].features["label"], "names", None) is None:
        classes = datasets.ClassLabel(names=[str(c) for c in range(max(max(part["label"]) for part in parts) + 1)])
        parts = [part.cast_column("label", classes) for part in parts]
    return parts


def _column(found, kind, name, caller):
    import datasets

    features = found["train"].features
    if kind == "label":
        columns = [k for k, f in features.items() if isinstance(f, datasets.ClassLabel)]
        columns = columns or [k for k, f in features.items() if getattr(f, "dtype", "").startswith("int")]
    else:
        columns = [k for k, f in features.items() if getattr(f, "dtype", "") in ("string", "large_string")]
    if len(columns) != 1:
        raise ValueError(f"{caller}: {name!r} must have one {kind} column, got {dict(features)}")
    return columns[0]


def _read(name, caller):
    """Any set in the hub's layout, with `datasets`."""
    where, tried = locate(str(name))
    if where is None and not hub_reachable():
        raise FileNotFoundError(f"{caller}: can't find the text {str(name)!r}. Looked at: {'; '.join(tried)}; the hub "
                                "(not reachable). Set KDLAB_DATA to a directory that holds it, connect once to fill "
                                "the cache, or use the embedded 'docstrings'.")
    import datasets

    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(str(where or HUB_IDS.get(name, str(name))))
    except Exception as error:
        raise FileNotFoundError(f"{caller}: {str(name)!r} was found at {where or 'the hub'} but can't be read as a "
                                f"data set in the hub's layout: {error}") from error
    if "train" not in found:
        raise ValueError(f"{caller}: {str(name)!r} must have a train split, got {list(found)}")
    return found
