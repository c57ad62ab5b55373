"""The race of two arms: what it says of their difference."""

import re

import kdlab as kd
from kdlab.show import race as races


def test_the_race_pairs_the_arms_and_says_who_taught():
    race = kd.distillation_race(count=4, steps=60)
    gain = [line for line in race.answer["lines"] if line.startswith("taught − labels alone")]
    assert len(gain) == 1 and re.search(r"[+-]\d+\.\d+ ± \d", gain[0])
    assert any(line.startswith("16 students in ") for line in race.answer["lines"])
    assert races.SAME in race.move(saw=races.SAME).answer["caption"]
