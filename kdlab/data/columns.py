"""The columns of a data set in the hub's layout: which holds what, and what its labels mean."""

import re

import numpy as np

from kdlab.base.places import HUB_IDS, hub_reachable, locate


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
        raise ValueError(
            f"{said} must have one {argument} column, got {likely or dict(features)}{hint}"
        )
    if not isinstance(wanted, str) or wanted not in features:
        raise ValueError(
            f"{said}: {argument} must name one of the columns {list(features)}, got {wanted!r}"
        )
    if wanted not in usable:
        raise ValueError(
            f"{said}: {argument} must name one of {usable}, "
            f"got {wanted!r}, which holds {features[wanted]!r}"
        )
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
        return [
            k
            for k, f in features.items()
            if isinstance(f, datasets.Value) and f.dtype.startswith(types)
        ]

    classes = [k for k, f in features.items() if isinstance(f, datasets.ClassLabel)]
    numbers = of("int", "uint")
    usable = classes + numbers + of("string", "large_string", "bool")
    return pick_column(features, wanted, "label", usable, classes or numbers, said)


def pick_text(features, wanted, said, besides=None):
    """A column of texts: the one named, else the only one, `besides` left out.

    >>> pick_text({}, None, "load_text: 'films'")
    Traceback (most recent call last):
    ValueError: load_text: 'films' must have one text column, got {}
    """
    strings = ("string", "large_string")
    usable = [k for k, f in features.items() if getattr(f, "dtype", "") in strings]
    return pick_column(features, wanted, "text", usable, [k for k in usable if k != besides], said)


def check_texts(texts, column, split, said, blank=False):
    """An error that names the rows without a text; blank: a text of no letters counts as one.

    >>> check_texts(["Good.", " "], "review", "train", "load_text: 'films'")
    Traceback (most recent call last):
    ValueError: load_text: 'films': column 'review' has no text in rows [1] of the train split
    """
    missing = [i for i, t in enumerate(texts) if t is None or not (blank or t.strip())]
    if missing:
        raise ValueError(f"{said}: column {column!r} has no text in {rows_of(missing, split)}")


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
            raise ValueError(
                f"{said} has hidden labels (below 0) in {rows_of(hidden, split)}; "
                "where such numbers are classes, write them as text"
            )
        if names and max(found) >= len(names):
            beyond = [i for i, v in enumerate(found) if v >= len(names)]
            raise ValueError(f"{said} has no name for the class in {rows_of(beyond, split)}")
    learnt = next(iter(values.values()))
    if names is None:
        present = sorted(set().union(*values.values()))
        if guessed and len(set(learnt)) == len(learnt):
            raise ValueError(
                f"{said} only numbers the rows, no two alike: "
                f"name the label column by label=, one of {list(features)}"
            )
    else:
        present = range(len(names))
    names = names or [str(value) for value in present]
    code = {value: i for i, value in enumerate(present)}
    if len(set(learnt)) < 2:
        raise ValueError(
            f"{said} must hold at least two classes in the {next(iter(values))} split, "
            f"got {names[code[learnt[0]]]!r} alone"
        )
    return {k: np.array([code[v] for v in found]) for k, found in values.items()}, names


def read_set(name, caller, what, spare):
    """Any set in the hub's layout, with `datasets`: (DatasetDict, "the hub" or "a directory").

    caller, what, spare: for the words of an error, who asks, for what, and what is always there.

    >>> read_set("no/such", "load", "data set", "digits")
    Traceback (most recent call last):
    FileNotFoundError: load: can't find the data set 'no/such' (name: a directory or a hub id). ...
    """
    where, tried = locate(str(name))
    if where is None and not hub_reachable():
        raise FileNotFoundError(
            f"{caller}: can't find the {what} {str(name)!r} (name: a directory or a hub id). "
            f"Looked at: {'; '.join(tried)}; the hub (not reachable). "
            f"Set KDLAB_DATA to a directory that holds {str(name)}/ in the hub's layout, "
            f"connect once to fill the cache, or use the embedded {spare!r}."
        )
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            f"{caller}: {str(name)!r} needs the package datasets: pip install datasets"
        ) from error
    if where is not None:
        datasets.disable_progress_bars()  # nothing is fetched: a directory is read within seconds
    try:
        found = datasets.load_dataset(str(where or HUB_IDS.get(name, str(name))))
    except Exception as error:
        if empty := re.search(r'Instruction "(\w+)" corresponds to no data', str(error)):
            raise ValueError(f"{caller}: {str(name)!r}: the {empty[1]} split is empty") from error
        raise FileNotFoundError(
            f"{caller}: {str(name)!r} was found at {where or 'the hub'} but can't be read "
            f"as a data set in the hub's layout: {error.__cause__ or error}"
        ) from error
    return found, "the hub" if where is None or isinstance(where, str) else "a directory"


def read_texts(name, caller):
    """A set of texts by name, as `read_set`; ValueError for one without a train split.

    >>> read_texts("no/such", "load_text")
    Traceback (most recent call last):
    FileNotFoundError: load_text: can't find the text 'no/such' (name: a directory or a hub id). ...
    """
    found, _ = read_set(name, caller, "text", "docstrings")
    if "train" not in found:
        raise ValueError(f"{caller}: {str(name)!r} must have a train split, got {list(found)}")
    return found
