"""Exercises: the solution passes, every planted mistake is caught by its own sentence, the dots run
on."""

import math

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import kdlab as kd
from kdlab.lessons import checks
from kdlab.lessons.checks import check, exercise, hint, judge, lessons

NAMES = [
    "00.1",
    "00.2",
    "01.1",
    "01.2",
    "01.3",
    "01.4",
    "01.5",
    "02.1",
    "02.2",
    "02.3",
    "03.1",
    "03.2",
    "03.3",
    "03.4",
    "04.1",
    "04.2",
    "04.3",
    "04.4",
    "05.1",
    "05.2",
    "05.3",
    "06.1",
    "06.2",
    "06.3",
    "07.1",
    "07.2",
    "07.3",
    "08.1",
    "08.2",
    "08.3",
    "09.1",
    "09.2",
    "09.3",
    "10.1",
    "10.2",
    "10.3",
    "11.1",
    "11.2",
    "11.3",
    "12.1",
    "12.2",
    "12.3",
    "13.1",
    "13.2",
    "13.3",
]


def attempt_of(source):
    if callable(source):
        return source
    space = {"torch": torch, "F": F, "kd": kd, "pd": pd, "math": math}
    if "teachers" in source:  # the solution of 00.2 goes on from the lesson's own runs
        space["tasks"] = kd.splits("digits", 4, labels_per_class=10)
        space["teachers"] = kd.train(kd.mlp(128), kd.splits("digits", 4), epochs=10)
        space["distilled"] = kd.distill(
            kd.mlp(64), space["teachers"], space["tasks"], on="transfer", epochs=10
        )
    exec(source, space)
    return space["attempt"]


def test_every_exercise_is_here():
    assert NAMES == sorted(e.name for lesson in lessons() for e in lesson.EXERCISES)


@pytest.mark.parametrize("name", NAMES)
def test_solution_passes(name):
    assert judge(name, attempt_of(exercise(name).solution)) == ("right", "well done")


@pytest.mark.parametrize(("name", "word"), [(n, w) for n in NAMES for w in exercise(n).mistakes])
def test_mistake_is_named(name, word):
    state, sentence = judge(name, attempt_of(exercise(name).mistakes[word]))
    assert state == "not yet" and word in sentence


@pytest.mark.parametrize("name", NAMES)
def test_untouched_runs_on(name):
    assert judge(name, ...)[0] == "not attempted"
    assert "not attempted" in repr(check(name, ...))


def test_untouched_function_and_crash():
    assert judge("03.2", lambda *a: ...)[0] == "not attempted"
    state, sentence = judge("03.2", lambda *a: 1 / 0)
    assert state == "not yet" and "ZeroDivisionError" in sentence


def test_a_solution_that_is_a_function_is_shown_as_it_is_written(capsys):
    hint("06.1", 9)
    told = capsys.readouterr().out
    assert "def layer_of(model, name, x):" in told and "finally:" in told
    assert judge("06.1", 3) == ("not yet", "a function is wanted, got int")


def test_card_folds_hints_and_solution():
    markup = check("03.1", ...)._repr_html_()
    assert markup.count("<details>") == len(exercise("03.1").hints) + 1 and "Solution" in markup


def test_hints_step_to_the_solution(capsys):
    hint("03.2", 2)
    assert "Hint 2 of 2" in capsys.readouterr().out
    hint("03.2", 3)
    assert "The solution" in capsys.readouterr().out


def test_bad_input():
    with pytest.raises(ValueError, match=r"name must be one of \['00.1'.*'9'"):
        checks.check("9", ...)
    with pytest.raises(ValueError, match="step must be a whole number of at least 1, got 0"):
        hint("03.1", 0)


@pytest.mark.parametrize("name", [None, [], ["01.1"], 1.1])
def test_whoever_is_asked_for_an_exercise_that_is_not_there_says_so(name):
    for ask, who in [(lambda: checks.check(name, ...), "check"), (lambda: hint(name), "hint")]:
        with pytest.raises(ValueError, match=f"^{who}: name must be one of"):
            ask()
