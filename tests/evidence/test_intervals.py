"""Intervals against scipy's t-tests, their coverage, the four verdicts and what a claim says."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdlab import Comparison, Estimate, claim, compare


def estimate(values, what="gain", measure="points", seeds=2, names=None):
    names = names or [f"digits/{i}" for i in range(len(values))]
    return Estimate(pd.Series(np.asarray(values, float), index=names), what, measure, seeds)


def draws(n, seed=0, mean=0.0, sd=1.0):
    return np.random.default_rng(seed).normal(mean, sd, n)


@pytest.mark.parametrize("n", [4, 5, 8, 30])
def test_the_interval_is_scipys_t_interval(n):
    values = draws(n, seed=n, mean=0.3)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = estimate(values)
    np.testing.assert_allclose(found.interval(), expected, rtol=1e-12)
    assert found.mean == pytest.approx(values.mean())
    assert found.half_width() == pytest.approx((expected.high - expected.low) / 2)


@pytest.mark.parametrize("n", [4, 9])
def test_a_difference_is_scipys_paired_t_interval_in_any_order(n):
    common = draws(n, seed=1, sd=5)
    a, b = common + draws(n, seed=2) + 1, common + draws(n, seed=3)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    units = [f"digits/{i}" for i in range(n)]
    back = estimate(b[::-1], "labels", "%", seeds=3, names=units[::-1])
    found = estimate(a, "distilled", "%", seeds=2, names=units) - back
    np.testing.assert_allclose(found.interval(), expected, rtol=1e-9)
    assert (found.what, found.measure, found.seeds) == ("distilled − labels", "points", 2)


def test_a_difference_of_equal_quantities_keeps_its_unit():
    a, b = (estimate(draws(5, s), "nll on test", "nats") for s in (0, 1))
    assert ((a - b).what, (a - b).measure) == ("difference in nll on test", "nats")


@pytest.mark.parametrize("cells", [1, 2, 36])
def test_many_cells_widen_the_interval_by_sidak(cells):
    values = draws(8)
    # each of m independent intervals has the level at which all hold with 95 %
    level = np.exp(np.log(0.95) / cells)
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    np.testing.assert_allclose(estimate(values).interval(cells), expected, rtol=1e-9)
    table = compare({i: estimate(values) for i in range(cells)})
    np.testing.assert_allclose(table[["low", "high"]], [expected] * cells, rtol=1e-9)
    np.testing.assert_allclose(table["mean"], values.mean())


def test_95_of_100_intervals_hold_the_truth():
    rng, truth = np.random.default_rng(0), 0.7
    found = [estimate(rng.normal(truth, 2.0, 5)).interval() for _ in range(1000)]
    share = np.mean([low <= truth <= high for low, high in found])
    assert share == pytest.approx(0.95, abs=0.02)  # three standard errors of 1,000 draws


def test_95_of_100_tables_hold_every_truth():
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(200):
        table = compare({i: estimate(rng.normal(0.0, 1.0, 5)) for i in range(8)})
        hits.append(((table["low"] <= 0) & (table["high"] >= 0)).all())
    assert np.mean(hits) == pytest.approx(0.95, abs=0.045)  # uncorrected: 0.66


CENTRED = np.array([-1.0, 0.0, 0.0, 1.0])  # sd 0.8165, t(3) 3.1824: half width 1.2992


@pytest.mark.parametrize(
    "mean, delta, verdict",
    [
        (1.30, 0.0, "helps"),
        (1.29, 0.0, "cannot tell"),
        (-1.30, 0.0, "hurts"),
        (-1.29, 0.0, "cannot tell"),
        (0.0, 1.30, "no difference"),
        (0.0, 1.29, "cannot tell"),
        (0.5, 1.80, "no difference"),
        (0.5, 1.79, "cannot tell"),
        (2.0, 3.0, "helps"),
        (-2.0, 3.0, "hurts"),
        (1.5, 2.9, "no difference"),
        (-1.5, 2.9, "no difference"),
    ],
)
def test_the_four_verdicts(mean, delta, verdict):
    assert estimate(CENTRED + mean).verdict(delta) == verdict
    assert compare({"cell": estimate(CENTRED + mean)}, delta).loc["cell", "verdict"] == verdict


def test_a_verdict_takes_the_number_of_cells_into_account():
    found = estimate(CENTRED + 1.5)
    assert found.verdict() == "helps" and found.verdict(cells=10) == "cannot tell"
    assert set(compare({i: found for i in range(10)})["verdict"]) == {"cannot tell"}


def test_equal_values_are_no_difference_only_within_a_delta():
    assert estimate(np.zeros(4)).verdict() == "cannot tell"
    assert estimate(np.zeros(4)).verdict(0.1) == "no difference"


@pytest.mark.parametrize("n", [1, 3])
def test_fewer_than_four_units_are_refused(n):
    with pytest.raises(
        ValueError, match=f"at least 4 units .*, got {n}; seeds of one split are not units"
    ):
        estimate(draws(n))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(
        ValueError, match="Estimate: gain must be finite for every unit, got .*'digits/3'"
    ):
        estimate([1, 2, 3, bad])


@pytest.mark.parametrize("names", [["a", "b", "c", "e"], ["a", "b", "c", "d", "e"]])
def test_other_units_are_not_paired(names):
    with pytest.raises(ValueError, match="can't pair 'gain' with 'other': their units differ"):
        estimate(draws(4), names=list("abcd")) - estimate(draws(len(names)), "other", names=names)


@pytest.mark.parametrize(
    "comparison, holds",
    [
        (estimate(CENTRED + 1.3) > 0, True),
        (estimate(CENTRED + 1.29) > 0, False),
        (estimate(CENTRED + 2.3) > 1, True),
        (estimate(CENTRED + 2.29) > 1, False),
        (0 < estimate(CENTRED + 1.3), True),
        (estimate(CENTRED - 1.3) < 0, True),
        (estimate(CENTRED - 1.29) < 0, False),
        (estimate(CENTRED).within(1.3), True),
        (estimate(CENTRED).within(1.29), False),
        (estimate(CENTRED + 1).within(2.29), False),
        (estimate(CENTRED - 1).within(2.29), False),
    ],
)
def test_a_claim_holds_where_the_whole_interval_does(comparison, holds, capsys):
    assert isinstance(comparison, Comparison) and bool(comparison) is holds
    if holds:
        claim("a sentence", comparison)
        assert capsys.readouterr().out.startswith("Claim: a sentence\nholds: gain ")
    else:
        with pytest.raises(AssertionError, match="^Claim does not hold: a sentence\ngain "):
            claim("a sentence", comparison)
        assert capsys.readouterr().out == ""


def test_a_claim_says_what_it_rests_on(capsys):
    claim("soft targets help", estimate(CENTRED + 2) > 0)
    assert (
        capsys.readouterr().out
        == "Claim: soft targets help\nholds: gain +2.00 ± 1.30 points (> 0); 95 % interval over 4"
        " splits, each with its own teacher; 2 seeds a split\n"
    )
    claim("close", estimate(CENTRED, "nll on test", "nats", seeds=1).within(1.5))
    assert capsys.readouterr().out.endswith(
        "nll on test 0.00 ± 1.30 nats (within ±1.5); 95 % interval over 4 splits, each with its own"
        " teacher; 1 seed a split\n"
    )
    given = Estimate(
        pd.Series(CENTRED + 2), "gain", "points", 0, "splits, all with one given teacher"
    )
    claim("it holds for this teacher", given - Estimate(given.values * 0, "nothing", seeds=0) > 0)
    assert capsys.readouterr().out.endswith(
        "95 % interval over 4 splits, all with one given teacher\n"
    )
    with pytest.raises(
        AssertionError, match=r"\+0\.00 ± 1\.30 points \(< -1\); 95 % interval over 4 splits"
    ):
        claim("no", estimate(CENTRED) < -1)


@pytest.mark.parametrize("bare", [True, np.bool_(True), 1.0, estimate(CENTRED + 5), None])
def test_a_claim_needs_an_estimate_beside_a_bound(bare):
    with pytest.raises(
        TypeError,
        match=f"claim: comparison must be an Estimate beside a bound.*{type(bare).__name__}",
    ):
        claim("it is so", bare)


@pytest.mark.parametrize(
    "measure, text",
    [
        ("points", "+2.00 ± 1.30 points"),
        ("%", "2.00 ± 1.30 %"),
        ("nats", "2.00 ± 1.30 nats"),
        ("", "2.00 ± 1.30"),
    ],
)
def test_a_difference_in_points_carries_its_sign(measure, text):
    assert str(estimate(CENTRED + 2, measure=measure)) == text


def test_a_table_keeps_its_cells_in_order():
    cells = {
        ("b", 2): estimate(CENTRED + 3),
        ("a", 1): estimate(CENTRED - 3),
        ("a", 0): estimate(CENTRED),
    }
    table = compare(cells)
    assert table.index.tolist() == list(cells)
    assert table["verdict"].tolist() == ["helps", "hurts", "cannot tell"]


def test_on_other_data_a_claim_can_be_a_question(monkeypatch, capsys):
    up = Estimate(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0}), "gain", "points")
    monkeypatch.setenv("KDLAB_CLAIMS", "report")
    claim("it hurts", up < 0)
    assert "DOES NOT HOLD HERE: gain" in capsys.readouterr().out
    monkeypatch.delenv("KDLAB_CLAIMS")
    with pytest.raises(AssertionError, match="Claim does not hold: it hurts"):
        claim("it hurts", up < 0)


@pytest.mark.parametrize(
    "units, said",
    [
        ("splits, each with its own teacher", "2 seeds a split"),
        ("worlds, each with its own networks", "2 seeds each"),
    ],
)
def test_a_claim_says_what_its_seeds_are_nested_in(units, said, capsys):
    claim(
        "it helps",
        Estimate(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0}), "gain", "points", 2, units)
        > 0,
    )
    assert capsys.readouterr().out.rstrip().endswith(f"over 4 {units}; {said}")
