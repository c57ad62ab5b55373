"""Docstrings kept on disk until a source changes: to parse a whole library takes seconds."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from kdlab.base.places import cache_folder
from kdlab.base.writing import beside


def kept(
    root: Path, sources: Sequence[Path], make: Callable[[], list[tuple[str, str]]]
) -> list[tuple[str, str]]:
    """make() → [(module, text)], or what it once gave for the same sources and the same Python.

    root: the library's folder, one file each in kdlab's cache folder. sources: all that the texts
    are made of, the code that makes them too. A file that is damaged is made anew; where nothing
    can be kept, they are made each time.
    """
    place = None
    with suppress(OSError, RuntimeError):  # RuntimeError: a user without a home
        key = _key(sources)
        place = cache_folder() / f"docstrings-{_digest(os.fsencode(root))[:16].decode()}.json"
        told = place.read_bytes().split(b"\n", 2)
        if told[:2] == [key, _digest(*told[2:])]:
            return [(module, text) for module, text in json.loads(told[2])]
    found = make()
    with suppress(OSError):  # a disk that takes nothing: made anew the next time
        if place:
            text = json.dumps(found).encode()
            place.parent.mkdir(parents=True, exist_ok=True)
            with beside(place) as new:
                new.write_bytes(b"\n".join([key, _digest(text), text]))
    return found


def _key(sources):
    """What is another one for another Python, and where a source or this file has changed."""
    files = [Path(__file__), *sources]
    stats = [f"{path} {at.st_size} {at.st_mtime_ns}" for path in files for at in [path.stat()]]
    return _digest("\n".join([sys.version, *stats]).encode("utf-8", "surrogateescape"))


def _digest(*parts):
    return hashlib.sha256(b"\n".join(parts)).hexdigest().encode()
