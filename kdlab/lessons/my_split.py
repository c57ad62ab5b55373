"""A student's own data in a homework: a seed out of an id."""

import hashlib
import unicodedata

from kdlab.base import plain_arguments as arguments

LONGEST = 100  # characters of an id
SPLITS, STEP = 9_000, 100  # so many different ones, so far apart that a homework may count up


def my_split(student: str, default: int = 0) -> int:
    """The seed of a student's own data: the same for an id everywhere and always, a whole number.

    student: an id of at most 100 characters; capitals and spaces at its ends don't matter. Where it
    is empty, the seed is `default`, and a line says so. default: a homework's own seed, at least 0;
    another one draws other data for every student.

    >>> my_split("ada 4711"), my_split(" Ada 4711 "), my_split("bob 4712")
    (262900, 262900, 502400)
    >>> my_split("", default=7)
    No id: the data of everybody, seed 7.
    7
    """
    known = as_known(student)
    arguments.whole("my_split", "default", default)
    if not known:
        print(f"No id: the data of everybody, seed {default}.")
        return default
    found = hashlib.sha256(f"{default}/{known}".encode()).digest()
    return STEP * (1_000 + int.from_bytes(found[:8], "big") % SPLITS)


def as_known(student: str) -> str:
    """An id as it is compared: without capitals and outer spaces, accents in one form.

    >>> as_known(" Ada ")
    'ada'
    """
    arguments.instance("my_split", "student", student, str, "a string, your id")
    if len(student) > LONGEST:
        raise ValueError(
            f"my_split: student must be at most {LONGEST} characters, got {len(student)}"
        )
    return unicodedata.normalize("NFC", student).strip().casefold()
