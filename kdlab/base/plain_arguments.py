"""Arguments that are numbers, words and paths, checked without torch, which takes seconds to load.

The rest, and how every message reads, stands in kdlab/base/arguments.py, which offers these too."""

import math
import numbers
import os


def whole(name, key, value, least=0, most=math.inf):
    """A whole number in [least, most]; ValueError for anything else, also for True and 2.0.

    >>> whole("splits", "count", 3, least=1)
    3
    >>> whole("splits", "count", 0, least=1)
    Traceback (most recent call last):
    ValueError: splits: count must be a whole number of at least 1, got 0
    """
    right = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not right or not least <= value <= most:
        room = f"in [{least}, {most}]" if most < math.inf else f"of at least {least}"
        raise ValueError(f"{name}: {key} must be a whole number {room}, got {value!r}")
    return int(value)


def number(name, key, value, low=-math.inf, high=math.inf, above=None, below=None):
    """A finite number in [low, high], or greater than `above` and less than `below`; ValueError.

    >>> number("EMA", "decay", 0.5, low=0, below=1)
    0.5
    >>> number("KDLoss", "temperature", "4", above=0)
    Traceback (most recent call last):
    ValueError: KDLoss: temperature must be a finite number above 0, got '4'
    """
    right = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    right = right and low <= value <= high and (above is None or value > above)
    if not right or not (below is None or value < below):
        bounds = [
            (f"at least {low}", low > -math.inf),
            (f"above {above}", above is not None),
            (f"at most {high}", high < math.inf),
            (f"below {below}", below is not None),
        ]
        room = " and ".join(words for words, given in bounds if given)
        raise ValueError(
            f"{name}: {key} must be a finite number {room}".rstrip() + f", got {value!r}"
        )
    return value


def share(name, key, value):
    """A number in [0, 1]; ValueError.

    >>> share("KDLoss", "alpha", 0.9)
    0.9
    """
    right = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not right or not 0 <= value <= 1:
        raise ValueError(f"{name}: {key} must be a number in [0, 1], got {value!r}")
    return value


def one_of(name, key, value, options):
    """One of the listed options, hashable or not; ValueError that lists them.

    >>> one_of("sweep", "on", "test", ["train", "transfer"])
    Traceback (most recent call last):
    ValueError: sweep: on must be one of ['train', 'transfer'], got 'test'
    """
    options = list(options)
    if not any(type(value) is type(option) and value == option for option in options):
        raise ValueError(f"{name}: {key} must be one of {options}, got {value!r}")
    return value


def text(name, key, value):
    """A string that says something; TypeError or ValueError.

    >>> text("claim", "sentence", "soft targets help")
    'soft targets help'
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}: {key} must be a string, got {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{name}: {key} must not be empty")
    return value


def place(name, key, value):
    """A name or a path, not empty, as a string; TypeError or ValueError.

    >>> place("load", "name", "digits")
    'digits'
    >>> place("load", "name", 3)
    Traceback (most recent call last):
    TypeError: load: name must be a text or a path, got int
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name}: {key} must be a text or a path, got {type(value).__name__}")
    if not str(value).strip() or "\0" in str(value):
        raise ValueError(f"{name}: {key} must name something, got {str(value)!r}")
    return str(value)


def instance(name, key, value, kind, words=None):
    """A value of this type (or one of these); TypeError. words: how the type is called.

    >>> instance("minus", "other", 3, dict, "a dictionary")
    Traceback (most recent call last):
    TypeError: minus: other must be a dictionary, got int
    """
    if not isinstance(value, kind):
        came = type(value).__name__
        raise TypeError(f"{name}: {key} must be {words or f'a {kind.__name__}'}, got {came}")
    return value
