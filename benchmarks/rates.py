"""A learning rate chosen by validation, on a grid that grows until its best lies inside."""

from collections.abc import Callable, Iterable
from math import inf, isnan
from pathlib import Path

from table import write

TRIED = Path(__file__).parent / "results" / "rates.csv"
FURTHER = 5  # rates beyond the grid, at most


def choose(
    score: Callable[[list[float]], dict[float, float]], rates: Iterable[float]
) -> tuple[float, dict[float, float]]:
    """The rate with the lowest score, and {rate: score} of all that were tried.

    score([rate, …]) → {rate: score}, the lower the better; NaN for a run that diverged counts as
    the worst. Where the best is the smallest or the largest rate of all, the next one beyond it is
    tried too, as far away as its neighbour on the other side. A single rate is taken as it is.

    >>> choose(lambda rates: {lr: abs(lr - 3) for lr in rates}, [10, 30])
    (3.0, {10: 7, 30: 27, 3.0: 0.0, 0.9: 2.1})
    """
    found = score(sorted(rates))
    for _ in range(FURTHER):
        tried = sorted(found)
        best = _best(found)
        if best not in (tried[0], tried[-1]) or len(tried) == 1:
            return best, found
        beside = tried[1] if best == tried[0] else tried[-2]
        found |= score([float(f"{best * best / beside:.0e}")])
    raise ValueError(f"choose: after {FURTHER} rates beyond the grid the best is still an edge")


def note(table: str, arm: str, answers: int | None, found: dict[float, float], where: dict) -> None:
    """Put what was tried for one arm of a table into results/rates.csv."""
    rows = [
        {"table": table, "arm": arm, "answers": "" if answers is None else answers, "lr": lr}
        | {"validation": round(value, 4), "chosen": lr == _best(found)}
        | where
        for lr, value in sorted(found.items())
    ]
    write(TRIED, rows, same=("table", "arm", "answers"), show=False)


def _best(found):
    return min(found, key=lambda lr: inf if isnan(found[lr]) else found[lr])
