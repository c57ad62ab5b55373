"""What a claim says: a sentence, the intervals that support it or do not, and one word for it.

`kd.claim`, which shows it as a card, stands in kdlab/show/cards.py."""

import csv
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdlab.base import plain_arguments as arguments
from kdlab.base.places import course_files
from kdlab.evidence.intervals import DELTA, Comparison

FAILED = "does not hold here"
# of these less is better, so the sign of a difference doesn't say what helps
LESS_IS_BETTER = re.compile(r"\b(nll|ece|loss|entropy|perplexity|errors?|distance)\b", re.I)


@dataclass(frozen=True)
class Claim:
    """A sentence and the comparisons it rests on: {budget: Comparison}, one named "" without any.

    It holds where it holds at every budget.

    >>> import pandas as pd
    >>> from kdlab import Estimate
    >>> gain = Estimate(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0}), "gain", "points", 2)
    >>> Claim("it helps", {"30 epochs": gain > 0, "60 epochs": gain > 0}).verdict
    'helps'
    """

    sentence: str
    budgets: Mapping[str, Comparison]

    @property
    def holds(self) -> bool:
        """Whether every interval lies where it is wanted."""
        return all(self.budgets.values())

    @property
    def verdict(self) -> str:
        """One word: "holds", or what the difference is called; "does not hold here"."""
        if not self.holds:
            return FAILED
        first = next(iter(self.budgets.values()))
        words = {c.estimate.verdict() for c in self.budgets.values()}
        if first.relation.startswith("within"):
            near = max(first.wanted) <= DELTA.get(first.estimate.measure, 0.0)
            return words.pop() if near and len(words) == 1 else "holds"
        unclear = any(LESS_IS_BETTER.search(c.estimate.what) for c in self.budgets.values())
        if 0 not in first.wanted or first.estimate.measure not in ("points", "nats") or unclear:
            return "holds"
        return words.pop() if len(words) == 1 else words.pop().removesuffix(" a little")

    @property
    def numbers(self) -> str:
        """Each estimate beside its bound, as one line."""
        return "; ".join(
            f"{name + ':' if name else c.estimate.what} {c.estimate} ({c.relation})"
            for name, c in self.budgets.items()
        )

    @property
    def units(self) -> str:
        """What was measured at the budgets, over what, and with how many seeds."""
        if "" in self.budgets:
            return _over(self.budgets[""].estimate)
        estimates = [c.estimate for c in self.budgets.values()]
        what, over = (
            " / ".join(dict.fromkeys(said))
            for said in ([e.what for e in estimates], map(_over, estimates))
        )
        return f"{what}; {over}"

    def __str__(self):
        return f"Claim ({self.verdict}): {self.sentence}\n{self.numbers}\n{self.units}"


def _over(estimate):
    """The units of an interval and the seeds inside them."""
    nested = "a split" if "split" in estimate.units else "each"
    count = estimate.seeds
    seeds = f"; {count} seed{'s' if count > 1 else ''} {nested}" if count else ""
    return f"95 % interval over {len(estimate.values)} {estimate.units}{seeds}"


def claimed(sentence: str, comparison: Any) -> Claim:
    """The `Claim` of a sentence, after a look at what came; TypeError or ValueError.

    comparison: an `Estimate` beside a bound, or {budget: such}, all of one measure and one bound.
    """
    arguments.text("claim", "sentence", sentence)
    budgets = comparison if isinstance(comparison, dict) else {"": comparison}
    if not budgets:
        raise ValueError("claim: comparison must hold at least one budget, got {}")
    for name, one in budgets.items():
        if not isinstance(one, Comparison):
            raise TypeError(
                "claim: comparison must be an Estimate beside a bound, as in "
                "distilled.minus(direct) > 0, or a dictionary {budget: such}, "
                f"got {type(one).__name__}{f' for {name!r}' if name else ''}"
            )
        if isinstance(comparison, dict):
            arguments.text("claim", "a budget of comparison", name)
    kinds = {(c.relation, c.estimate.measure): name for name, c in budgets.items()}
    if len(kinds) > 1:
        told = ", ".join(f"{n!r}: {relation} {of}".rstrip() for (relation, of), n in kinds.items())
        raise ValueError(
            "claim: comparison must ask the same of every budget, one measure and one bound, "
            f"got {told}"
        )
    return Claim(sentence, budgets)


def judge(claim: Claim) -> None:
    """Note the claim where KDLAB_LEDGER says, and raise AssertionError where it does not hold.

    With KDLAB_CLAIMS=report (other data, where a lesson's claim is a question) nothing is raised.
    """
    if ledger := os.environ.get("KDLAB_LEDGER"):
        line = {
            "sentence": claim.sentence,
            "units": claim.units,
            "budgets": {k: [c.holds, c.margin, c.estimate.mean] for k, c in claim.budgets.items()},
        }
        with Path(ledger).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=bool) + "\n")  # a Comparison may hold NumPy's bool
    if not claim.holds and os.environ.get("KDLAB_CLAIMS") != "report":
        raise AssertionError(
            f"Claim does not hold: {claim.sentence}\n{claim.numbers}; {claim.units}"
        )


def record(sentence: str) -> dict[str, str]:
    """The row of this sentence in the course's ledger of fresh splits; {} where there is none.

    tools/repeat.py writes it. A sentence of two lessons has two rows, and so none of its own.

    >>> record("nobody claimed this")
    {}
    """
    path = course_files() / "benchmarks" / "results" / "claims.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["sentence"] == sentence]
    return rows[0] if len(rows) == 1 else {}
