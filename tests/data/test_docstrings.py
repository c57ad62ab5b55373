"""Docstrings: read from sources and never run, once each, held out for good."""

import hashlib

import pytest

from kdlab.data.docstrings import FIELDS, docstrings, held_out


def test_docstrings_come_from_modules_classes_functions_and_coroutines_without_running_them(
    library, tmp_path
):
    ran = tmp_path / "ran"
    library(
        "email/utils.py",
        f'''"""  Utilities for the mail package.  """
open({str(ran)!r}, "w").close()
raise SystemExit
class Box:
    """A box that holds letters."""
    def open(self):
        """Opens the lid
            of the box.

        Indented alike."""
    async def send(self):
        """Sends one letter, some time."""
    "A string that documents nothing at all."
def short():
    """Only three words."""
''',
    )
    found = library.read()
    assert not ran.exists()
    assert [module for module, _ in found] == ["email"] * 4
    assert {t for _, t in found} == {
        "Utilities for the mail package.",
        "A box that holds letters.",
        "Opens the lid\n    of the box.\n\nIndented alike.",
        "Sends one letter, some time.",
    }


def test_docstrings_are_read_once_each_in_the_order_of_the_paths(library):
    library(
        "zebra.py",
        '"""Said twice, first by abc."""\ndef f():\n    """Only the zebra says this."""\n',
    )
    library("abc.py", '"""Said twice, first by abc."""\n')
    library("email/a.py", '"""Said in a package of mail."""')
    assert library.read() == [
        ("abc", "Said twice, first by abc."),
        ("email", "Said in a package of mail."),
        ("zebra", "Only the zebra says this."),
    ]


def test_what_is_no_python_and_what_is_no_library_is_left_out(library):
    library("good.py", '"""The only text that counts."""')
    library("template.py", '"""No Python at all here."""\n{{ def }}')
    library("latin.py", b'"""Written in Latin 1: caf\xe9."""')
    library("null.py", b'"""Holds a null byte here."""\n\0')
    library("notes.txt", '"""Not a source file either."""')
    for folder in ("test", "site-packages", "unittest/test", "idlelib", "encodings"):
        library(f"{folder}/some.py", f'"""A text that lies in {folder}."""')
    library("gone.py/inside.py", '"""Inside a folder called gone."""')
    assert [t for _, t in library.read()] == [
        "Inside a folder called gone.",
        "The only text that counts.",
    ]


def test_this_library_has_every_field_and_no_text_twice():
    found = docstrings()
    assert docstrings() is found  # read once
    assert len({t for _, t in found}) == len(found) > 3000
    known = dict.fromkeys(m for m, _ in found)
    assert not {"test", "site-packages", "idlelib", "pydoc_data"} & set(known)
    for field, modules in FIELDS.items():
        assert sum(m in modules.split() for m, _ in found) > 100, field
    modules = [m for field in FIELDS.values() for m in field.split()]
    assert len(modules) == len(set(modules))  # a module is of one field


@pytest.mark.parametrize(
    "words, digest, expected",
    [  # published SHA-256 digests; a multiple of 5 is held out
        ("", "e3b0c442", False),
        ("abc", "ba7816bf", False),
        ("hello world", "b94d27b9", True),
        ("The quick brown fox jumps over the lazy dog", "d7a8fbb3", True),
        ("The quick brown fox jumps over the lazy dog.", "ef537f25", False),
    ],
)
def test_what_is_held_out_never_changes(words, digest, expected):
    assert held_out(words) is expected is (int(digest[:2], 16) % 5 == 0)
    assert hashlib.sha256(words.encode()).hexdigest().startswith(digest)
