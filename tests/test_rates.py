"""Learning rates of the committed tables: chosen by validation, and never at the edge of what was
tried."""

import sys
from pathlib import Path

import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import rates  # noqa: E402
import recipes  # noqa: E402

RESULTS = BENCHMARKS / "results"
BY_ARM = ("which_kl", "whose_text", "unknown_text", "answers_bought", "reasons")


def bowl(lowest):
    """A score that is least at one rate, and what was asked of it."""
    asked = []

    def score(these):
        asked.append(list(these))
        return {lr: abs(lr / lowest - 1) + abs(lowest / lr - 1) for lr in these}

    return score, asked


@pytest.mark.parametrize(
    ("lowest", "chosen", "more"),
    [
        (3e-3, 3e-3, []),
        (1e-3, 1e-3, [3e-4]),
        (1e-2, 1e-2, [3e-2]),
        (2e-4, 3e-4, [3e-4, 9e-5]),
        (5e-2, 3e-2, [3e-2, 9e-2]),
    ],
)
def test_the_grid_grows_only_where_its_best_is_an_edge(lowest, chosen, more):
    score, asked = bowl(lowest)
    lr, found = rates.choose(score, [1e-2, 1e-3, 3e-3])
    assert lr == chosen and asked == [[1e-3, 3e-3, 1e-2], *([one] for one in more)]
    assert sorted(found) == sorted([1e-3, 3e-3, 1e-2, *more])


def test_a_run_that_diverged_is_never_best():
    nan = float("nan")
    lr, found = rates.choose(lambda these: {r: nan if r > 2 else 1 / r for r in these}, [1, 2, 4])
    assert lr == 2 and set(found) == {1, 2, 4}


def test_a_single_rate_is_taken_as_it_is():
    assert rates.choose(lambda these: dict.fromkeys(these, 0.0), [3e-3]) == (3e-3, {3e-3: 0.0})


def test_a_score_without_a_best_is_an_error():
    with pytest.raises(ValueError, match="after 5 rates beyond the grid the best is still an edge"):
        rates.choose(lambda these: {r: r for r in these}, [1e-3, 3e-3])


def tried():
    """What was tried for each arm of a table: {(table, arm, answers): rows}."""
    table = pd.read_csv(rates.TRIED, keep_default_na=False)
    return dict(list(table.groupby(["table", "arm", "answers"])))


@pytest.mark.parametrize("one", tried(), ids=" · ".join)
def test_a_chosen_rate_lies_between_others_that_are_worse(one):
    rows = tried()[one].sort_values("lr")
    (best,) = rows[rows["chosen"]].index
    assert rows.loc[best, "validation"] == rows["validation"].min()
    assert best not in (rows.index[0], rows.index[-1])


@pytest.mark.parametrize("name", BY_ARM)
def test_a_table_is_measured_at_the_rates_that_were_chosen(name):
    found = {
        (arm, answers): rows.loc[rows["chosen"], "lr"].item()
        for (table, arm, answers), rows in tried().items()
        if table == name
    }
    table = pd.read_csv(RESULTS / f"{name}.csv").dropna(subset="lr")
    answers = table["answers"].map("{:.0f}".format) if "answers" in table else ""
    used = set(
        zip(table["arm"], table.assign(answers=answers)["answers"], table["lr"], strict=True)
    )
    assert used == {(*arm, lr) for arm, lr in found.items()}


def test_encoders_are_measured_at_the_rate_that_was_best_on_the_texts_held_out():
    table = pd.read_csv(RESULTS / "encoders.csv").dropna(subset="lr")
    for (student, signal), rows in table.groupby(["student", "signal"]):
        (lr,) = rows.loc[rows["part"] == "test", "lr"].unique()
        seen = tried()["encoders", f"{student}, {signal}", ""]
        assert lr == seen.loc[seen["chosen"], "lr"].item()


def test_recipes_use_no_rate_at_the_edge_of_their_grid():
    used = pd.read_csv(RESULTS / "recipes.csv")["lr"].dropna()
    assert used.between(min(recipes.RATES), max(recipes.RATES), inclusive="neither").all()
