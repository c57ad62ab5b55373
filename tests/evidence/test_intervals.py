"""Intervals against scipy's t-tests, their coverage, and the verdicts they allow."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdlab import DELTA, Comparison, Estimate, compare


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
        (1.5, 2.9, "helps a little"),
        (-1.5, 2.9, "hurts a little"),
        (1.5, 2.7, "helps"),
        (-1.5, 2.7, "hurts"),
        (1.29, 2.9, "no difference"),
        (1.30, 2.9, "helps a little"),
    ],
)
def test_the_verdicts(mean, delta, verdict):
    assert estimate(CENTRED + mean).verdict(delta) == verdict
    assert compare({"cell": estimate(CENTRED + mean)}, delta).loc["cell", "verdict"] == verdict


def test_a_verdict_takes_the_number_of_cells_into_account():
    found = estimate(CENTRED + 1.5)
    assert found.verdict() == "helps" and found.verdict(cells=10) == "cannot tell"
    assert found.verdict(2.9) == "helps a little" and found.verdict(2.9, 10) == "cannot tell"
    assert set(compare({i: found for i in range(10)})["verdict"]) == {"cannot tell"}


def test_equal_values_are_no_difference_only_within_a_delta():
    assert estimate(np.zeros(4)).verdict(0) == "cannot tell"
    assert estimate(np.zeros(4)).verdict(0.1) == "no difference"


@pytest.mark.parametrize("measure, delta", [("points", 0.5), ("%", 0.5), ("nats", 0.05), ("", 0)])
def test_a_measure_has_the_courses_delta(measure, delta):
    """The smallest interval around 0 that it calls no difference, and one a little too wide."""
    assert DELTA.get(measure, 0) == delta
    half = stats.t.ppf(0.975, 3) * CENTRED.std(ddof=1) / 2
    inside, outside = (
        estimate(CENTRED * width * delta / half, measure=measure) for width in (0.99, 1.01)
    )
    assert inside.verdict() == ("no difference" if delta else "cannot tell")
    assert outside.verdict() == "cannot tell"
    assert compare({0: inside})["verdict"].tolist() == [inside.verdict()]
    small = estimate(CENTRED * 0.001 + 0.8 * delta, measure=measure)
    assert small.verdict() == ("helps a little" if delta else "cannot tell")
    assert small.verdict(0.5 * delta) == ("helps" if delta else "cannot tell")


def test_the_delta_of_the_course_is_not_to_be_changed():
    with pytest.raises(TypeError):
        DELTA["points"] = 1.0


@pytest.mark.parametrize("delta", [-1, "0.5", np.nan])
def test_a_delta_that_is_no_width_is_refused(delta):
    with pytest.raises(ValueError, match="^verdict: delta must be a finite number at least 0, got"):
        estimate(CENTRED).verdict(delta)
    with pytest.raises(ValueError, match="^compare: delta must be a finite number at least 0, got"):
        compare({0: estimate(CENTRED)}, delta)


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
def test_a_comparison_holds_where_the_whole_interval_does(comparison, holds):
    assert isinstance(comparison, Comparison) and bool(comparison) is holds


@pytest.mark.parametrize(
    "comparison, wanted, sds",
    [
        (estimate(CENTRED + 2) > 0.5, (0.5, np.inf), 1.5),
        (estimate(CENTRED - 2) > 0, (0, np.inf), -2),
        (estimate(CENTRED - 2) < -1.25, (-np.inf, -1.25), 0.75),
        (estimate(CENTRED + 1).within(2.5), (-2.5, 2.5), 1.5),
        (estimate(CENTRED - 3).within(2.5), (-2.5, 2.5), -0.5),
    ],
)
def test_a_margin_is_counted_in_standard_errors(comparison, wanted, sds):
    assert comparison.wanted == wanted
    assert comparison.margin == pytest.approx(sds / stats.sem(CENTRED))


def test_where_all_units_agree_a_margin_has_no_end():
    assert (estimate(np.ones(4)) > 0).margin == np.inf == -(estimate(np.ones(4)) < 0).margin
    assert (estimate(np.ones(4)) > 1).margin == 0


@pytest.mark.parametrize("relation", ["", "about 3", "> nan", ">= 3", "within 3 and 4"])
def test_a_relation_that_says_nothing_is_refused(relation):
    with pytest.raises(ValueError, match="^Comparison: relation must"):
        Comparison(estimate(CENTRED), relation, True)


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
