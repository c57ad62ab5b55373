"""The learner's own code: right, wrong, or not written yet."""

import gc
import random
import weakref

import numpy as np
import pytest
import torch

import kdlab as kd
from kdlab.lessons.checks import exercise
from kdlab.lessons.exercises import Exercise, lesson06


def similarity(student, teacher):
    def alike(layer):
        return torch.nn.functional.normalize(layer.flatten(1) @ layer.flatten(1).T, dim=1)

    return torch.nn.functional.mse_loss(alike(student), alike(teacher))


def bare(student, teacher):
    s, t = student.flatten(1), teacher.flatten(1)
    return torch.nn.functional.mse_loss(s @ s.T, t @ t.T)


def dots(student, teacher): ...


def stops(student, teacher):
    raise KeyError("x")


def test_a_right_function_is_given_back_untouched(capsys):
    assert kd.yours("06.3", similarity) is similarity
    assert "✓ 06.3 similarity: right." in capsys.readouterr().out
    assert kd.whose(similarity) == "Your code: similarity."


@pytest.mark.parametrize(
    "attempt, mark, said",
    [
        (bare, "✗", "the larger layer decides"),
        (stops, "✗", "KeyError"),
        (dots, "○", "not written yet"),
        (None, "○", "not written yet"),
        (..., "○", "not written yet"),
        (3, "✗", "a function is wanted, got int"),
        (torch.zeros(2), "✗", "a function is wanted, got Tensor"),
    ],
)
def test_until_then_the_reference_stands_in(capsys, attempt, mark, said):
    found = kd.yours("06.3", attempt)
    assert found is kd.reference("06.3")
    told = capsys.readouterr().out
    assert told.startswith(f"{mark} 06.3 similarity: ") and said in told
    assert kd.whose(found) == "Reference code: similarity."


def test_a_wrong_one_runs_where_that_is_asked_for(capsys):
    kd.yours("06.3", similarity)
    capsys.readouterr()
    assert kd.yours("06.3", bare, run=True) is bare
    assert "It runs all the same." in capsys.readouterr().out
    said = kd.whose(similarity, bare, kd.reference("06.3"))
    assert said.endswith("Your code, not right yet: bare. Reference code: similarity.")
    for nothing_to_run in (dots, None, 3):
        assert kd.yours("06.3", nothing_to_run, run=True) is kd.reference("06.3")


def test_an_attempt_that_is_mended_is_called_by_what_it_is_now(capsys):
    def similarity(student, teacher):
        return write(student, teacher)

    write = dots
    assert kd.yours("06.3", similarity) is kd.reference("06.3")
    write = bare
    assert kd.yours("06.3", similarity, run=True) is similarity
    assert kd.whose(similarity) == "Your code, not right yet: similarity."
    write = kd.reference("06.3")
    assert kd.yours("06.3", similarity) is similarity
    assert kd.whose(similarity, similarity) == "Your code: similarity, similarity."
    write = bare
    assert kd.yours("06.3", similarity) is kd.reference("06.3")
    assert kd.whose(similarity) == "Your code, not right yet: similarity."


def test_a_caption_claims_no_more_than_was_checked(capsys):
    assert kd.whose() == ""
    assert kd.whose(lambda: 1) == "Code not checked: <lambda>."
    kd.yours("06.3", kd.reference("06.3"))
    assert kd.whose(kd.reference("06.3")) == "Reference code: similarity."
    with pytest.raises(TypeError, match="^whose: functions must be functions, got int"):
        kd.whose(similarity, 3)


def test_a_check_leaves_the_lesson_as_it_was(capsys):
    def meddles(student, teacher):
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(7)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return bare(student, teacher)

    def drawn():
        return torch.rand(1).item(), np.random.rand(), random.random(), torch.is_grad_enabled()

    def begin():
        torch.manual_seed(0), np.random.seed(0), random.seed(0)

    begin()
    expected = drawn()
    begin()
    kd.yours("06.3", meddles)
    assert torch.get_default_dtype() == torch.float32 and drawn() == expected


def test_a_long_error_stays_in_one_line(capsys):
    def long(student, teacher):
        raise ValueError("many\nlines " * 100)

    kd.yours("06.3", long)
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "ValueError: many lines" in told and len(told) < 500


def test_no_function_is_kept_alive_by_it(capsys):
    def similarity(student, teacher):
        return bare(student, teacher)

    kd.yours("06.3", similarity, run=True)
    alive = weakref.ref(similarity)
    del similarity
    gc.collect()
    assert alive() is None


class Odd:
    """A callable that nothing can hash or refer to weakly."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = None

    def __call__(self, student, teacher):
        return similarity(student, teacher)


def test_whatever_can_be_called_may_be_an_attempt(capsys):
    odd = Odd()
    assert kd.yours("06.3", odd) is odd and kd.whose(odd) == "Your code: Odd."
    method = kd.yours("06.3", Odd().__call__)
    assert kd.whose(method) == "Your code: __call__."


def test_the_card_folds_hints_and_the_solution_until_it_is_right(monkeypatch):
    shown = []
    monkeypatch.setattr("kdlab.lessons.yours.show", shown.append)
    kd.yours("06.3", bare)
    kd.yours("06.3", similarity)
    wrong, right = (card._repr_html_() for card in shown)
    assert wrong.count("<details>") == len(exercise("06.3").hints) + 1 and "def similarity" in wrong
    assert "<details>" not in right


def test_an_exercise_that_no_function_answers_is_refused(monkeypatch):
    number = Exercise("06.9", lambda answer: "", ("Count.",), "attempt = 1", {})
    monkeypatch.setattr(lesson06, "EXERCISES", (*lesson06.EXERCISES, number))
    for ask, who in [(lambda: kd.yours("06.9", 1), "yours"), (lambda: kd.reference("06.9"), "ref")]:
        with pytest.raises(ValueError, match=f"^{who}.*: name must be an exercise that a function"):
            ask()
    with pytest.raises(ValueError, match="^reference: name must be one of"):
        kd.reference("9.9")
    with pytest.raises(TypeError, match="^yours: run must be True or False"):
        kd.yours("06.3", bare, run=1)


def forgot(student, teacher):
    bare(student, teacher)


def test_a_missing_return_is_named(capsys):
    assert kd.yours("06.3", forgot) is kd.reference("06.3")
    assert "not yet: your function gives back None: it lacks a return." in capsys.readouterr().out
