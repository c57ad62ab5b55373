"""A bell that is fitted finds its target, and stands where it is shown."""

import pytest

import kdlab as kd
from kdlab.losses import divergences
from kdlab.show import peaks


def test_a_bell_finds_a_bell_under_every_divergence():
    target = -((peaks.X + 1.5) ** 2) / (2 * 0.8**2)
    for divergence in (
        divergences.forward_kl,
        divergences.reverse_kl,
        divergences.jsd,
        divergences.skew_forward_kl,
    ):
        middle, width = peaks.fit_bell(target, divergence)[160]
        assert abs(middle + 1.5) < 0.05 and abs(width - 0.8) < 0.05


def test_a_bell_is_shown_where_it_stands_after_so_many_steps():
    target = -((peaks.X - 2) ** 2) / 2
    way = peaks.fit_bell(target, divergences.forward_kl, "narrow, on the left")
    assert way[0] == pytest.approx((-3.0, 0.5))
    middles = [middle for middle, _ in way.values()]
    assert middles == sorted(middles) and list(way) == list(peaks.MARKS)
    early = peaks.fit_bell(target, divergences.forward_kl, "narrow, on the left", (5,))
    assert early == {5: way[5]}  # a mark on the way is where a shorter fit ends
    explorer = kd.peaks_explorer().move(start="narrow, on the left", steps=0)
    assert all("middle -3.0, width 0.5" in line for line in explorer.answer["lines"])
    assert "after 0 steps" in explorer.answer["caption"]
