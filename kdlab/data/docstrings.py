"""The docstrings of this Python's standard library, by field: text that every reader has."""

import ast
import gc
import hashlib
import os
import sysconfig
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from kdlab.data.docstring_cache import kept

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
    return kept(root, [Path(__file__), *paths], lambda: parsed(root, paths))


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
