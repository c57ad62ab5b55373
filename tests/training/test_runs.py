"""What came out: selecting and reading it, against numbers worked out by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from digit_runs import SMALL, normed
from scipy import stats

import kdlab as kd
from kdlab import Runs, distill, load, mlp, splits, train
from kdlab.show.plots import Picture

NAN = float("nan")
UNITS = [f"digits/{i}" for i in range(4)]


def table(cells):
    """Runs of a frame made by hand; cells: [(columns, accuracy(unit, seed), nll(unit, seed))]."""
    rows = []
    for run, ((columns, accuracy, nll), unit, seed) in enumerate(
        itertools.product(cells, range(4), (0, 1))
    ):
        own = {
            "run": run,
            "unit": UNITS[unit],
            "seed": seed,
            "student": "mlp 8",
            "batch": 32,
            "epochs": 10,
            "objective": "KDLoss",
            "lr": 0.01,
            "temperature": 4.0,
            "alpha": 0.5,
        } | columns
        rows += [
            own
            | {
                "epoch": 5,
                "accuracy": 0.99,
                "nll": 0.0,
            },  # must not be read: it is not the last epoch
            own | {"epoch": 10, "accuracy": accuracy(unit, seed), "nll": nll(unit, seed)},
        ]
    return Runs((), pd.DataFrame(rows))


LABELS = {"objective": "HardLabels", "temperature": NAN, "alpha": NAN}
MIXED = table(
    [
        (LABELS | {"lr": 0.01}, lambda u, s: 0.5 + 0.01 * u + 0.1 * s, lambda u, s: 2.0),
        (LABELS | {"lr": 0.1}, lambda u, s: 0.3 + 0.12 * u, lambda u, s: 1.0 + 0.1 * s),
        ({"temperature": 1.0, "lr": 0.01}, lambda u, s: 0.7, lambda u, s: 3.0),
        ({"temperature": 4.0, "lr": 0.1}, lambda u, s: 0.6, lambda u, s: 4.0),
    ]
)


def cell(found):
    ((lr, temperature),) = found.frame[["lr", "temperature"]].drop_duplicates().values.tolist()
    return lr, temperature


def test_where_selects_by_value_list_and_nan():
    assert len(MIXED) == 32 and repr(MIXED.where(lr=0.1, alpha=0.5)) == "Runs(8 runs, 4 units; {})"
    assert len(MIXED.where(temperature=4, seed=0)) == 4
    assert len(MIXED.where(temperature=[1, 4])) == len(MIXED.where(temperature=NAN)) == 16
    assert (
        MIXED.where(lr=0.1, objective="HardLabels").frame["accuracy"].max() == 0.99
    )  # earlier epochs are kept


@pytest.mark.parametrize(
    "values, words",
    [
        ({"T": 4}, r"where: 'T' is not a column; expected one of \['run', 'unit'"),
        (
            {"temperature": 2},
            r"where: no run has {'temperature': 2}; temperature takes \[nan, 1.0, 4.0\]",
        ),
    ],
)
def test_where_says_what_there_is(values, words):
    with pytest.raises(ValueError, match=words):
        MIXED.where(**values)


def test_best_is_the_cell_with_the_best_mean_over_units_and_seeds():
    assert cell(MIXED.best()) == (0.01, 1.0)
    assert len(MIXED.best()) == 8 and len(MIXED.best().frame) == 16
    assert cell(MIXED.best("nll")) == (0.1, pytest.approx(NAN, nan_ok=True))
    assert cell(MIXED.where(objective="HardLabels").best())[0] == 0.01


@pytest.mark.parametrize(
    "metric, largest",
    [("accuracy", True), ("agreement", True), ("nll", False), ("ece", False), ("loss", False)],
)
def test_best_knows_which_way_each_metric_is_better(metric, largest):
    runs = table(
        [
            ({"lr": lr}, lambda u, s, v=value: v, lambda u, s: 0.0)
            for lr, value in [(0.01, 0.2), (0.1, 0.3), (1.0, 0.1)]
        ]
    )
    runs = Runs((), runs.frame.drop(columns=["nll"]).rename(columns={"accuracy": metric}))
    assert runs.best(metric).frame["lr"].unique().tolist() == [0.1 if largest else 1.0]


@pytest.mark.parametrize("per", ["objective", ["objective"], ("objective",)])
def test_best_for_each_value_of_a_column(per):
    found = MIXED.best(per=per)
    chosen = found.frame.groupby("objective")[["lr", "temperature"]].first()
    assert chosen["lr"].to_dict() == {"HardLabels": 0.01, "KDLoss": 0.01} and len(found) == 16
    by_temperature = (
        MIXED.best("nll", per="temperature")
        .frame.groupby("temperature", dropna=False)["lr"]
        .first()
    )
    assert by_temperature.tolist() == [0.01, 0.1, 0.1]  # T 1, T 4, no T


def test_an_estimate_averages_seeds_first_and_then_units():
    one = MIXED.where(objective="HardLabels", lr=0.01)
    found = one.estimate()
    means = [50 + u + 5 for u in range(4)]
    np.testing.assert_allclose(found.values[UNITS], means)
    np.testing.assert_allclose(
        found.interval(), stats.ttest_1samp(means, 0).confidence_interval(0.95)
    )
    assert (found.what, found.measure, found.seeds) == ("accuracy on validation", "%", 2)
    assert (one.estimate("nll").measure, one.estimate("nll").mean) == ("nats", 2.0)
    uneven = Runs((), one.frame.query("unit != 'digits/0' or seed == 1"))
    assert (uneven.estimate().mean, uneven.estimate().seeds) == (
        pytest.approx(np.mean([60, *means[1:]])),
        1,
    )


def test_minus_pairs_by_unit():
    gain = MIXED.where(temperature=1.0).minus(MIXED.where(objective="HardLabels", lr=0.01))
    expected = stats.ttest_rel([70] * 4, [55, 56, 57, 58]).confidence_interval(0.95)
    np.testing.assert_allclose(gain.interval(), expected)
    assert gain.what == "difference in accuracy on validation" and gain.measure == "points"


def test_more_than_one_cell_is_not_averaged_by_mistake():
    with pytest.raises(
        ValueError, match=r"estimate: these runs differ in \['lr', 'temperature'\]; choose one cell"
    ):
        MIXED.where(objective="KDLoss").estimate()


def test_estimates_by_one_column_or_more():
    taught = MIXED.where(objective="KDLoss")
    found, two = taught.estimates("temperature"), taught.estimates(["lr", "temperature"], "nll")
    assert list(taught.estimates(["lr"])) == [0.01, 0.1]
    assert {k: e.mean for k, e in found.items()} == pytest.approx({1.0: 70, 4.0: 60})
    assert {k: e.mean for k, e in two.items()} == pytest.approx({(0.01, 1.0): 3, (0.1, 4.0): 4})


def test_estimates_refuse_to_average_over_cells():
    with pytest.raises(ValueError, match=r"by 'lr' would average over \['objective'"):
        MIXED.estimates("lr")


def test_a_summary_has_one_row_a_cell():
    rows, half = MIXED.summary(), stats.t.ppf(0.975, 3) * np.std([0, 1, 2, 3], ddof=1) / 2
    assert rows["accuracy on validation"].tolist() == [
        f"56.50 ± {half:.2f} %",
        f"48.00 ± {12 * half:.2f} %",
        "70.00 ± 0.00 %",
        "60.00 ± 0.00 %",
    ]
    assert (
        rows["lr"].tolist() == [0.01, 0.1, 0.01, 0.1]
        and set(rows["units"]) == {4}
        and set(rows["seeds"]) == {2}
    )
    few = Runs(
        (),
        MIXED.frame.query("unit in ['digits/0', 'digits/1'] and lr == 0.01 and temperature == 1"),
    )
    assert few.summary().values.tolist() == [["70.00 (no interval: 2 of 4 units)", 2, 2]]
    assert "70.00" in few._repr_html_()


def test_values_on_the_test_set_are_those_of_the_students(runs, tasks):
    def margin(logits, data):
        return logits.softmax(-1).amax(-1).mean()

    for metric, by_hand in [
        ("accuracy", lambda z, y: (z.argmax(1) == y).double().mean()),
        ("nll", F.cross_entropy),
        (margin, lambda z, y: z.softmax(1).max(1).values.mean()),
    ]:
        found = runs.values(metric, on="test").set_index("run")["value"]
        for row in runs.last().itertuples():
            data = runs.tasks[row.unit].test
            with torch.no_grad():
                z = runs.module(run=row.run)(data.x)
            assert found[row.run] == pytest.approx(float(by_hand(z, data.y)), rel=1e-5)
    assert runs.where(lr=1e-2).estimate(margin, on="test").what == "margin on test"
    assert runs.where(lr=1e-2).summary(margin).columns[0] == "margin on validation"


def test_noisy_labels_are_not_what_accuracy_is_measured_by():
    noisy = load("digits", noise=0.5, **SMALL)
    found = train(mlp(32), noisy, epochs=30)
    guess = found.module()(noisy.train.x).argmax(1)
    assert (noisy.train.y != noisy.train.clean).sum() == 20
    assert found.values(on="train")["value"].item() == pytest.approx(
        (guess == noisy.train.clean).double().mean()
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("agreement",), "metric 'agreement' was not recorded; expected one of .*'accuracy'"),
        (
            ("agreement", "test"),
            "metric on test must be accuracy, nll, ece or a function, got 'agreement'",
        ),
        (("loss", "train"), "metric on train must be .* got 'loss'"),
        (("accuracy", "tset"), "on must be 'validation', 'test' or 'train', got 'tset'"),
    ],
)
def test_what_was_not_measured_is_not_read(arguments, words, runs):
    with pytest.raises(ValueError, match=f"^values: {words}"):
        runs.values(*arguments)


def test_runs_that_are_empty_say_so():
    assert repr(Runs()) == Runs()._repr_html_() == "Runs(none)" and len(Runs()) == 0
    with pytest.raises(ValueError, match="these runs are empty"):
        Runs().summary()


# --- learning curves ---


def along(values, epochs=(1, 5, 10), **columns):
    """Runs of one cell; values: (unit, seed, epoch) → accuracy; three steps an epoch."""
    runs = table([(columns, lambda u, s: 0.0, lambda u, s: 0.0)])
    once = runs.frame.query("epoch == 10").drop(columns="nll")
    each = [once.assign(epoch=e, steps=3 * e) for e in epochs]
    frame = pd.concat(each, ignore_index=True)
    places = zip(frame["unit"].map(UNITS.index), frame["seed"], frame["epoch"], strict=True)
    return Runs((), frame.assign(accuracy=[values(*place) for place in places], loss=0.25))


RISING = along(lambda u, s, e: 0.01 * u * e + 0.1 * s)


def test_a_curve_is_an_estimate_over_units_at_each_checkpoint():
    found = RISING.curve()
    assert list(found) == [1, 5, 10] and all(type(e) is int for e in found)
    for epoch, estimate in found.items():
        means = [epoch * u + 5 for u in range(4)]  # of two seeds, in %
        np.testing.assert_allclose(estimate.values[UNITS], means)
        expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
        np.testing.assert_allclose(estimate.interval(), expected)
    assert (found[1].what, found[1].measure) == ("accuracy on validation", "%")
    assert list(RISING.curve(over="steps")) == [3, 15, 30]
    assert RISING.curve("loss")[5].what == "loss in training"
    assert RISING.curve("loss")[5].mean == 0.25


def test_two_curves_are_paired_by_unit_where_both_have_a_checkpoint():
    other = along(lambda u, s, e: 0.02 * u * u, epochs=(5, 7, 10))
    found = RISING.curve(minus=other)
    assert list(found) == [5, 10] and found[5].measure == "points"
    for epoch, estimate in found.items():
        pairs = [epoch * u + 5 for u in range(4)], [2 * u * u for u in range(4)]
        expected = stats.ttest_rel(*pairs).confidence_interval(0.95)
        np.testing.assert_allclose(estimate.interval(), expected)
    assert list(RISING.curve(minus=other, over="steps")) == [15, 30]
    with pytest.raises(ValueError, match=r"minus must be .* at equal epochs, got \[1, 5, 10\] and"):
        RISING.curve(minus=along(lambda u, s, e: 0.5, epochs=(3, 4)))


def test_arms_of_different_numbers_of_images_meet_at_equal_steps():
    few = splits("digits", 4, labels_per_class=2, **SMALL)  # 20 images: two steps of 16 an epoch
    rest = {"batch": 16, "seeds": 1}
    labels = train(mlp(4), few, epochs=6, checkpoints=[3, 6], **rest)
    teacher = [torch.zeros(40, 10)] * 4  # 40 images: three steps
    taught = distill(mlp(4), teacher, few, epochs=4, checkpoints=4, on="transfer", **rest)
    assert list(labels.curve(over="steps")) == [6, 12]
    assert list(taught.curve(over="steps")) == [3, 6, 9, 12]
    found = taught.curve("nll", minus=labels, over="steps")
    assert list(found) == [6, 12] and found[6].measure == "nats"
    at = [runs.frame.query("steps == 6").set_index("unit")["nll"] for runs in (taught, labels)]
    assert found[6].mean == pytest.approx((at[0] - at[1]).mean())


def test_a_checkpoint_that_an_interrupt_kept_some_from_is_left_out():
    frame = RISING.frame
    reached = frame[(frame["run"] < 4) | (frame["epoch"] < 10)]
    assert list(Runs((), reached).curve()) == [1, 5]
    half = frame.assign(epoch=frame["epoch"].replace(10, 5.5))
    half["loss"] = half["loss"].mask(half["epoch"] == 5.5)  # the epoch was not finished
    assert list(Runs((), half).curve("loss")) == [1, 5]
    assert list(Runs((), half).curve()) == [1, 5, 5.5]


@pytest.mark.parametrize(
    "runs, arguments, words",
    [
        (MIXED, {}, r"curve: these runs differ in \['objective', 'lr', 'temperature', 'alpha'\]"),
        (RISING, {"minus": MIXED}, "curve: these runs differ in"),
        (RISING, {"metric": "nll"}, r"metric must be one that was recorded, of \[.*got 'nll'"),
        (RISING, {"over": "time"}, r"curve: over must be one of \['epochs', 'steps'\], got 'time'"),
        (RISING, {"metric": len}, r"got 'len'; give it to sweep: metrics=\[len\]"),
        (
            Runs((), RISING.frame.drop(columns="steps")),
            {"over": "steps"},
            "over must be 'epochs' for these runs: no steps",
        ),
        (
            Runs((), RISING.frame.assign(diverged=RISING.frame["run"] == 3)),
            {},
            "curve: 1 of 8 runs diverged",
        ),
    ],
)
def test_a_curve_that_cannot_be_drawn_says_why(runs, arguments, words):
    with pytest.raises(ValueError, match=words):
        runs.curve(**arguments)
    with pytest.raises(TypeError, match="curve: minus must be Runs, got int"):
        RISING.curve(minus=3)


def reads_3(logits, data):
    return (logits.argmax(1) == 3)[data.y == 3].float().mean()


def test_a_metric_of_one_s_own_is_a_column_along_the_way(tasks, tmp_path):
    runs = train(normed, tasks, epochs=4, checkpoints=2, seeds=2, metrics=[reads_3])
    last = runs.values(reads_3).set_index("run")["value"]  # by the students that were kept
    np.testing.assert_allclose(runs.last().set_index("run")["reads_3"], last)
    runs.save(tmp_path / "kept")
    for some in (runs, runs.where(epochs=4), Runs.load(tmp_path / "kept")):
        found = some.curve(reads_3)
        assert list(found) == [2, 4]
        assert [*map(str, found.values())] == [*map(str, some.curve("reads_3").values())]
        by_unit = runs.frame.query("epoch == 2").groupby("unit")["reads_3"].mean()
        np.testing.assert_allclose(found[2].values, 100 * by_unit)
        assert (found[4].what, found[4].measure) == ("reads 3 on validation", "%")
        assert str(some.estimate("reads_3")) == str(runs.estimate(reads_3))


def test_the_best_by_a_metric_of_one_s_own_has_the_largest():
    own = [({"lr": lr}, lambda u, s, v=v: v, lambda u, s: 0.0) for lr, v in [(1, 0.3), (2, 0.6)]]
    frame = table(own).frame.rename(columns={"accuracy": "reads_3"})
    assert Runs((), frame, metrics=["reads_3"]).best("reads_3").frame["lr"].unique() == [2]


def test_a_plot_is_a_picture_and_a_module_of_one_run(runs):
    assert isinstance(kd.plots.curve(runs, "lr", log=True), Picture)
    with pytest.raises(ValueError, match=r"module: {'seed': 0} must name one run, got 8"):
        runs.module(seed=0)
