"""What a claim says: its one word, its numbers, what it rests on, and the line in the ledger."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdlab import Estimate
from kdlab.evidence import claims
from kdlab.evidence.claims import claimed, judge, record

CENTRED = np.array([-1.0, 0.0, 0.0, 1.0])  # sd 0.8165, t(3) 3.1824: half width 1.2992


def estimate(mean=0.0, scale=1.0, what="gain", measure="points", seeds=2, **more):
    values = pd.Series(CENTRED * scale + mean, [f"digits/{i}" for i in range(4)])
    return Estimate(values, what, measure, seeds, **more)


@pytest.mark.parametrize(
    "comparison, word",
    [
        (estimate(2) > 0, "helps"),
        (estimate(-2) < 0, "hurts"),
        (estimate(0.3, 0.1) > 0, "helps a little"),
        (estimate(-0.3, 0.1) < 0, "hurts a little"),
        (estimate(0.03, 0.01, measure="nats") > 0, "helps a little"),
        (estimate(0.1, 0.2).within(0.5), "no difference"),
        (estimate(0.3, 0.1).within(0.5), "helps a little"),  # named by its sign even when small
        (estimate(0.1, 0.2).within(2), "holds"),
        (estimate(0.1, 0.2, measure="").within(0.5), "holds"),  # a measure without a delta
        (estimate(3) > 1, "holds"),
        (estimate(70, measure="%") > 0, "holds"),  # a level, no difference
        (estimate(-2, what="difference in nll on test", measure="nats") < 0, "holds"),
        (estimate(-2, what="difference in ece on test") < 0, "holds"),
        (estimate(1) > 0, "does not hold here"),
        (estimate(-2) > 0, "does not hold here"),
    ],
)
def test_a_claim_has_one_word(comparison, word):
    claim = claimed("a sentence", comparison)
    assert claim.verdict == word and claim.holds is (word != "does not hold here")
    assert str(claim).startswith(f"Claim ({word}): a sentence\n")


@pytest.mark.parametrize(
    "means, word",
    [
        ([2, 3], "helps"),
        ([0.3, 0.3], "helps a little"),
        ([0.3, 2], "helps"),
        ([2, -2], "does not hold here"),
        ([2, 0.0], "does not hold here"),
    ],
)
def test_it_holds_where_it_holds_at_every_budget(means, word):
    claim = claimed("a", {f"{i} epochs": estimate(m, 0.1) > 0 for i, m in enumerate(means)})
    assert claim.verdict == word
    assert claim.holds is all(m > 0 for m in means)


def test_a_claim_says_what_it_rests_on():
    assert str(claimed("soft targets help", estimate(2) > 0)).splitlines() == [
        "Claim (helps): soft targets help",
        "gain +2.00 ± 1.30 points (> 0)",
        "95 % interval over 4 splits, each with its own teacher; 2 seeds a split",
    ]
    budgets = {"30 epochs": estimate(2) > 1, "60 epochs": estimate(3, seeds=1) > 1}
    assert str(claimed("more", budgets)).splitlines()[1:] == [
        "30 epochs: +2.00 ± 1.30 points (> 1); 60 epochs: +3.00 ± 1.30 points (> 1)",
        "gain; 95 % interval over 4 splits, each with its own teacher; 2 seeds a split / "
        "95 % interval over 4 splits, each with its own teacher; 1 seed a split",
    ]


@pytest.mark.parametrize(
    "units, seeds, said",
    [
        (
            "splits, all with one given teacher",
            0,
            "95 % interval over 4 splits, all with one given teacher",
        ),
        (
            "worlds, each with its own networks",
            2,
            "95 % interval over 4 worlds, each with its own networks; 2 seeds each",
        ),
    ],
)
def test_a_claim_says_what_its_seeds_are_nested_in(units, seeds, said):
    assert claimed("a", estimate(2, seeds=seeds, units=units) > 0).units == said


@pytest.mark.parametrize("bare", [True, np.bool_(True), 1.0, estimate(5), None])
def test_a_claim_needs_an_estimate_beside_a_bound(bare):
    words = "^claim: comparison must be an Estimate beside a bound.*"
    with pytest.raises(TypeError, match=f"{words}got {type(bare).__name__}$"):
        claimed("it is so", bare)
    with pytest.raises(TypeError, match=f"{words}got {type(bare).__name__} for '30 epochs'$"):
        claimed("it is so", {"30 epochs": bare})


@pytest.mark.parametrize(
    "budgets, words",
    [
        ({}, "must hold at least one budget"),
        ({"a": estimate() > 0, "b": estimate() < 0}, "'a': > 0 points, 'b': < 0 points"),
        ({"a": estimate() > 0, "b": estimate() > 1}, "'a': > 0 points, 'b': > 1 points"),
        ({"a": estimate() > 0, "b": estimate(measure="") > 0}, "'a': > 0 points, 'b': > 0"),
        ({" ": estimate() > 0}, "a budget of comparison must not be empty"),
    ],
)
def test_budgets_that_ask_different_things_are_refused(budgets, words):
    with pytest.raises(ValueError, match="^claim: ") as failure:
        claimed("a", budgets)
    assert words in str(failure.value)


def test_a_claim_that_fails_stops_and_on_other_data_it_is_a_question(monkeypatch):
    claim = claimed("it hurts", estimate(2) < 0)
    with pytest.raises(AssertionError) as failure:
        judge(claim)
    assert str(failure.value).splitlines() == [
        "Claim does not hold: it hurts",
        "gain +2.00 ± 1.30 points (< 0); 95 % interval over 4 splits, each with its own teacher; "
        "2 seeds a split",
    ]
    judge(claimed("it helps", estimate(2) > 0))
    monkeypatch.setenv("KDLAB_CLAIMS", "report")
    judge(claim)


def test_the_ledger_gets_a_line_a_claim_also_where_it_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("KDLAB_LEDGER", str(tmp_path / "claims.jsonl"))
    judge(claimed("“it” helps", {"30": estimate(2) > 0, "60": estimate(3) > 0}))
    with pytest.raises(AssertionError):
        judge(claimed("it hurts", estimate(2) < 0))
    first, second = map(json.loads, (tmp_path / "claims.jsonl").read_text().splitlines())
    per_point = 1 / stats.sem(CENTRED)
    assert first["sentence"] == "“it” helps" and second["sentence"] == "it hurts"
    assert first["budgets"]["60"] == [True, pytest.approx(3 * per_point), 3]
    assert second["budgets"] == {"": [False, pytest.approx(-2 * per_point), 2]}


@pytest.mark.parametrize("said, found", [("a, b", "20"), ("twice", None), ("never", None)])
def test_a_claim_finds_its_row_unless_there_are_two(said, found, monkeypatch, tmp_path):
    monkeypatch.setattr(claims, "course_files", lambda: tmp_path)
    assert record(said) == {}  # no ledger yet
    table = tmp_path / "benchmarks" / "results" / "claims.csv"
    table.parent.mkdir(parents=True)
    rows = [["02", "a, b", 20], ["02", "twice", 1], ["03", "twice", 2]]
    pd.DataFrame(rows, columns=["lesson", "sentence", "held"]).to_csv(table, index=False)
    assert record(said).get("held") == found
