"""The temperature explorer: its numbers against numpy, and the logits that are typed."""

import math

import numpy as np
import pytest

import kdlab as kd
from kdlab.show import temperature as explorers


def test_the_numbers_of_the_temperature_explorer_are_right():
    task = kd.load("digits", sizes=(40, 40, 40))
    explorer = kd.temperature_explorer(task, kd.mlp(2)(task), kd.mlp(2)(task))
    explorer.move(source="typed logits", typed="2, 1, 0", typed_student="0 0; 0", T=2.0)
    z = np.array([2, 1, 0])

    def soft(v):
        return np.exp(v) / np.exp(v).sum()

    def entropy(p):
        return -(p * np.log(p)).sum()

    p = soft(z / 2)
    kl = (p * np.log(p * 3)).sum()
    said = explorer.answer["lines"]
    assert (
        f"entropy {entropy(soft(z)):.3f} nats at T = 1, {entropy(p):.3f} at T = 2 (uniform: 1.099)"
        in said[0]
    )
    assert (
        f"KL = {kl:.4f} nats, times T² = {4 * kl:.4f}. Hard loss: cross-entropy = {math.log(3):.4f}"
        in said[3]
    )


@pytest.mark.parametrize(
    "typed", ["", "1", "a, b", "1, nan", "1, inf", "1e9, 0", ", ".join("1" * 21)]
)
def test_wrong_logits_are_refused_with_the_reason(typed):
    with pytest.raises(ValueError, match="teacher: .* must be"):
        explorers.read_logits("teacher", typed)


def test_logits_may_be_typed_in_many_ways():
    assert explorers.read_logits("teacher", " 1;−2 3.5,\t1e2 ").tolist() == [1, -2, 3.5, 100]
