"""A student that diverged has no number: not in a metric, a summary, an estimate, a claim or a
plot."""

import itertools
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_loop import alone, built, logits_of
from scipy import special
from sklearn.metrics import accuracy_score, log_loss

import kdlab as kd
from kdlab.show import hidden_layers as layers
from kdlab.show import plots
from kdlab.show import race as races
from kdlab.show import student_choice as tradeoff
from kdlab.show import temperature as explorers
from kdlab.training.axes import Run, Stack
from kdlab.training.replicas import Replicas
from kdlab.training.stepper import Stepper

SMALL = {"sizes": (50, 40, 40)}
QUICK = {"epochs": 1, "batch": 16}
BAD = [math.nan, math.inf, -math.inf]
NEVER = dict(lr=1e30, optimiser="sgd", schedule="constant")  # one step, and no weight is finite


@pytest.fixture(scope="module")
def tasks():
    return kd.splits("digits", 4, **SMALL)


@pytest.fixture(scope="module")
def fallen(tasks):
    """Two learning rates, four units, two seeds: all of the second diverge."""
    return kd.train(
        kd.mlp(8),
        tasks,
        seeds=2,
        optimiser="sgd",
        schedule="constant",
        lr=[1e-2, 1e30],
        epochs=2,
        batch=16,
        checkpoints=2,
    )


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were made into pictures."""
    figures, made = [], plots.Picture.__init__
    monkeypatch.setattr(
        plots.Picture,
        "__init__",
        lambda self, figure, *words: made(self, figure, *words) or figures.append(figure),
    )
    return figures


# --- metrics: NaN exactly where a row can't be judged ---


@st.composite
def spoilt(draw, replicas=3, rows=6, classes=4):
    """Logits of three models with some NaN, +inf and −inf anywhere, and labels."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    z = 2 * torch.randn(replicas, rows, classes, generator=generator)
    y = torch.randint(classes, (replicas, rows), generator=generator)
    place = st.tuples(*(st.integers(0, n - 1) for n in z.shape), st.sampled_from(BAD))
    for r, n, c, value in draw(st.lists(place, max_size=6)):
        z[r, n, c] = value
    return z, y


def readable(z):
    """Row by row in numpy: no NaN, no +inf, and not −inf throughout."""
    return not (np.isnan(z).any() or (z == np.inf).any() or (z == -np.inf).all(1).any())


@given(spoilt(), spoilt())
@settings(max_examples=100)
def test_a_metric_is_nan_for_the_replica_that_cannot_be_judged_and_right_for_the_others(one, two):
    (z, y), (other, _) = one, two
    found = {m: getattr(kd, m)(z, y).tolist() for m in ("accuracy", "nll", "ece")}
    found |= {"entropy": kd.entropy(z).tolist(), "agreement": kd.agreement(z, other).tolist()}
    for r in range(len(z)):
        a, b, labels = z[r].double().numpy(), other[r].double().numpy(), y[r].numpy()
        if not readable(a):
            assert all(math.isnan(v[r]) for v in found.values())
            continue
        p = special.softmax(a, -1)
        assert found["accuracy"][r] == pytest.approx(accuracy_score(labels, a.argmax(1)))
        assert found["entropy"][r] == pytest.approx(special.entr(p).sum(1).mean(), rel=1e-5)
        assert 0 <= found["ece"][r] <= 1
        ruled_out = (p[range(len(p)), labels] == 0).any()  # log_loss would clip it
        expected = math.inf if ruled_out else log_loss(labels, p, labels=range(4))
        assert found["nll"][r] == pytest.approx(expected, rel=1e-5)
        agrees = accuracy_score(b.argmax(1), a.argmax(1)) if readable(b) else math.nan
        assert found["agreement"][r] == pytest.approx(agrees, nan_ok=True)


@given(spoilt())
@settings(max_examples=30)
def test_metrics_give_the_same_under_vmap(given):
    z, y = given
    for metric in (kd.accuracy, kd.nll, kd.ece):
        torch.testing.assert_close(torch.vmap(metric)(z, y), metric(z, y), equal_nan=True)
    torch.testing.assert_close(torch.vmap(kd.entropy)(z), kd.entropy(z), equal_nan=True)
    torch.testing.assert_close(
        torch.vmap(kd.agreement)(z, z.flip(1)), kd.agreement(z, z.flip(1)), equal_nan=True
    )


@pytest.mark.parametrize("label", [-100, -1, 4])
@pytest.mark.parametrize("metric", [kd.accuracy, kd.nll, kd.ece])
def test_a_label_that_is_no_class_makes_a_metric_nan(metric, label):
    z, y = torch.randn(2, 5, 4), torch.tensor([[0, 1, 2, 3, 0], [0, 1, 2, 3, label]])
    assert metric(z, y).isfinite().tolist() == [True, False]


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int16])
def test_labels_may_be_whole_numbers_of_any_size(kind):
    z, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    for metric in (kd.accuracy, kd.nll, kd.ece):
        torch.testing.assert_close(metric(z, y.to(kind)), metric(z, y))


# --- training: diverged exactly where the usual loop is ---


def is_finite(model, loss, x):
    weights = all(bool(p.isfinite().all()) for p in model.parameters())
    z = logits_of(model, x)
    return weights and math.isfinite(loss) and bool(z.isfinite().all())


@pytest.mark.parametrize("lr", [1e3, 1e6, 1e12, 1e25])
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize(
    "student", [kd.mlp(12), kd.mlp(16, 16), kd.convnet(3)], ids=lambda b: b.__name__
)
def test_a_run_diverged_exactly_where_the_usual_loop_does(student, optimiser, lr, tasks):
    task = tasks[0]
    runs = kd.train(
        student, task, lr=lr, optimiser=optimiser, schedule="constant", seeds=2, epochs=3, batch=16
    )
    for row in runs.frame.itertuples():
        reference = built(student, task, row.seed)
        loss = alone(
            reference,
            task.train.x,
            task.train.y,
            seed=row.seed,
            lr=lr,
            schedule="constant",
            optimiser={"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimiser],
        )
        sound = is_finite(reference, loss, task.validation.x)
        assert row.diverged is not sound
        assert math.isfinite(row.accuracy) == sound and math.isfinite(row.nll) == sound


def poisoned(unit, seed, place, value):
    """A builder whose student of this unit and seed starts with one weight that is not finite."""

    def build(task):
        model = kd.mlp(6, 5)(task)
        if task.unit == unit and torch.initial_seed() == seed:
            flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
            flat[place % len(flat)] = value
            torch.nn.utils.vector_to_parameters(flat, model.parameters())
        return model

    build.__name__ = "poisoned"
    return build


def share_of_first_class(logits, data):
    return (logits.argmax(-1) == 0).float().mean()  # would be 100 % for NaN


@given(
    st.integers(0, 3),
    st.integers(0, 1),
    st.integers(0, 10**6),
    st.sampled_from(BAD),
    st.sampled_from(["adam", "sgd"]),
)
@settings(max_examples=4)
def test_no_reading_shows_a_number_of_a_student_with_one_weight_that_is_not_finite(
    unit, seed, place, value, optimiser
):
    tasks = kd.splits("digits", 4, **SMALL)
    builder = poisoned(tasks[unit].unit, seed, place, value)
    runs = kd.sweep(
        [kd.mlp(4), builder],
        tasks,
        objective=kd.HardLabels(),
        seeds=2,
        optimiser=optimiser,
        lr=1e-2,
        **QUICK,
    )
    reference = built(builder, tasks[unit], seed)
    loss = alone(
        reference,
        tasks[unit].train.x,
        tasks[unit].train.y,
        seed=seed,
        epochs=1,
        optimiser={"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimiser],
    )
    assert not is_finite(reference, loss, tasks[unit].validation.x)
    gone = (
        (runs.frame["student"] == "poisoned")
        & (runs.frame["unit"] == tasks[unit].unit)
        & (runs.frame["seed"] == seed)
    )
    assert runs.frame["diverged"].tolist() == gone.tolist()
    shows_nothing_of("poisoned", runs, gone)


def readings(runs, good, bad, metric, on):
    """Every way to a number with an interval."""
    return [
        lambda: bad.estimate(metric, on),
        lambda: runs.estimates("student", metric, on),
        lambda: good.minus(bad, metric, on),
        lambda: bad.minus(good, metric, on),
        lambda: kd.claim("it helps", bad.minus(good, metric, on) > 0),
    ]


def shows_nothing_of(student, runs, gone):
    """Every reading of runs of two students, of which `gone` (a mask of the last rows) diverged."""
    count = f"{gone.sum()} of {int((runs.last()['student'] == student).sum())}"
    for metric, on in [
        ("accuracy", "validation"),
        ("nll", "validation"),
        ("accuracy", "test"),
        (share_of_first_class, "validation"),
        (share_of_first_class, "test"),
    ]:
        found = runs.values(metric, on)
        assert found["value"].isna().tolist() == gone.tolist()
        summary = runs.summary(metric, on).set_index("student")
        assert summary.iloc[:, 0].str.contains("diverged").to_dict() == {
            "mlp 4": False,
            student: True,
        }
        assert summary.loc[student].iloc[0] == f"diverged: {count}"
        assert summary["diverged"].to_dict() == {"mlp 4": 0, student: gone.sum()}
        bad, good = runs.where(student=student), runs.where(student="mlp 4")
        for read in readings(runs, good, bad, metric, on):
            with pytest.raises(
                ValueError, match=f"diverged .*{student}.*{count}.* lower lr or clip=.*where"
            ):
                read()
        with pytest.warns(
            UserWarning, match=f"best: left out cells with diverged runs: student {student} "
        ):
            assert runs.best(metric).frame["student"].unique().tolist() == ["mlp 4"]
    assert f", {gone.sum()} diverged;" in repr(runs) and "diverged" in runs._repr_html_()
    assert runs.diverged("student") == {student: count}
    words = kd.plots.curve(runs, "student")
    assert (
        f"student {student} ({count} runs)" in words.caption
        and f"{student} ({count} runs)" in words.alt
    )


def test_a_whole_cell_of_diverged_runs_is_named(fallen):
    with pytest.raises(ValueError, match=r"estimate: 8 of 8 runs diverged .*lr 1e\+30 \(8 of 8\)"):
        fallen.where(lr=1e30).estimate()
    with pytest.raises(ValueError, match=r"minus: 8 of 8 runs diverged"):
        fallen.where(lr=1e-2).minus(fallen.where(lr=1e30))
    with pytest.raises(
        ValueError, match=r"estimates: 8 of 16 runs diverged .*lr 1e\+30 \(8 of 8\)"
    ):
        fallen.estimates("lr")
    assert fallen.summary()["diverged"].tolist() == [0, 8]
    assert fallen.where(lr=1e30).values("accuracy")["value"].isna().all()  # recorded, and NaN
    assert "diverged" not in fallen.where(lr=1e-2).summary() and "diverged" not in repr(
        fallen.where(lr=1e-2)
    )


def test_runs_without_the_diverged_ones_are_chosen_by_the_column(fallen):
    left = fallen.where(diverged=False)
    assert left.frame["lr"].unique().tolist() == [1e-2] and len(left) == 8 and left.diverged() == {}
    assert left.estimate().mean == pytest.approx(
        100 * fallen.where(lr=1e-2).last()["accuracy"].mean()
    )


def test_best_never_chooses_a_diverged_cell_and_says_what_it_left_out(fallen):
    with pytest.warns(
        UserWarning, match=r"^best: left out cells with diverged runs: lr 1e\+30 \(8 of 8\)$"
    ):
        assert fallen.best().frame["lr"].unique().tolist() == [1e-2]
    with pytest.raises(ValueError, match="best: 8 of 8 runs diverged"):
        fallen.where(lr=1e30).best()
    with pytest.raises(
        ValueError, match="best: 8 of 16 runs diverged"
    ):  # one learning rate would be missing
        fallen.best(per="lr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fallen.where(lr=1e-2).best()


def test_one_diverged_run_of_many_takes_its_cell_out_of_the_choice():
    rows = [
        {
            "run": i,
            "unit": f"digits/{u}",
            "seed": s,
            "student": "mlp 8",
            "batch": 32,
            "epochs": 1,
            "lr": lr,
            "objective": "HardLabels",
            "temperature": math.nan,
            "alpha": math.nan,
            "epoch": 1,
            "accuracy": math.nan if (lr, u, s) == (0.1, 2, 1) else lr,
            "diverged": (lr, u, s) == (0.1, 2, 1),
        }
        for i, (lr, u, s) in enumerate(itertools.product([0.01, 0.1], range(4), range(2)))
    ]
    runs = kd.Runs((), pd.DataFrame(rows))
    with pytest.warns(UserWarning, match=r"lr 0\.1 \(1 of 8\)"):
        assert runs.best().frame["lr"].unique().tolist() == [
            0.01
        ]  # though the other seven are better
    assert runs.summary()["accuracy on validation"].tolist() == [
        "1.00 ± 0.00 %",
        "diverged: 1 of 8",
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_function_that_gives_no_number_for_one_seed_is_not_averaged_over_the_others(
    value, fallen
):
    found = itertools.cycle([value, 0.5])  # the first of two seeds
    sound = fallen.where(lr=1e-2)
    with pytest.raises(ValueError, match="must be finite for every unit.*diverged"):
        sound.estimate(lambda logits, data: next(found))


def test_the_loss_of_an_interrupted_run_was_not_recorded_which_is_no_divergence(
    tasks, monkeypatch, capsys
):
    step, count = Stepper.step, itertools.count()

    def stop(self, *args):
        if next(count) == 6:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Stepper, "step", stop)
    runs = kd.train(kd.mlp(4), tasks, epochs=4, batch=16)
    assert "Interrupted" in capsys.readouterr().out and runs.last()["epoch"].tolist() == [1.5] * 4
    assert "loss" not in runs.frame and not runs.frame["diverged"].any()
    assert runs.diverged() == {} and runs.estimate().mean > 0 and "diverged" not in runs.summary()


def test_an_interrupted_run_that_had_diverged_says_so(tasks, monkeypatch, capsys):
    step, count = Stepper.step, itertools.count()

    def stop(self, *args):
        if next(count) == 6:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Stepper, "step", stop)
    runs = kd.train(kd.mlp(16, 16), tasks, epochs=4, batch=16, **NEVER)
    assert runs.frame["diverged"].all() and runs.frame["accuracy"].isna().all()


@pytest.mark.parametrize(
    "checkpoints, expected",
    [
        ([(math.nan, True), (2.0, False)], False),
        ([(2.0, False), (math.nan, True)], True),
        ([(2.0, False)], False),
    ],
)
def test_a_run_is_judged_by_its_last_epoch(checkpoints, expected):
    runs = kd.Runs([kd.load("digits", **SMALL)])
    run = Run(lr=0.01, settings={}, task=0, seed=0, nth_seed=0)
    stack = Stack(kd.mlp(4), kd.HardLabels(), batch=16, epochs=len(checkpoints), runs=[run])
    for epoch, (nll, diverged) in enumerate(checkpoints, 1):
        runs.record(
            stack, epoch, {}, {"nll": torch.tensor([nll]), "diverged": torch.tensor([diverged])}
        )
    runs.keep(Replicas([kd.mlp(4)(kd.load("digits"))], seeds=[0]))
    assert runs.frame["diverged"].tolist() == [expected] * len(checkpoints)
    assert runs.values("nll")["value"].isna().item() is expected


def test_diverged_runs_are_saved_and_come_back_as_such(fallen, tasks, tmp_path):
    fallen.save(tmp_path / "kept")
    for again in (
        kd.Runs.load(tmp_path / "kept"),
        kd.Runs.load(tmp_path / "kept", [kd.mlp(8)], tasks),
    ):
        assert again.diverged("lr") == {1e30: "8 of 8"} and again.summary().equals(fallen.summary())
        with pytest.raises(ValueError, match="8 of 8 runs diverged"):
            again.where(lr=1e30).estimate()
    assert again.values("accuracy", "test")["value"].isna().tolist() == [False] * 8 + [True] * 8


def test_mapped_students_of_diverged_runs_stay_diverged(fallen):
    mapped = fallen.map(lambda student: student)
    assert mapped.values(share_of_first_class)["value"].isna().tolist() == [False] * 8 + [True] * 8


def test_a_diverged_teacher_teaches_nobody(fallen, tasks):
    with pytest.raises(ValueError, match="teacher logits for digits/0 hold NaN"):
        kd.distill(kd.mlp(4), fallen.where(lr=1e30, seed=0), tasks, **QUICK)


@pytest.mark.parametrize("teacher", [kd.EMA(0.5), kd.Peers(2)], ids=["EMA", "Peers"])
def test_students_that_diverge_under_a_teacher_that_learns_have_no_agreement(teacher, tasks):
    runs = kd.distill(
        kd.mlp(16, 16), teacher, tasks, temperature=1, alpha=0.5, seeds=2, **QUICK, **NEVER
    )
    assert runs.frame["diverged"].all()
    assert runs.frame[["accuracy", "nll", "ece", "agreement"]].isna().all(axis=None)


# --- plots and explorers ---


def crosses(ax):
    return [
        (list(line.get_xdata()), list(line.get_ydata()))
        for line in ax.lines
        if line.get_marker() == "x" and len(line.get_xdata())
    ]


def test_a_curve_draws_what_is_finite_and_marks_what_diverged(fallen, drawn):
    found = kd.plots.curve(fallen, "lr")
    (ax,) = drawn[0].axes
    assert [list(c.lines[0].get_xdata()) for c in ax.containers] == [[1e-2]]
    assert list(ax.containers[0].lines[0].get_ydata()) == [fallen.where(lr=1e-2).estimate().mean]
    assert crosses(ax) == [([1e30], [0.04])] and ax.get_xlim()[1] > 1e30
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["diverged"]
    assert "lr 1e+30 (8 of 8 runs)" in found.caption and "lr 1e+30 (8 of 8 runs)" in found.alt


def test_a_curve_of_nothing_but_diverged_runs_is_all_crosses(fallen, drawn):
    found = kd.plots.curve(fallen.where(lr=1e30), "lr", caption="Mine.", alt="Words.")
    (ax,) = drawn[0].axes
    assert crosses(ax) == [([1e30], [0.04])] and len(ax.containers[0].lines[0].get_xdata()) == 0
    assert ax.get_ylabel() == "accuracy on validation"
    assert found.caption.startswith("Mine. Diverged, marked ×") and found.alt.startswith(
        "Words. Diverged, marked ×"
    )


def test_a_curve_with_groups_marks_each_ones_diverged_cells(fallen, drawn):
    frame = pd.concat(
        [fallen.frame.assign(batch=b, run=fallen.frame["run"] + 100 * b) for b in (16, 32)]
    )
    frame.loc[frame["batch"] == 32, "diverged"] = False
    frame["accuracy"] = frame["accuracy"].fillna(0.2)
    kd.plots.curve(kd.Runs((), frame.reset_index(drop=True)), "lr", by="batch", log=True)
    (ax,) = drawn[0].axes
    assert [list(c.lines[0].get_xdata()) for c in ax.containers] == [[1e-2], [1e-2, 1e30]]
    assert crosses(ax) == [([1e30], [0.04])]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "batch 16",
        "batch 32",
        "diverged",
    ]


@pytest.mark.parametrize(
    "cell", [(math.nan, "helps"), (math.nan, "diverged"), (1.0, "diverged"), (math.inf, "hurts")]
)
def test_a_map_marks_a_cell_without_a_number(cell, drawn):
    plots.verdict_map(
        ["p"],
        [0],
        [0, 1],
        lambda p, r, c: cell if c else (1.2, "helps"),
        "A caption.",
        "An alt text.",
        "noise",
        "T",
    )
    (ax,) = drawn[0].axes
    assert [t.get_text() for t in ax.texts] == ["+\n+1.2", "×"]
    assert np.ma.getmaskarray(ax.images[0].get_array()).tolist() == [[False, True]]
    legend = [t.get_text() for t in drawn[0].legends[0].get_texts()]
    assert legend[-1] == "× diverged" and len(legend) == len(plots.SIGNS) + 1


def test_the_race_says_diverged_instead_of_a_number(monkeypatch):
    race = kd.distillation_race(count=4, steps=10)
    sweep = races.sweep
    monkeypatch.setattr(races, "sweep", lambda *args, **options: sweep(*args, **options | NEVER))
    answer = race.move(T=8.0).answer
    assert "8 of 8 runs diverged" in answer["error"]


def test_hidden_layers_side_by_side_say_diverged(monkeypatch):
    train = layers.train
    monkeypatch.setattr(
        layers,
        "train",
        lambda student, tasks, **options: train(
            student, tasks, **options | (NEVER if student.__name__ == "convnet 4-8" else {})
        ),
    )
    with pytest.raises(ValueError, match="estimate: 4 of 4 runs diverged"):
        layers.hidden_layers_explorer(epochs=1)


def test_a_student_that_diverged_is_named_and_never_picked(tasks):
    sizes = {
        "small": kd.train(kd.mlp(4), tasks, **QUICK),
        "wild": kd.train(kd.mlp(8), tasks, **QUICK, **NEVER),
    }
    answer = tradeoff.choose_student_explorer(sizes, kd.train(kd.mlp(16), tasks, **QUICK)).answer
    assert (
        answer["lines"][-1]
        == "wild: diverged in 4 of 4 runs, so it has no accuracy and is left out."
    )
    assert sum("wild" in line for line in answer["lines"]) == 1
    with pytest.raises(
        ValueError, match="must hold a student to choose; wild: diverged in 4 of 4 runs"
    ):
        tradeoff.choose_student_explorer({"wild": sizes["wild"]}, sizes["wild"])


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_the_temperature_explorer_refuses_answers_that_are_not_finite(who, tasks):
    models = {k: kd.mlp(4)(tasks[0]) for k in ("teacher", "student")}
    torch.nn.init.constant_(models[who][1].weight, math.nan)
    with pytest.raises(
        ValueError, match=f"temperature_explorer: {who} must give finite logits.*diverged"
    ):
        explorers.temperature_explorer(tasks[0], **models)
