"""Did I get it right: instant checks, hints in steps, a solution to reveal."""

import dis
import html
import importlib
import pkgutil
import random
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch

from kdlab.base.arguments import one_of, whole
from kdlab.lessons import exercises
from kdlab.show.cards import Card


class NotAttemptedError(Exception):
    """Raised inside a test where the learner's function still returns the dots it came with."""


class NothingReturnedError(Exception):
    """Raised inside a test where the learner's function does something and returns nothing."""


def _only_dots(function):
    """Whether nothing but dots, a docstring or pass stands in the function.

    >>> _only_dots(lambda x: ...), _only_dots(lambda x: x.sort())
    (True, False)
    """
    code = getattr(function, "__code__", None)
    idle = {"RESUME", "NOP", "LOAD_CONST", "POP_TOP", "RETURN_VALUE", "RETURN_CONST"}
    return code is not None and {step.opname for step in dis.get_instructions(code)} <= idle


def _fold(summary, body):
    return f"<details><summary>{html.escape(summary)}</summary>{body}</details>"


def lessons() -> list[ModuleType]:
    """The files in kdlab/lessons/exercises, in the lessons' order.

    >>> lessons()[0].__name__
    'kdlab.lessons.exercises.lesson00'
    """
    names = sorted(module.name for module in pkgutil.iter_modules(exercises.__path__))
    return [importlib.import_module(f"{exercises.__name__}.{name}") for name in names]


def exercise(name, asker="check"):
    """The exercise "LL.n", for example "04.2" in lesson 04.

    >>> exercise("04.1").name
    '04.1'
    """
    known = {e.name: e for lesson in lessons() for e in lesson.EXERCISES}
    return known[one_of(asker, "name", name, sorted(known))]


@contextmanager
def untouched() -> Iterator[None]:
    """What holds for the whole lesson stays as it was, whatever is done inside.

    The random numbers of torch, numpy and Python, torch's default dtype, and gradients on or off.

    >>> with untouched():
    ...     torch.set_default_dtype(torch.float64)
    >>> torch.get_default_dtype()
    torch.float32
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    python, numbers, dtype = random.getstate(), np.random.get_state(), torch.get_default_dtype()
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
        torch.set_default_dtype(dtype)


def judge(name, attempt):
    """(state, sentence) for an attempt; state is "not attempted", "not yet" or "right"."""
    found = exercise(name)
    if attempt is None or attempt is ...:
        return "not attempted", "replace the dots, then run the cell again"
    if callable(found.solution) and not callable(attempt):
        return "not yet", f"a function is wanted, got {type(attempt).__name__}"

    def watched(*args, **kwargs):
        result = attempt(*args, **kwargs)
        if result is ... or (result is None and _only_dots(attempt)):
            raise NotAttemptedError
        if result is None:
            raise NothingReturnedError
        return result

    try:
        with untouched():
            wrong = found.test(watched if callable(attempt) else attempt)
    except NotAttemptedError:
        return "not attempted", "replace the dots, then run the cell again"
    except NothingReturnedError:
        return "not yet", "your function gives back None: it lacks a return"
    except Exception as error:
        said = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" …")
        return "not yet", f"your code stopped with {said.rstrip(': ')}"
    return ("not yet", wrong) if wrong else ("right", "well done")


def check(name: str, attempt: Any) -> Any:
    """Check an attempt at once and say what to look at; hints and the solution are folded below.

    An untouched exercise (the dots, or a function that returns them) says "not attempted"; nothing
    raises.

    >>> check("04.1", ...)
    Exercise 04.1: not attempted (replace the dots, then run the cell again).
    Stuck? kd.hint("04.1", 1)
    """
    found = exercise(name)
    state, sentence = judge(name, attempt)
    mark = {"right": "✓", "not yet": "✗", "not attempted": "○"}[state]
    folds = "".join(
        _fold(f"Hint {i}", f"<p>{html.escape(h)}</p>") for i, h in enumerate(found.hints, start=1)
    )
    folds += _fold("Solution", f"<pre>{html.escape(found.source)}</pre>")
    stuck = "" if state == "right" else f' Stuck? kd.hint("{name}", 1)'
    markup = f"<p>{mark} <b>Exercise {name}: {state}</b> ({html.escape(sentence)})</p>{folds}"
    return Card(f"Exercise {name}: {state} ({sentence}).{stuck}", markup)


def hint(name: str, step: int | None = 1) -> Any:
    """Print hint number `step` of an exercise; after the last one comes its solution.

    >>> hint("04.1", 1)
    Hint 1 of ...
    """
    found, step = exercise(name, "hint"), whole("hint", "step", step, least=1)
    if step <= len(found.hints):
        print(f"Hint {step} of {len(found.hints)}: {found.hints[step - 1]}")
    else:
        print(f"That was the last hint. The solution:\n\n{found.source}")
