"""The axes of a sweep: what takes the place of an objective's own settings, and what is refused."""

import math

import pytest
import torch

import kdlab as kd
from kdlab import DKDLoss, HiddenLoss, KDLoss, LabelSmoothing
from kdlab.losses.features import similarity

TEMPERATURES, ALPHAS = [1.0, 4.0, 8.0], [0.1, 0.9]
BUDGET = dict(epochs=2, batch=16)


@pytest.fixture(scope="module")
def task():
    return kd.load("digits", sizes=(64, 40, 40))


@pytest.fixture(scope="module")
def teacher(task):
    return kd.train(kd.mlp(16), task, epochs=4)


def told(runs):
    """What the frame says, without names, clocks and the order of its rows."""
    kept = runs.frame.drop(columns=["run", "seconds"])
    return kept.sort_values(["temperature", "alpha"]).reset_index(drop=True)


def assert_same(a, b):
    a, b = told(a), told(b)
    texts = a.select_dtypes(exclude="number").columns
    assert a[texts].equals(b[texts])
    for column in a.columns.difference(texts):
        assert a[column].tolist() == pytest.approx(b[column].tolist(), abs=1e-5, nan_ok=True)


def test_each_cell_of_a_sweep_is_the_run_of_an_objective_with_these_settings(task, teacher):
    grid = kd.sweep(
        kd.mlp(8),
        task,
        teacher=teacher,
        objective=DKDLoss(beta=2.0),
        temperature=TEMPERATURES,
        alpha=ALPHAS,
        **BUDGET,
    )
    cells = [(T, alpha) for T in TEMPERATURES for alpha in ALPHAS]
    assert sorted(zip(grid.frame["temperature"], grid.frame["alpha"], strict=True)) == cells
    assert set(grid.frame["objective"]) == {"DKDLoss"}
    assert grid.frame["loss"].nunique() == 6  # no setting is overlooked
    for T, alpha in cells:
        objective = DKDLoss(temperature=T, alpha=alpha, beta=2.0)
        alone = kd.sweep(kd.mlp(8), task, teacher=teacher, objective=objective, **BUDGET)
        assert_same(grid.where(temperature=T, alpha=alpha), alone)


@pytest.mark.parametrize("objective", [KDLoss(), KDLoss, KDLoss(2.0)], ids=["own", "class", "2"])
def test_a_temperature_takes_the_place_of_the_objective_s_own(objective, task, teacher):
    found = kd.distill(kd.mlp(8), teacher, task, objective=objective, temperature=8, **BUDGET)
    expected = kd.distill(kd.mlp(8), teacher, task, objective=KDLoss(8), **BUDGET)
    assert found.frame["temperature"].tolist() == [8.0] and found.frame["alpha"].tolist() == [0.9]
    assert_same(found, expected)


def test_what_is_left_out_is_the_objective_s_own(task, teacher):
    found = kd.distill(kd.mlp(8), teacher, task, objective=KDLoss(3.0, 0.4), **BUDGET)
    assert found.frame[["temperature", "alpha"]].values.tolist() == [[3.0, 0.4]]
    mixed = kd.distill(kd.mlp(8), teacher, task, objective=KDLoss(3.0, 0.4), alpha=[0.1], **BUDGET)
    assert mixed.frame[["temperature", "alpha"]].values.tolist() == [[3.0, 0.1]]
    labels = kd.train(kd.mlp(8), task, **BUDGET)
    assert labels.frame[["temperature", "alpha"]].isna().all(axis=None)


def test_an_objective_given_to_two_sweeps_stays_as_it_is(task, teacher):
    objective = KDLoss(3.0)
    kd.distill(kd.mlp(8), teacher, task, objective=objective, temperature=[1, 8], **BUDGET)
    assert (objective.temperature, objective.alpha) == (3.0, 0.9)


def test_a_hidden_loss_takes_the_settings_of_its_base(task, teacher):
    def hint(base):
        return HiddenLoss(similarity, [("2", "2")], weight=10.0, base=base)

    found = kd.distill(
        kd.mlp(8), teacher, task, objective=hint(KDLoss()), temperature=2, alpha=0.3, **BUDGET
    )
    expected = kd.distill(kd.mlp(8), teacher, task, objective=hint(KDLoss(2, 0.3)), **BUDGET)
    assert found.frame[["temperature", "alpha"]].values.tolist() == [[2.0, 0.3]]
    assert_same(found, expected)


@pytest.mark.parametrize(
    "train, words",
    [
        (
            lambda task, teacher: kd.train(kd.mlp(8), task, temperature=[1, 2, 3]),
            r"temperature .*, got \[1.0, 2.0, 3.0\] for HardLabels\(\), which takes none",
        ),
        (
            lambda task, teacher: kd.sweep(
                kd.mlp(8), task, objective=LabelSmoothing(0.1), alpha=0.5
            ),
            r"alpha .*, got \[0.5\] for LabelSmoothing\(epsilon=0.1\), which takes none",
        ),
        (
            lambda task, teacher: kd.sweep(
                kd.mlp(8), task, teacher=teacher, objective=[KDLoss(), LabelSmoothing()], alpha=0.5
            ),
            r"alpha .* for LabelSmoothing",
        ),
        (
            lambda task, teacher: kd.distill(
                kd.mlp(8),
                teacher,
                task,
                objective=HiddenLoss(similarity, [("2", "2")]),
                temperature=2,
            ),
            r"temperature .*, got \[2.0\] for HiddenLoss\(.*\), which takes none",
        ),
    ],
    ids=["train", "smoothing", "one of two", "hint"],
)
def test_a_setting_that_an_objective_lacks_is_refused(train, words, task, teacher):
    with pytest.raises(ValueError, match=rf"^sweep: {words.split(' ')[0]} must be left out"):
        train(task, teacher)
    with pytest.raises(ValueError, match=words):
        train(task, teacher)


@pytest.mark.parametrize(
    "objective, told",
    [
        (KDLoss(), "KDLoss(temperature=4.0, alpha=0.9)"),
        (
            KDLoss(2, 0.5, scale="none", standardise=True),
            "KDLoss(temperature=2, alpha=0.5, scale='none', standardise=True)",
        ),
        (DKDLoss(), "DKDLoss(alpha=1.0, beta=8.0, temperature=4.0)"),
        (
            kd.TokenLoss(kd.jsd, beta=0.1),
            "TokenLoss(divergence=jsd, beta=0.1, alpha=1.0, temperature=1.0)",
        ),
        (LabelSmoothing(0.2), "LabelSmoothing(epsilon=0.2)"),
        (kd.HardLabels(), "HardLabels()"),
        (kd.SquaredError(0.4), "SquaredError(alpha=0.4)"),
        (
            HiddenLoss(similarity, [("1", "3")], 5.0, base=KDLoss(2.0)),
            "HiddenLoss(distance=similarity, pairs=[('1', '3')], weight=5.0,"
            " base=KDLoss(temperature=2.0, alpha=0.9))",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_objective_shows_its_settings(objective, told):
    assert repr(objective) == told


def test_settings_of_an_objective_without_any_are_nan():
    found = kd.sweep(
        kd.mlp(2), kd.load("digits", sizes=(20, 10, 10)), objective=kd.HardLabels(), epochs=1
    )
    assert all(math.isnan(found.frame[k].item()) for k in ("temperature", "alpha"))


def test_a_setting_of_the_objective_s_own_is_an_axis_and_a_column(task, teacher, tmp_path):
    how = dict(teacher=teacher, seeds=2, **BUDGET)
    grid = kd.sweep(kd.mlp(8), task, objective=DKDLoss(), beta=[1, 8], temperature=[2, 4], **how)
    assert grid.summary()[["temperature", "beta"]].values.tolist() == [
        [T, beta] for T in (2.0, 4.0) for beta in (1.0, 8.0)
    ]
    for beta in (1, 8):
        alone = kd.sweep(kd.mlp(8), task, objective=DKDLoss(beta=beta), temperature=[2, 4], **how)
        assert_same(grid.where(beta=beta), alone)
    chosen = grid.where(temperature=2).best()
    assert len(chosen) == 2 and chosen.frame["beta"].nunique() == 1
    grid.save(tmp_path / "kept")
    assert kd.Runs.load(tmp_path / "kept").summary().equals(grid.summary())


def test_an_objective_without_a_setting_of_another_has_nan_in_its_column(task, teacher):
    both = kd.distill(kd.mlp(8), teacher, task, objective=[KDLoss(), DKDLoss(beta=2.0)], **BUDGET)
    assert both.frame["beta"].tolist() == pytest.approx([math.nan, 2.0], nan_ok=True)
    assert "beta" not in kd.distill(kd.mlp(8), teacher, task, **BUDGET).frame
    told = kd.distill(
        kd.mlp(8), teacher, task, objective=[DKDLoss(beta=1), DKDLoss(beta=2)], **BUDGET
    )
    assert told.summary()["beta"].tolist() == [1.0, 2.0]


class Margins(kd.Objective):
    """Squares of what is left of a distance above `tau`; written for a stack, or not."""

    swept = ("tau",)

    def __init__(self, tau=0.5, per_row=True):
        self.tau, self._per_row = tau, per_row

    def rows(self, student, teacher, labels):
        far = (student - teacher).square().mean(-1)
        tau = self.tau[..., 0] if self._per_row and torch.is_tensor(self.tau) else self.tau
        return {"loss": (far - tau).relu()}


def test_an_own_objective_s_setting_is_an_axis(task, teacher):
    how = dict(teacher=teacher, **BUDGET)
    grid = kd.sweep(kd.mlp(8), task, objective=Margins(), tau=[0.1, 3.0], **how)
    assert grid.frame["tau"].tolist() == [0.1, 3.0] and repr(grid).endswith("{'tau': [0.1, 3.0]})")
    for tau in (0.1, 3.0):
        alone = kd.sweep(kd.mlp(8), task, objective=Margins(tau), **how)
        assert_same(grid.where(tau=tau), alone)
    hidden = HiddenLoss(similarity, [("2", "2")], base=Margins())
    both = kd.distill(kd.mlp(8), teacher, task, objective=hidden, tau=[0.1, 3.0], **BUDGET)
    assert both.frame["tau"].tolist() == [0.1, 3.0] and both.frame["loss"].nunique() == 2


class Named(Margins):
    def __init__(self, name):
        super().__init__()
        self.swept = (name,)


@pytest.mark.parametrize(
    "objective, setting, error, words",
    [
        (KDLoss(), {"beta": [1, 8]}, TypeError, r"\['beta'\] are no arguments of sweep, no settin"),
        ([DKDLoss(), KDLoss()], {"beta": 1}, ValueError, r"beta must be left out .* for KDLoss\("),
        (DKDLoss(), {"beta": [1, -1]}, ValueError, "beta must be at least 0 and finite, got -1"),
        (
            HiddenLoss(similarity, [("2", "2")], base=DKDLoss()),
            {"beta": -1},
            ValueError,
            "beta must be at least 0 and finite, got -1",
        ),
        (DKDLoss(), {"beta": "8"}, ValueError, "sweep: beta must be a finite number.*, got '8'"),
        (DKDLoss(), {"beta": []}, ValueError, "sweep: beta must hold at least one value"),
        (Margins(torch.ones(2)), {}, TypeError, r"must hold one number as tau, got tensor\(\[1"),
        (Named("lr"), {}, ValueError, r"objective must name settings .*got \['lr'\] of Named"),
        (Named("momentum"), {}, ValueError, r"got \['momentum'\] of Named"),
        (Named("accuracy"), {}, ValueError, r"got \['accuracy'\] of Named"),
        (
            Margins(per_row=False),
            {"tau": [0.1, 3.0]},
            ValueError,
            r"objective must give one loss a row, the shape \(2, 16\), got \(2, 2, 16\); .*per_row",
        ),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(objective, setting, error, words, task, teacher):
    with pytest.raises(error, match=words):
        kd.sweep(kd.mlp(8), task, teacher=teacher, objective=objective, **setting, **BUDGET)


def test_a_metric_does_not_take_the_column_of_a_setting(task, teacher):
    def beta(logits, data):
        return 0.5

    with pytest.raises(ValueError, match=r"metrics must have names of their own, .*\['beta'\]"):
        kd.distill(kd.mlp(8), teacher, task, objective=DKDLoss(), metrics=[beta], **BUDGET)


@pytest.mark.parametrize(
    "axes, words",
    [
        ({"lr": [0.01, 0.01]}, r"lr must hold each value once, got \[0.01, 0.01\]"),
        ({"batch": [16, 32, 16]}, r"batch must hold each value once, got \[16, 32, 16\]"),
        ({"epochs": (1, 1)}, r"epochs must hold each value once, got \[1, 1\]"),
        ({"temperature": [4, 4.0]}, r"temperature must hold each value once, got \[4.0, 4.0\]"),
        ({"alpha": [None, None]}, "alpha must hold each value once"),
        (
            {"alpha": [None, 0.9]},
            r"alpha must hold each value once, got \[0.9, 0.9\] for KDLoss\(temp",
        ),
        (
            {"beta": [8, None], "objective": DKDLoss()},
            r"beta must hold each value once, got \[8.0, 8.0\] for DKDLoss\(",
        ),
        (
            {"temperature": 2, "objective": [KDLoss(1.0), KDLoss(4.0)]},
            r"objective must hold values of different names.*got \['KDLoss', 'KDLoss'\]",
        ),
    ],
)
def test_a_value_that_comes_twice_is_refused_by_its_axis(axes, words, task, teacher):
    with pytest.raises(ValueError, match=f"^sweep: {words}"):
        kd.sweep(kd.mlp(8), task, teacher=teacher, **{"epochs": 1} | axes)


def test_objectives_of_one_name_are_told_apart_by_their_settings(task, teacher):
    both = kd.distill(
        kd.mlp(8), teacher, task, objective=[KDLoss(1.0), KDLoss(4.0)], alpha=[0.1, 0.5], **BUDGET
    )
    cells = both.frame[["temperature", "alpha"]].values.tolist()
    assert cells == [[1.0, 0.1], [1.0, 0.5], [4.0, 0.1], [4.0, 0.5]]
