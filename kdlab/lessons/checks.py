"""Did I get it right: predictions, instant checks, hints in steps, a solution to reveal."""

import html
import importlib
import pkgutil
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from kdlab.base.arguments import listed, one_of, text, whole
from kdlab.lessons import exercises

# the files in kdlab/lessons/exercises
LESSONS = tuple(sorted(module.name for module in pkgutil.iter_modules(exercises.__path__)))


class NotAttemptedError(Exception):
    """Raised inside a test where the learner's function still returns the dots it came with."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: `test(attempt)` gives "" where it is right, else what to look at, a sentence.

    solution: Python source that defines the name `attempt`. mistakes: {a word of the sentence to
    expect: source of a wrong attempt}, planted by the tests so that every check is known to catch
    something."""

    name: str
    test: Callable
    hints: tuple
    solution: str
    mistakes: dict


class Card:
    """A small HTML block that also reads well as plain text."""

    def __init__(self, text, markup):
        self.text, self.markup = text, markup

    def __repr__(self):
        return self.text

    def _repr_html_(self):
        return self.markup


def _fold(summary, body):
    return f"<details><summary>{html.escape(summary)}</summary>{body}</details>"


def predict(question: str, options: Sequence[str], answer: str, because: str) -> Any:
    """A question to answer before the experiment: options as a list, the answer folded away.

    answer: one of the options. because: a sentence or two on why.

    >>> predict("Which is larger?", ["1", "2"], "2", "It comes later.")
    Predict: Which is larger?
      (a) 1
      (b) 2
    Choose before you go on; the answer is folded below the question.
    """
    text("predict", "question", question)
    options = listed("predict", "options", options)
    if not isinstance(answer, Hashable) or answer not in options:
        raise ValueError(f"predict: answer must be one of the options {options}, got {answer!r}")
    text("predict", "because", because)
    letters = [f"({chr(97 + i)}) {o}" for i, o in enumerate(options)]
    markup = (
        f"<p><b>Predict.</b> {html.escape(question)}</p><p>"
        + "<br>".join(map(html.escape, letters))
        + "</p>"
        + _fold(
            "Answer",
            f"<p><b>{html.escape(letters[options.index(answer)])}</b>. {html.escape(because)}</p>",
        )
    )
    plain = "\n  ".join([f"Predict: {question}", *letters])
    return Card(
        f"{plain}\nChoose before you go on; the answer is folded below the question.", markup
    )


def exercise(name, asker="check"):
    """The exercise "LL.n", for example "04.2" in lesson 04.

    >>> exercise("04.1").name
    '04.1'
    """
    known = {
        e.name: e
        for m in LESSONS
        for e in importlib.import_module(f"kdlab.lessons.exercises.{m}").EXERCISES
    }
    return known[one_of(asker, "name", name, sorted(known))]


def judge(name, attempt):
    """(state, sentence) for an attempt; state is "not attempted", "not yet" or "right"."""
    found = exercise(name)
    if attempt is None or attempt is ...:
        return "not attempted", "replace the dots, then run the cell again"

    def watched(*args, **kwargs):
        result = attempt(*args, **kwargs)
        if result is None or result is ...:
            raise NotAttemptedError
        return result

    try:
        wrong = found.test(watched if callable(attempt) else attempt)
    except NotAttemptedError:
        return "not attempted", "replace the dots, then run the cell again"
    except Exception as error:
        return "not yet", f"your code stopped with {type(error).__name__}: {error}"
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
    folds += _fold("Solution", f"<pre>{html.escape(found.solution.strip())}</pre>")
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
        print(f"That was the last hint. The solution:\n\n{found.solution.strip()}")
