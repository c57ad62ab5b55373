"""The pool on a projector with simulated laptops: what it shows is what a pool would say."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import kdlab as kd
from kdlab.lessons import pool_demo
from kdlab.lessons.pool_reading import pooled
from kdlab.lessons.pool_simulate import MEAN, results


@pytest.fixture(scope="module")
def explorer():
    return kd.pool_explorer()


def lines(explorer, **values):
    answer = explorer.move(**values).answer
    assert answer["error"] == ""
    return answer["lines"]


def test_the_interval_is_student_s_over_the_first_result_of_each_that_can_be(explorer):
    first = [results(number, number + 1, group=1)[0][0] for number in range(30)]
    counted = [value for value in first if value < 100]
    half = stats.t.ppf(0.975, len(counted) - 1) * stats.sem(counted)
    told = lines(explorer, sent=30, mean=MEAN, group=1)
    assert told[0] == "30 of 30 laptops have sent: 27 splits count, 6 results do not."
    assert told[1] == f"{np.mean(counted):+.2f} ± {half:.2f} points; verdict: helps"
    assert sum(map(int, re.findall(r"\d+", told[3]))) == 27
    assert len(told) == 4 + 6 and "cannot be, outside -100 to 100" in told[5]


def test_below_four_splits_there_is_no_verdict_and_at_four_there_is(explorer):
    assert lines(explorer, sent=0)[1] == lines(explorer, sent=3)[1] == "No verdict below 4 splits"
    assert "verdict: cannot tell" in lines(explorer, sent=4)[1]


def test_every_end_of_every_handle_is_drawn_and_one_setting_is_one_picture(explorer):
    ends = {c["name"]: (c["options"][0], c["options"][-1]) for c in explorer.controls}
    for values in product(*ends.values()):
        lines(explorer, **dict(zip(ends, values, strict=True)))
    again = lines(explorer, sent=20, group=3)
    lines(explorer, sent=20, group=4)
    assert lines(explorer, sent=20, group=3) == again


def test_what_the_speaker_is_told_of_the_second_class_is_so(explorer):
    notes = Path(__file__).parents[2] / "notebooks" / "demos" / "6_class_as_experiment.ipynb"
    assert 'The second says \\"hurts\\" at its sixth dot' in notes.read_text(encoding="utf-8")
    told = lines(explorer, sent=30, mean=0.0, spread=2.4, group=2)
    assert "verdict: cannot tell" in told[1]
    assert "hurts from 6, cannot tell from 7, helps from 23" in told[2]


def test_where_nothing_is_there_one_class_in_twenty_is_misled_at_its_end():
    ends = [pool_demo.simulated(0.0, 2.4, group) for group in range(1, 81)]
    seen = [
        pooled([e for laptop in end for e in laptop], pool_demo.TERMS).verdict() for end in ends
    ]
    misled = sum(verdict in ("helps", "hurts") for verdict in seen)
    assert misled <= stats.binom.ppf(0.999, 80, 0.05)
