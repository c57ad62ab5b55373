"""The explorer of what a distillation costs: its numbers are the plan's, and what it refuses."""

import re

import pytest

import kdlab as kd
from kdlab.show import budget


@pytest.fixture(scope="module")
def explorer():
    return kd.budget_explorer()


def test_its_numbers_are_the_plans(explorer):
    machine = kd.budget.Machine(**budget.CARD, price=2)
    table = kd.budget.plan("Llama-2-7B", "120M", 1e9, 2, 64, machine)
    given = dict(teacher="Llama-2-7B", student="120M", tokens=1e9, epochs=2, k=64, price=2)
    lines = explorer.move(**given).answer["lines"]
    said = "\n".join(lines)
    for way, line in zip(table.index, lines, strict=True):
        hours, dollars = re.fullmatch(rf"{way}: (\S+) hours, (\S+) dollars, .*", line).groups()
        assert float(hours) == pytest.approx(table.loc[way, "hours"], rel=0.05)
        assert float(dollars) == pytest.approx(table.loc[way, "dollars"], rel=0.05)
    assert f"{table.loc['teacher on disk', 'disk'] / 1e9:.0f} GB of disk" in said
    assert "other vocabularies" not in said


def test_a_pair_that_shares_no_vocabulary_is_told(explorer):
    told = explorer.move(teacher="Llama-2-13B", student="SmolLM2-135M").answer["lines"]
    assert "other vocabularies" in told[-1]


def test_a_student_as_large_as_its_teacher_is_refused(explorer):
    answer = explorer.move(teacher="SmolLM2-360M", student="SmolLM2-360M").answer
    assert "student must be smaller than its teacher" in answer["error"]
