"""kdlab.evidence.audit: its numbers by hand, and its intervals by counting."""

import numpy as np
import pytest
import torch
from scipy import stats

import kdlab as kd
from kdlab.evidence.audit import audit, calibrated, matched, wilson


def named(guesses, sure=5.0, classes=3):
    return sure * torch.eye(classes)[torch.tensor(guesses)]


LABELS = torch.tensor([0] * 12 + [1] * 12 + [2] * 6)
TEACHER = named([0] * 12 + [1] * 10 + [2] * 2 + [2] * 6)  # two of class 1 read as 2
STUDENT = named(
    [0] * 8 + [1] * 4 + [1] * 10 + [2, 1] + [2] * 6
)  # loses four, repeats one, wins one


def test_the_table_counts_who_is_right_in_each_group():
    marked = torch.arange(30) % 2 == 0
    found = audit(TEACHER, STUDENT, LABELS, ["a", "b", "c"], {"marked": marked}).table()
    assert found["rows"].to_dict() == {"all": 30, "a": 12, "b": 12, "c": 6, "marked": 15}
    assert found["lost"].to_dict() == {"all": 4, "a": 4, "b": 0, "c": 0, "marked": 2}
    assert found["won"].to_dict() == {"all": 1, "a": 0, "b": 1, "c": 0, "marked": 0}
    assert found.loc["all", "teacher"] == pytest.approx(100 * 28 / 30)
    assert found.loc["a", ["student", "change"]].tolist() == pytest.approx([100 * 8 / 12, -100 / 3])
    assert found.loc["c", "verdict"] == "too few" and np.isnan(found.loc["c", "low"])
    low, high = matched(4, 0, 12, cells=5)
    assert found.loc["a", ["low", "high"]].tolist() == pytest.approx([low, high])


def test_mistakes_are_told_the_surest_first_and_those_that_are_inherited():
    student = STUDENT.clone()
    student[10] *= 2  # surest of the four
    found = audit(TEACHER, student, LABELS)
    assert found.worse().tolist() == [10, 8, 9, 11] and found.worse(2).tolist() == [10, 8]
    assert found.repeated() == (1, 2)
    assert found.agreement == pytest.approx((30 - 4 - 1) / 30)
    assert found.calibration["teacher"] == pytest.approx(100 * float(kd.ece(TEACHER, LABELS)))
    assert found.calibration["student"] == pytest.approx(100 * float(kd.ece(student, LABELS)))


@pytest.mark.parametrize("hits, n", [(0, 1), (1, 1), (347, 359), (20, 20), (1, 10_000)])
def test_the_interval_of_agreement_is_wilson_s(hits, n):
    wanted = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_an_audit_carries_its_intervals():
    found = audit(TEACHER, STUDENT, LABELS)
    wanted = stats.binomtest(25, 30).proportion_ci(method="wilson")
    assert found.agreement_interval == pytest.approx((wanted.low, wanted.high))
    for who in ("teacher", "student"):
        low, high = found.calibration_interval[who]
        assert 0 <= low < found.calibration[who] < high
    assert found.calibration_interval == audit(TEACHER, STUDENT, LABELS).calibration_interval
    few = audit(TEACHER[:9], STUDENT[:9], LABELS[:9])
    assert np.isnan(few.calibration_interval["student"]).all()


def test_the_interval_of_calibration_is_that_of_rows_drawn_one_by_one():
    draw = np.random.default_rng(1)
    z = torch.from_numpy(draw.normal(size=(200, 3))).float() * 2
    labels = torch.from_numpy(draw.integers(3, size=200))
    sure, guess = z.softmax(-1).max(-1)
    bins = np.clip(np.ceil(15 * sure.numpy()), 1, 15).astype(int)
    gap = (sure - (guess == labels).float()).numpy()
    here = np.bincount(bins, gap, 16)
    rows = draw.integers(200, size=(4000, 200))
    off = [np.abs(np.bincount(bins[r], gap[r], 16) - here).sum() / 200 for r in rows]
    low, high = calibrated(z, labels)
    middle = 100 * float(kd.ece(z, labels))
    assert (high - middle) == pytest.approx(100 * np.quantile(off, 0.95), rel=0.06)
    assert low == pytest.approx(max(0, 2 * middle - high))


@pytest.mark.parametrize("power, most", [(1.0, 0.10), (1.8, 0.05)])
def test_the_interval_of_calibration_holds_the_truth(power, most):
    """Sure c, right in c ** power of such rows: calibrated at 1, too sure above it."""
    draw, tries, missed = np.random.default_rng(0), 200, 0

    def sure(n):
        return 1 - 0.5 * draw.beta(0.6, 4, size=n)

    many = sure(1_000_000)
    bins = np.ceil(15 * many).astype(int)
    truth = 100 * np.abs(np.bincount(bins, many - many**power)).sum() / len(many)
    for _ in range(tries):
        c = sure(360)
        z = torch.from_numpy(np.stack([np.log(c / (1 - c)), np.zeros(360)], 1))
        low, high = calibrated(z, torch.from_numpy((draw.random(360) > c**power).astype(int)))
        missed += not low <= truth <= high
    assert missed / tries <= most


def test_a_table_of_intervals_holds_together_in_95_of_100():
    """Students that differ from their teacher by chance alone: one false word in twenty tables."""
    draw, wrong, tables = np.random.default_rng(0), 0, 400
    groups = {str(g): np.arange(600) // 60 == g for g in range(10)}
    for _ in range(tables):
        right = draw.random((2, 600)) < 0.9
        teacher, student = (torch.eye(2)[torch.tensor((~r).astype(int))] for r in right)
        labels = torch.zeros(600, dtype=torch.long)
        found = audit(teacher, student, labels, ["right", "wrong"], groups).table()
        words = found[found["rows"] >= 10]["verdict"]
        wrong += int((words != "cannot tell").any())
    assert wrong / tables < 0.075


def test_a_real_loss_is_found():
    n = 300
    labels = torch.arange(n) % 3
    teacher = named(labels.tolist())
    guesses = labels.clone()
    guesses[labels == 1] = torch.where(torch.arange(100) < 15, 2, 1)
    found = audit(teacher, named(guesses.tolist()), labels).table()
    assert found["verdict"].to_dict() == {
        "all": "worse",
        "0": "cannot tell",
        "1": "worse",
        "2": "cannot tell",
    }
    swapped = audit(named(guesses.tolist()), teacher, labels).table()
    assert swapped.loc["1", "verdict"] == "better"
    assert swapped.loc["1", "low"] == pytest.approx(-found.loc["1", "high"])


def test_nothing_changed_is_not_certain():
    low, high = matched(0, 0, 50)
    assert low < 0 < high and low == -high
    assert matched(0, 0, 5000)[1] < high / 10
    assert matched(50, 0, 50)[0] == -100  # no lower than all lost


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"teacher_logits": torch.zeros(30)}, ValueError, "teacher_logits"),
        ({"teacher_logits": 3}, TypeError, "teacher_logits"),
        ({"student_logits": STUDENT[:29]}, ValueError, "student_logits must have the shape"),
        ({"student_logits": STUDENT / 0}, ValueError, "student_logits must be finite"),
        ({"labels": LABELS[:3]}, ValueError, "labels"),
        ({"labels": LABELS.float()}, TypeError, "labels"),
        ({"labels": LABELS - 1}, ValueError, "labels must be classes, 0 to 2, got -1"),
        ({"classes": ["a", "b"]}, ValueError, "classes must be 3 different names"),
        ({"classes": ["a", "b", "b"]}, ValueError, "classes must be 3 different names"),
        ({"slices": [True]}, TypeError, "slices must be a dictionary"),
        ({"slices": {"x": [True]}}, ValueError, r"slices\['x'\] must be \(30,\)"),
        ({"slices": {"x": torch.ones(30)}}, ValueError, r"slices\['x'\] .* torch.float32"),
        ({"slices": {"all": LABELS == 0}}, ValueError, "slices must be named unlike"),
        ({"slices": {"0": LABELS == 0}}, ValueError, "slices must be named unlike"),
    ],
)
def test_what_cannot_be_audited_is_told(change, error, words):
    given = {"teacher_logits": TEACHER, "student_logits": STUDENT, "labels": LABELS} | change
    with pytest.raises(error, match=f"^audit: {words}"):
        audit(**given)
