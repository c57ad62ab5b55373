"""The learner's own code: right, wrong, or not written yet."""

import gc

import pytest
import torch

import kdlab as kd


def attention(layer):
    maps = (layer * layer).sum(1).flatten(1)
    return torch.nn.functional.normalize(maps, dim=1)


def bare(layer):
    return layer.square().sum(1).flatten(1)


def dots(layer): ...


def stops(layer):
    raise KeyError("x")


def test_a_right_function_is_given_back_untouched(capsys):
    assert kd.yours("06.1", attention) is attention
    assert "✓ 06.1 attention: right." in capsys.readouterr().out
    assert kd.whose(attention) == "Your code: attention."


@pytest.mark.parametrize(
    "attempt, mark, said",
    [
        (bare, "✗", "length 1"),
        (stops, "✗", "KeyError"),
        (dots, "○", "not written yet"),
        (None, "○", "not written yet"),
        (..., "○", "not written yet"),
        (3, "✗", "TypeError"),
    ],
)
def test_until_then_the_reference_stands_in(capsys, attempt, mark, said):
    found = kd.yours("06.1", attempt)
    assert found is kd.reference("06.1")
    told = capsys.readouterr().out
    assert told.startswith(f"{mark} 06.1 attention: ") and said in told
    assert kd.whose(found) == "Reference code: attention."


def test_a_wrong_one_runs_where_that_is_asked_for(capsys):
    assert kd.yours("06.1", bare, run=True) is bare
    assert "It runs all the same." in capsys.readouterr().out
    said = kd.whose(attention, bare, kd.reference("06.1"))
    assert said.endswith("Your code, not right yet: bare. Reference code: attention.")
    assert kd.yours("06.1", dots, run=True) is kd.reference("06.1")


def test_a_check_draws_nothing_from_the_lessons_numbers(capsys):
    def draws(layer):
        torch.rand(3)
        return bare(layer)

    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    kd.yours("06.1", draws)
    assert torch.equal(torch.rand(1), expected)


def test_no_function_is_kept_alive_by_it(capsys):
    kept = len(gc.get_referrers(attention))
    kd.yours("06.1", attention)
    assert len(gc.get_referrers(attention)) == kept


def test_an_exercise_that_no_function_answers_is_refused():
    with pytest.raises(ValueError, match="^yours: name must be an exercise that a function"):
        kd.yours("00.1", "B")
    with pytest.raises(ValueError, match="^reference: name must be one of"):
        kd.reference("9.9")
