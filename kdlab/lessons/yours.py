"""The learner's own code: a lesson runs on it once it is right, and until then on a reference."""

import html
import weakref
from collections.abc import Callable
from typing import Any

from kdlab.base import arguments
from kdlab.lessons.checks import exercise, judge, lessons
from kdlab.show.cards import SHEET, Card, show
from kdlab.show.colours import BLUE, GREY, INK, MUTED, VERMILLION

# what became of an attempt: the mark and colour of its card, and how a caption calls the code
RIGHT, WRONG, WAITING, UNKNOWN = "right", "not right yet", "reference", "not checked"
MARKS = {RIGHT: ("✓", BLUE), WRONG: ("✗", VERMILLION), WAITING: ("○", GREY)}
CAPTIONS = {
    RIGHT: "Your code",
    WRONG: "Your code, not right yet",
    UNKNOWN: "Code not checked",
    WAITING: "Reference code",
}
# by id, as a function need not be hashable; the reference to it tells whether the id is still its
_given: dict[int, tuple[Callable, str]] = {}


def yours(name: str, attempt: Any, run: bool = False) -> Callable:
    """The learner's function once its check passes, until then the reference; a card says which.

    name: the exercise, "LL.n". attempt: the function that the learner wrote. run: give back a
    wrong one too, once it is written: the curve of one's own bug is a good lesson. An error inside
    the attempt is told on the card and raises nothing.

    >>> def layer_of(model, name, x):
    ...     ...
    >>> layer_of = yours("06.1", layer_of)
    ○ 06.1 layer_of: not written yet. The reference stands in, so you can read on.
    """
    found, reference = exercise(name, "yours"), reference_of("yours", name)
    arguments.instance("yours", "run", run, bool, "True or False")
    state, sentence = judge(name, attempt)
    right, written = state == "right", state != "not attempted"
    chosen = attempt if right or (run and written and callable(attempt)) else reference
    if callable(attempt):
        _remember(attempt, RIGHT if right else WRONG)
    said = _said(right, written, chosen is attempt, sentence)
    mark, colour = MARKS[RIGHT if right else WRONG if written else WAITING]
    title = reference.__name__
    folds = "" if right else _folds(found)
    show(
        Card(
            f"{mark} {name} {title}: {said}",
            f'<div class="kdlab-yours" style="{SHEET}border-left:.35em solid {colour};'
            f'padding:.5em 1.1em;margin:.4em 0"><b style="color:{colour}">{mark} {name} '
            f'<span style="font-family:monospace;color:{INK}">{title}</span></b>: '
            f"{html.escape(said)}{folds}</div>",
        )
    )
    return chosen


def _said(right, written, runs, sentence):
    if right:
        return "right. The lesson runs on your code from here on."
    if not written:
        return "not written yet. The reference stands in, so you can read on."
    end = "It runs all the same." if runs else "Until then the reference stands in."
    return f"not yet: {sentence.rstrip('.')}. {end}"


def _folds(found):
    """Hints and the solution, folded in one line."""
    parts = [(f"Hint {i}", html.escape(words)) for i, words in enumerate(found.hints, start=1)]
    code = (
        f'<pre style="background:none;color:{INK};margin:.3em 0">{html.escape(found.source)}</pre>'
    )
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:.2em 1.2em;color:{MUTED}">'
        + "".join(
            f'<details><summary style="cursor:pointer">{title}</summary>{body}</details>'
            for title, body in [*parts, ("Solution", code)]
        )
        + "</div>"
    )


def reference_of(asker, name):
    """The function that answers an exercise; ValueError for one that no function answers."""
    solution = exercise(name, asker).solution
    if not callable(solution):
        raise ValueError(
            f"{asker}: name must be an exercise that a function answers, got {name!r}: "
            "kd.check looks at its answer"
        )
    return solution


def reference(name: str) -> Callable:
    """The function that stands in for the learner's: kdlab's own answer to the exercise "LL.n".

    >>> reference("06.1").__name__
    'layer_of'
    """
    return reference_of("reference", name)


def whose(*functions: Callable) -> str:
    """A sentence for a caption: whose code drew the figure. functions: as `yours` gave them.

    TypeError for what is no function.

    >>> whose(reference("06.1"))
    'Reference code: layer_of.'
    """
    said: dict[str, list[str]] = {state: [] for state in CAPTIONS}
    for function in functions:
        if not callable(function):
            raise TypeError(f"whose: functions must be functions, got {type(function).__name__}")
        said[_state(function)].append(getattr(function, "__name__", type(function).__name__))
    return " ".join(f"{CAPTIONS[s]}: {', '.join(names)}." for s, names in said.items() if names)


def _remember(function, state):
    try:
        held = weakref.ref(function)
    except TypeError:  # an object with slots, which nothing can refer to weakly
        _given[id(function)] = (lambda: function), state
    else:
        _given[id(function)] = held, state


def _state(function):
    if any(function is known.solution for lesson in lessons() for known in lesson.EXERCISES):
        return WAITING
    held, state = _given.get(id(function), (lambda: None, UNKNOWN))
    return state if held() is function else UNKNOWN
