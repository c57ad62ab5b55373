"""Execute a homework's cells in this process: which of its checks fail, with an answer of the
caller's own."""

import ast
import contextlib
import copy
import functools
import hashlib
import io
import itertools
import os
import random
import re
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import torch
from filelock import FileLock

import kdlab  # noqa: F401  # the environment before a notebook's threads


def failed(path, question=None, answer=None, less=None):
    """The grade ids of the check cells that fail in the notebook at `path`, as a set.

    question: "hw1-q2" runs the setup cells and that question's cells alone; None runs every cell.
    answer: the whole code of that question's solution cell, in place of the notebook's own.
    less: {a text of the cells: what takes its place}, for what is measured more often than needed.
    A cell that raises does not stop the cells after it, as when a submission is graded.
    """
    cells = _cells(path, less or {})
    shared = tuple(
        (name(cell), re.sub(r"  # secret:.*", "", cell.source))  # which no student's notebook has
        for cell in cells
        if "-q" not in name(cell)
    )
    wanted = [cell for cell in cells if question in (None, question_of(cell))]
    if not any("-q" in name(cell) for cell in wanted):
        raise ValueError(f"failed: question must be one of {Path(path).stem}'s, got {question!r}")
    given = tuple(itertools.takewhile(_no_answer_needed, wanted)) if question else ()
    namespace, state = _given(
        Path(path).stem, shared, tuple((name(cell), cell.source) for cell in given)
    )
    namespace, wrong = _own_copy(namespace), {}
    _restore(state)
    for cell in wanted[len(given) :]:
        if name(cell) and "-q" not in name(cell):
            continue
        replaced = answer is not None and name(cell) == question
        error = _execute(answer if replaced else cell.source, namespace, name(cell))
        if error is not None and cell.metadata.nbgrader.get("grade"):
            wrong[name(cell)] = error
    failed.errors = wrong  # what each said, for a test's own message
    return set(wrong)


def kept(key, make, *arguments, anew=False):
    """The model that make(*arguments) trains, once for all answers and processes of a test run.

    anew: trains it whether or not it is there. The random state is then that after the training.
    """
    label = hashlib.sha256(repr(key).encode()).hexdigest()
    file = Path(os.environ["KDLAB_BUILT"]) / f"{label}.pt"
    with FileLock(f"{file}.lock"):
        if anew or not file.exists():
            model = make(*arguments)
            torch.save((model, torch.get_rng_state()), f"{file}.part")
            os.replace(f"{file}.part", file)
            return model
        model, state = torch.load(file, weights_only=False)
    torch.set_rng_state(state)
    return model


def name(cell):
    """A cell's grade id, or ""."""
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def question_of(cell):
    """The question that a cell belongs to, such as "hw1-q2", or None."""
    found = re.match(r"hw\d+-q\d+(?=-|$)", name(cell))
    return found and found[0]


def _cells(path, less):
    found = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for cell in found:
        for usual, shorter in less.items():
            cell.source = cell.source.replace(usual, shorter)
    return found


@functools.cache
def _setup(homework, cells):
    """What the setup cells leave: the same for the instructor's notebook and the students'."""
    namespace = {"__name__": "__main__"}
    for label, source in cells:
        error = _execute(source, namespace, label)
        if error is not None:
            raise RuntimeError(f"{homework}: the setup cell {label} fails") from error
    return namespace, _state()


@functools.cache
def _given(homework, setup, cells):
    """What a question's first cells leave after the setup: the same for each answer to it."""
    namespace, state = _setup(homework, setup)
    if cells:
        namespace = _own_copy(namespace)
        _restore(state)
        for label, source in cells:
            _execute(source, namespace, label)
        state = _state()
    return namespace, state


def _no_answer_needed(cell):
    """Whether a cell comes before the answer and defines nothing that would look for it later: a
    function's names stay those of the namespace where it was defined."""
    marks, looks = cell.metadata.nbgrader, (ast.FunctionDef, ast.ClassDef, ast.Lambda)
    return not (
        marks.get("solution")
        or marks.get("grade")
        or any(isinstance(node, looks) for node in ast.walk(ast.parse(cell.source)))
    )


def _state():
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _restore(state):
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])


def _own_copy(namespace):
    """A copy that an answer may spoil: only modules, and what cannot be copied, are shared."""
    memo, copied = (
        {id(value): value for value in namespace.values() if isinstance(value, ModuleType)},
        {},
    )
    for key, value in namespace.items():
        try:
            copied[key] = value if key == "__builtins__" else copy.deepcopy(value, memo)
        except Exception:
            copied[key] = value
    return copied


def _execute(source, namespace, label):
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(source, f"<{label}>", "exec"), namespace)
    except (Exception, SystemExit) as error:
        return error
