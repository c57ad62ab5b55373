"""Curves are where their numbers are, with the band of their intervals and their name."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from scipy import stats

from kdlab import Estimate
from kdlab.show.curves import Curve, curves, learning
from kdlab.show.sheet import ROLES

WORDS = {"x": "epoch", "y": "accuracy (%)", "caption": "A caption."}


def estimate(mean, spread=1.0):
    values = pd.Series([mean - spread, mean, mean, mean + spread], index=list("abcd"))
    return Estimate(values, "accuracy", "%")


def panels(figure):
    """The axes with curves; the first of a sheet is its canvas."""
    return figure.axes[1:]


def texts(figure):
    return {text.get_text(): text for text in figure.axes[0].texts}


def lines(ax):
    """{colour: (xs, ys)} of the curves with marks."""
    return {
        to_hex(line.get_color()).upper(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in ax.lines
        if line.get_marker() not in (None, "None")
    }


def test_a_curve_is_drawn_in_the_order_of_x_in_the_colour_of_its_role(drawn):
    group = [Curve("taught", {4: 80.0, 1: 60.0}), Curve("labels", {1: 50.0, 4: 55.0}, "control")]
    curves({"One student": group}, **WORDS)
    (ax,) = panels(drawn[0])
    assert lines(ax) == {
        ROLES["student"]["color"]: ([1, 4], [60.0, 80.0]),
        ROLES["control"]["color"].upper(): ([1, 4], [50.0, 55.0]),
    }
    assert len({str(look.get("linestyle", "-")) for look in ROLES.values()}) == 4
    said = texts(drawn[0])
    assert {"One student", "epoch", "accuracy (%)", "taught", "labels"} <= set(said)
    assert said["labels"].get_color() == ROLES["control"]["color"]


def test_the_band_is_the_95_per_cent_interval(drawn):
    found = curves({"": [Curve("a", {1: estimate(60), 2: estimate(70, 2)})]}, **WORDS)
    half = stats.sem([59, 60, 60, 61]) * stats.t(3).ppf(0.975)
    (ax,) = panels(drawn[0])
    (band,) = ax.collections
    edge = band.get_paths()[0].vertices
    assert edge[:, 1].min() == pytest.approx(60 - half)
    assert edge[:, 1].max() == pytest.approx(70 + 2 * half)
    assert f"a from 60.00 ± {half:.2f} % at 1 to 70.00 ± {2 * half:.2f} % at 2" in found.alt
    curves({"": [Curve("a", {1: 60.0, 2: 70.0})]}, **WORDS)
    assert not panels(drawn[1])[0].collections


def test_alt_text_made_here_holds_numbers_only_with_their_interval():
    single = curves({"": [Curve("mine", {1: 60.5, 2: 70.5})]}, **WORDS, ceiling=("teacher", 91.5))
    assert single.alt == "Curves. mine; teacher."


def test_the_ceiling_runs_all_across_with_its_band(drawn):
    group = [Curve("a", {1: 60.0, 3: 70.0})]
    curves({"left": group, "right": group}, **WORDS, ceiling={"right": ("teacher", estimate(90))})
    left, right = panels(drawn[0])
    (line,) = [line for line in right.lines if line.get_color() == ROLES["teacher"]["color"]]
    assert set(line.get_ydata()) == {90.0} and list(line.get_xdata()) == [0, 1]
    assert len(right.patches) == 1 and not left.patches
    assert right.get_ylim() == left.get_ylim() and left.get_ylim()[1] > 90
    assert "teacher" in texts(drawn[0])


@pytest.mark.parametrize("count", [2, 5, 9])
def test_names_at_the_ends_keep_apart_and_in_order(drawn, count):
    names = [f"curve {i}" for i in range(count)]
    group = [Curve(name, {1: 50.0, 2: 70.0 + 0.01 * i}) for i, name in enumerate(names)]
    curves({"": group}, **WORDS, limits=(0, 100))
    said = texts(drawn[0])
    places = [said[name].get_position()[1] for name in names]
    assert np.all(np.diff(places) <= -15.9)  # pixels, downwards
    (ax,) = panels(drawn[0])
    end = 340 - ax.transData.transform((2, 70))[1]
    assert np.mean(places) == pytest.approx(end, abs=2)  # about where the curves end


def test_names_stay_on_the_sheet(drawn):
    names = ["a very long name of a control that was shuffled", "b"]
    curves({"": [Curve(name, {1: 1.0, 2: 2.0}) for name in names]}, **WORDS)
    figure = drawn[0]
    FigureCanvasAgg(figure).draw()
    for text in (*figure.axes[0].texts, *panels(figure)[0].get_xticklabels()):
        box = text.get_window_extent()
        assert 0 <= box.x0 and box.x1 <= 980 and 0 <= box.y0 and box.y1 <= 340, text


def test_several_panels_share_one_axis_and_say_names_once(drawn):
    group = [Curve("a", {1: 1.0, 2: 3.0}), Curve("b", {1: 1.0, 2: 2.0}, "rival")]
    other = [Curve("a", {1: 9.0, 2: 3.0}), Curve("b", {1: 1.0, 2: 2.0}, "rival")]
    curves({"p": group, "q": other, "r": group}, **WORDS)
    axes = panels(drawn[0])
    assert len({ax.get_ylim() for ax in axes}) == 1
    assert [t.get_text() for t in drawn[0].axes[0].texts].count("a") == 1
    assert len({round(ax.get_position().width, 6) for ax in axes}) == 1
    curves({"p": group, "q": other}, **WORDS, share=False)
    first, second = panels(drawn[1])
    assert first.get_ylim() != second.get_ylim()
    curves({t: group for t in "pqrs"}, **WORDS)
    assert len({round(ax.get_position().y0, 6) for ax in panels(drawn[2])}) == 2


def test_dots_stand_upon_the_curves_with_their_intervals_and_have_room(drawn):
    group = [Curve("a", {1: 60.0, 3: 70.0})]
    curves({"left": group, "right": group}, **WORDS, dots={"right": {2: estimate(90)}})
    left, right = panels(drawn[0])
    (dot,) = [line for line in right.lines if line.get_marker() == "D"]
    assert dot.get_xydata().tolist() == [[2.0, 90.0]]
    (bar,) = [line for line in right.lines if line.get_xdata()[0] == 2 == line.get_xdata()[-1]][:1]
    assert tuple(bar.get_ydata()) == pytest.approx(estimate(90).interval())
    assert not [line for line in left.lines if line.get_marker() == "D"]
    assert left.get_ylim()[1] > estimate(90).interval()[1]


@pytest.mark.parametrize(
    ("dots", "error", "words"),
    [
        ({"middle": {1: estimate(1)}}, ValueError, "each title of dots must be one of"),
        ({"p": estimate(1)}, TypeError, "dots of 'p' must be a dictionary"),
        ({"p": {1: "high"}}, TypeError, "must be an Estimate or a number"),
        ({"p": {4: estimate(1)}}, ValueError, "x of the dots of 'p' must be"),
        ([1], TypeError, "dots must be a dictionary"),
    ],
)
def test_dots_that_belong_nowhere_are_refused(dots, error, words):
    with pytest.raises(error, match=words):
        curves({"p": [Curve("a", {1: 60.0, 3: 70.0})]}, **WORDS, dots=dots)


def test_the_same_role_twice_differs_in_colour_and_mark(drawn):
    curves({"": [Curve(n, {1: 1.0, 2: i}) for i, n in enumerate("abc")]}, **WORDS)
    marked = [line for line in panels(drawn[0])[0].lines if line.get_marker() not in (None, "None")]
    assert len({line.get_color() for line in marked}) == 3
    assert len({line.get_marker() for line in marked}) == 3


def test_ticks_of_a_log_axis_are_where_something_was_measured(drawn):
    curves({"": [Curve("a", {1: 0.0, 4: -1.5, 1000: 3.0})]}, **WORDS, log=True)
    (ax,) = panels(drawn[0])
    FigureCanvasAgg(drawn[0]).draw()
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "4", "1,000"]
    assert not ax.get_xticklabels(minor=True)
    signed = [t.get_text() for t in ax.get_yticklabels()]
    assert "0" in signed and any(t.startswith("+") for t in signed)
    assert any(t.startswith("−") for t in signed)


def test_a_run_that_diverged_says_so(drawn):
    group = [Curve("mine", {1: 2.0, 2: 9.0, 3: float("nan")}), Curve("never", {1: float("nan")})]
    curves({"": group}, **WORDS)
    assert {"mine: diverged", "never: diverged"} <= set(texts(drawn[0]))


def test_learning_has_a_panel_for_each_thing_watched(drawn):
    mine = {"training loss": [2.0, 1.0, 0.5], "agreement (%)": [10, 60, 90]}
    learning({"mine": mine, "broken": {"training loss": {1: 2.0, 3: 2.1}}}, caption="c", alt="a")
    loss, agreement = panels(drawn[0])
    assert lines(loss)[ROLES["student"]["color"]] == ([1, 2, 3], [2.0, 1.0, 0.5])
    assert lines(loss)[ROLES["rival"]["color"]] == ([1, 3], [2.0, 2.1])
    assert list(lines(agreement)) == [ROLES["student"]["color"]]
    learning({"mine": mine}, caption="c", alt="a", limits={"training loss": (0, 4)})
    assert "mine" not in texts(drawn[1]) and panels(drawn[1])[0].get_ylim() == (0, 4)


def test_a_figure_of_curves_stays_small():
    many = {e: estimate(50 + e) for e in range(1, 41)}
    roles = list(ROLES)[:4]
    group = [Curve(role, many, role) for role in roles]
    picture = curves({t: group for t in "abc"}, **WORDS)
    assert len(picture.svg) < 60_000


ONE = [Curve("a", {1: 1.0, 2: 2.0})]


@pytest.mark.parametrize(
    "draw, words",
    [
        (lambda: Curve("", {1: 1.0}), "name must not be empty"),
        (lambda: Curve("a", {}), "values of 'a' must not be empty"),
        (lambda: Curve("a", {1: "x"}), "each of values must be an Estimate or a number, got str"),
        (lambda: Curve("a", {"x": 1.0}), "each x of values must be a finite number, got 'x'"),
        (lambda: Curve("a", {1: 1.0}, "hero"), "role must be one of"),
        (lambda: curves(ONE, **WORDS), "panels must be a dictionary"),
        (lambda: curves({}, **WORDS), "panels must hold a panel"),
        (lambda: curves({"p": []}, **WORDS), "must hold a curve"),
        (lambda: curves({"p": [1]}, **WORDS), "must be a Curve, got int"),
        (lambda: curves({"p": [Curve("a", {0: 1.0})]}, **WORDS, log=True), "above 0 on a log axis"),
        (
            lambda: curves({"p": ONE}, **WORDS, limits=(2, 1)),
            "limits must be a finite number above 2",
        ),
        (lambda: curves({"p": ONE}, **WORDS, limits=(2,)), r"limits must be \(low, high\)"),
        (lambda: curves({"p": ONE}, **WORDS, ceiling=90), "ceiling must be"),
        (lambda: learning({"a": [1]}, caption="c", alt="a"), "must be a dictionary, got list"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, words):
    with pytest.raises((TypeError, ValueError), match=words):
        draw()
