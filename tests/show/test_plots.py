"""Each plot draws the numbers that it is given."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from drawings import WORDS, estimate
from matplotlib.colors import to_hex

from kdlab import Estimate, Runs
from kdlab.show import plots
from kdlab.show.plots import SIGNS, Picture

pytestmark = pytest.mark.usefixtures("nothing_left_open")


def bars(container):
    """[(x, y, low, high)] of an errorbar, low and high along the bar."""
    points = np.stack(container.lines[0].get_data(), 1)
    return [
        (*point, *sorted(set(segment.ravel()) - set(point)))
        for point, segment in zip(points, container.lines[2][0].get_segments(), strict=True)
    ]


def test_intervals_are_dots_with_bars_one_row_each(drawn):
    found = plots.intervals(
        {"hurts": estimate(-2.5), "helps": estimate(3.5, 2)}, *WORDS, "gain (points)", zero=0
    )
    assert isinstance(found, Picture)
    ax = drawn[0].axes[0]
    half = 3.182446 * np.sqrt(2 / 3) / 2  # t(3), sd and √4
    expected = [[-2.5, 0, -2.5 - half, -2.5 + half], [3.5, -1, 3.5 - 2 * half, 3.5 + 2 * half]]
    np.testing.assert_allclose([bars(c)[0] for c in ax.containers], expected, rtol=1e-6)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["hurts", "helps"]
    assert ax.get_xlabel() == "gain (points)"
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines)
    low, high = ax.get_ylim()
    assert low < -1 and high > 0  # every row is inside


@pytest.fixture
def runs():
    rows = [
        {
            "run": i,
            "unit": f"digits/{u}",
            "seed": 0,
            "student": "mlp 8",
            "objective": "KDLoss",
            "batch": 32,
            "epochs": 1,
            "lr": 0.01,
            "temperature": T,
            "alpha": alpha,
            "epoch": 1,
            "accuracy": 0.5 + 0.01 * T + 0.1 * alpha + 0.01 * (u % 2),
        }
        for i, (T, alpha, u) in enumerate(
            (T, a, u) for T in (1.0, 8.0) for a in (0.0, 1.0) for u in range(4)
        )
    ]
    return Runs((), pd.DataFrame(rows))


def test_a_curve_is_a_line_for_each_group_with_bars(drawn, runs):
    found = plots.curve(runs, "temperature", by="alpha", log=True)
    ax = drawn[0].axes[0]
    half = 100 * 3.182446 * 0.01 / np.sqrt(3) / 2  # units at ±0.5 points around the mean: sd 1 / √3
    expected = [
        [[1, m, m - half, m + half], [8, m + 7, m + 7 - half, m + 7 + half]] for m in (51.5, 61.5)
    ]
    np.testing.assert_allclose([bars(c) for c in ax.containers], expected, rtol=1e-6)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["alpha 0.0", "alpha 1.0"]
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == (
        "log",
        "temperature",
        "accuracy on validation (%)",
    )
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "8"]
    assert "4 splits" in found.caption and "temperature" in found.alt


def test_a_curve_can_stand_beside_bands(drawn, runs):
    plots.curve(
        runs.where(alpha=0.0),
        "temperature",
        *("accuracy", *WORDS),
        also={"labels": estimate(55)},
        name="taught",
    )
    ax = drawn[0].axes[0]
    low, high = estimate(55).interval()
    band = ax.patches[0].get_extents().transformed(ax.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((low, high))
    assert {"labels", "taught"} == {t.get_text() for t in ax.get_legend().get_texts()}
    assert not ax.get_legend().get_frame_on()  # the house style reaches what is drawn late


def test_measured_errors_stand_beside_the_paper_s(drawn):
    rows = [
        ("teacher", 67.0, 71.5, 60.2, 82.9),
        ("labels", 146.0, 139.0, 128.0, 151.0),
        ("T by validation", np.nan, 1083.4, 990.0, 1200.0),
        ("share of the gap closed, %", 91.1, 95.3, 80.0, 105.0),
        ("30 units, T = 1", np.nan, 480.0, 470.0, 500.0),
        ("30 units, T = 2.5", np.nan, 455.0, 440.0, 466.0),
    ]
    found = plots.beside_paper(
        pd.DataFrame(rows, columns=["arm", "paper", "ours", "low", "high"]).assign(
            temperature=lambda table: table["arm"].str.extract(r"units, T = (.+)")[0].astype(float)
        )
    )
    assert isinstance(found, Picture) and "share" not in found.alt
    for said in (
        "teacher: 72 (paper 67);",
        "labels: 139 (paper 146);",
        "T by validation: 1,083;",
        "T = 1: 480;",
        "T = 2.5: 455.",
    ):
        assert said in found.alt
    left, right = drawn[0].axes
    assert [t.get_text() for t in left.get_yticklabels()] == [
        "teacher",
        "labels",
        "T by validation",
    ]
    ours, papers = (
        [(*line.get_xdata(), *line.get_ydata()) for line in left.lines if line.get_marker() == m]
        for m in "oD"
    )
    assert ours == [(71.5, 0), (139.0, -1), (1083.4, -2)]
    assert papers[:2] == [(67.0, 0), (146.0, -1)] and np.isnan(papers[2][0])
    bands = [tuple(line.get_xdata()) for line in left.lines if line.get_marker() == "None"]
    assert bands == [row[3:] for row in rows[:3]]
    np.testing.assert_allclose(
        bars(right.containers[0]), [(1, 480, 470, 500), (2.5, 455, 440, 466)]
    )


# what a reader must see: blue helps, orange hurts, and what is not sure is grey
SEEN = {
    "helps": "#0072b2",
    "helps a little": "#a6cbe5",
    "hurts a little": "#f0bf9b",
    "hurts": "#d55e00",
    "no difference": "#f2f2f2",
    "cannot tell": "#b9b9b9",
}
VERDICT = {
    (0, 0): (1.24, "helps"),
    (0, 1): (-2.0, "hurts"),
    (1, 0): (-0.04, "no difference"),
    (1, 1): (0.3, "cannot tell"),
}


@pytest.mark.parametrize("panels", [["10 epochs"], ["10 epochs", "100 epochs"]])
def test_a_map_tells_each_verdict_by_colour_and_by_sign(panels, drawn):
    found = plots.verdict_map(
        panels, [0, 1], [0, 1], lambda p, r, c: VERDICT[r, c], *WORDS, "noise", "T"
    )
    assert isinstance(found, Picture) and len(drawn[0].axes) == len(panels)
    for ax, panel in zip(drawn[0].axes, panels, strict=True):
        assert [t.get_text() for t in ax.texts] == ["+\n+1.2", "−\n−2.0", "=\n+0.0", "?\n+0.3"]
        colours = ax.images[0].to_rgba(ax.images[0].get_array()).reshape(4, 4)
        assert [to_hex(c) for c in colours] == [SEEN[v] for _, v in VERDICT.values()]
        assert (ax.get_title(), ax.get_xlabel()) == (panel, "T")
    legend = drawn[0].legends[0]
    keys = zip(legend.get_texts(), legend.get_patches(), strict=True)
    told = {text.get_text(): to_hex(patch.get_facecolor()) for text, patch in keys}
    assert told == {f"{sign} {verdict}": SEEN[verdict] for verdict, sign in SIGNS.items()}
    assert len(set(SIGNS.values())) == len(SIGNS)


def test_a_matrix_writes_each_number_with_its_interval(drawn):
    def cells(shift):
        values = pd.Series({f"u{i}": 0.5 + shift + 0.01 * i for i in range(4)})
        return {
            (r, c): Estimate(values + 0.1 * i, "CKA", "", 1)
            for i, (r, c) in enumerate(
                [("low", "near"), ("low", "far"), ("high", "near"), ("high", "far")]
            )
        }

    panels = {"before": cells(-0.4), "after": cells(0.0)}
    plots.matrix(panels, *WORDS, row_label="student", column_label="teacher")
    axes = drawn[0].axes
    assert [t.get_text() for t in axes[0].get_yticklabels()] == [
        "low",
        "high",
    ]  # the others share them
    assert [ax.get_title() for ax in axes] == ["before", "after"] and axes[
        0
    ].get_ylabel() == "student"
    for ax, found in zip(axes, panels.values(), strict=True):
        assert [t.get_text() for t in ax.get_xticklabels()] == ["near", "far"]
        texts = {
            (int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in ax.texts
        }
        assert (
            texts[1, 0]
            == f"{found['high', 'near'].mean:.2f}\n±{found['high', 'near'].half_width():.2f}"
        )
        np.testing.assert_allclose(ax.images[0].get_array()[0, 1], found["low", "far"].mean)


@pytest.mark.parametrize("count, channels", [(3, 1), (10, 3)])
def test_images_show_each_image_with_its_title(count, channels, drawn):
    x = torch.rand(count, channels, 5, 4)
    assert isinstance(plots.images(x, [str(i) for i in range(count)], *WORDS, columns=4), Picture)
    shown = [ax for ax in drawn[0].axes if ax.images]
    assert [ax.get_title() for ax in shown] == [str(i) for i in range(count)]
    for ax, image in zip(shown, x, strict=True):
        there = np.asarray(ax.images[0].get_array())
        np.testing.assert_array_equal(
            there, image[0] if channels == 1 else np.moveaxis(image.numpy(), 0, -1)
        )
    assert not any(ax.axison for ax in drawn[0].axes)


@pytest.mark.parametrize(
    "draw",
    [
        lambda runs: plots.intervals({"a": 3.0}, *WORDS, "x"),
        lambda runs: plots.curve(
            runs.where(unit="digits/0"), "temperature"
        ),  # one unit has no interval
        lambda runs: plots.curve(runs, "width"),
        lambda runs: plots.verdict_map(
            ["p"], [0], [0], lambda p, r, c: (1.0, "wins"), *WORDS, "r", "c"
        ),
        lambda runs: plots.images([1, 2], ["a", "b"], *WORDS),
    ],
)
def test_a_plot_that_fails_leaves_no_figure_behind(draw, runs, drawn):
    with pytest.raises((ValueError, KeyError, AttributeError)):
        draw(runs)
    assert plt.get_fignums() == [] and not drawn
