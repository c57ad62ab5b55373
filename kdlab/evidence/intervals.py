"""How sure: an estimate over units with its interval, and what it lets one say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from kdlab.base import plain_arguments as arguments
from kdlab.base.extras import needs

# metrics shown in per cent or percentage points
SHARES = (
    "accuracy",
    "ece",
    "agreement",
    "teacher_accuracy",
)
DELTA: Mapping[str, float] = MappingProxyType({"points": 0.5, "%": 0.5, "nats": 0.05})
"""The difference too small to care about, by measure: one for the whole course."""
# what may stand beside an estimate: its kind and its bound
RELATION = re.compile(r"(>|<|within ±) ?(-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)")


@dataclass(frozen=True)
class Estimate:
    """A mean over units with its t-interval.

    A unit is a split with its own teacher, say; seeds are averaged inside.

    values: a pandas Series, unit → number. what: the quantity in words. measure: "%", "points",
    "nats" or "". seeds: seeds nested in each unit, 0 where none has a part. units: what was
    repeated, in words; a claim about one given teacher says so here. Subtracting two estimates
    pairs them by unit.

    >>> e = Estimate(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0}), "gain", "points", 1)
    >>> str(e), e.verdict()
    ('+2.00 ± 1.30 points', 'helps')
    """

    values: pd.Series
    what: str
    measure: str = ""
    seeds: int = 1
    units: str = "splits, each with its own teacher"

    def __post_init__(self):
        arguments.instance(
            "Estimate", "values", self.values, pd.Series, "a pandas Series, unit → number"
        )
        if not pd.api.types.is_numeric_dtype(self.values):
            raise TypeError(f"Estimate: values must be numbers, got {self.values.to_dict()}")
        if len(self.values) < 4:
            raise ValueError(
                "Estimate: values must hold at least 4 units (splits with their own teachers) "
                f"for an interval, got {len(self.values)}; seeds of one split are not units"
            )
        if not np.isfinite(self.values.to_numpy(float)).all():
            raise ValueError(
                f"Estimate: {self.what} must be finite for every unit, "
                f"got {self.values.to_dict()}; NaN comes from a student that diverged: lower lr, "
                "or give clip=1.0"
            )

    @property
    def mean(self) -> float:
        """The mean over the units."""
        return float(self.values.mean())

    def half_width(self, cells: int = 1) -> float:
        """Half of the 95 % interval; Šidák's (1967) for `cells` of them that must hold at once."""
        with needs("course", asked="Estimate", why="an interval needs"):
            from scipy import special  # scipy.stats, which asks it, takes a second to import
        n = len(self.values)
        level = 0.95 ** (1 / cells)
        return float(special.stdtrit(n - 1, (1 + level) / 2)) * self.standard_error()

    def interval(self, cells: int = 1) -> tuple[float, float]:
        """(low, high) of the 95 % interval."""
        return self.mean - self.half_width(cells), self.mean + self.half_width(cells)

    def verdict(self, delta: float | None = None, cells: int = 1) -> str:
        """In words: "helps", "hurts", either with " a little", "no difference" or "cannot tell".

        "helps" and "hurts": the interval excludes 0; "a little" where it lies inside ±delta.
        "no difference": it holds 0 and lies inside ±delta, which is an equivalence test.
        delta: the difference too small to care about, chosen beforehand; where it is left out, the
        measure's own in `DELTA`, and 0 for a measure without one. cells: see `half_width`."""
        if delta is None:
            delta = DELTA.get(self.measure, 0.0)
        arguments.number("verdict", "delta", delta, low=0)
        low, high = self.interval(cells)
        inside = delta > 0 and -delta <= low and high <= delta
        if low > 0 or high < 0:
            return ("helps" if low > 0 else "hurts") + (" a little" if inside else "")
        return "no difference" if inside else "cannot tell"

    def standard_error(self) -> float:
        """The standard error of the mean over the units."""
        return float(self.values.std(ddof=1) / np.sqrt(len(self.values)))

    def __sub__(self, other):
        arguments.instance("Estimate", "what is subtracted", other, Estimate, "an Estimate")
        if set(self.values.index) != set(other.values.index):
            raise ValueError(
                f"Estimate: can't pair {self.what!r} with {other.what!r}: their units differ, "
                f"{sorted(self.values.index)[:3]} and {sorted(other.values.index)[:3]}"
            )
        measure = "points" if self.measure == "%" else self.measure
        return Estimate(
            self.values - other.values.loc[self.values.index],
            (
                f"{self.what} − {other.what}"
                if self.what != other.what
                else f"difference in {self.what}"
            ),
            measure,
            min(self.seeds, other.seeds),
            self.units,
        )

    def __str__(self):
        sign = "+" if self.measure == "points" or self.what.startswith("difference") else ""
        return f"{self.mean:{sign}.2f} ± {self.half_width():.2f}" + (
            f" {self.measure}" if self.measure else ""
        )

    def __gt__(self, bound):
        arguments.number("Estimate", "the bound", bound)
        return Comparison(self, f"> {bound:g}", self.interval()[0] > bound)

    def __lt__(self, bound):
        arguments.number("Estimate", "the bound", bound)
        return Comparison(self, f"< {bound:g}", self.interval()[1] < bound)

    def within(self, delta: float) -> "Comparison":
        """The claim that the difference is too small to matter: all of it inside ±delta."""
        arguments.number("within", "delta", delta, low=0)
        low, high = self.interval()
        return Comparison(self, f"within ±{delta:g}", -delta < low and high < delta)


@dataclass(frozen=True)
class Comparison:
    """An estimate beside a bound; true where the whole 95 % interval is on the bound's side.

    relation: "> 3", "< 3" or "within ±3".

    >>> gain = Estimate(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0}), "gain", "points", 1)
    >>> bool(gain > 0), bool(gain > 1)
    (True, False)
    """

    estimate: Estimate
    relation: str
    holds: bool

    def __post_init__(self):
        arguments.instance("Comparison", "estimate", self.estimate, Estimate, "an Estimate")
        relation = arguments.text("Comparison", "relation", self.relation)
        if not RELATION.fullmatch(relation):
            raise ValueError(
                "Comparison: relation must be such as '> 0', '< 0' or 'within ±0.5', "
                f"got {relation!r}"
            )

    @property
    def wanted(self) -> tuple[float, float]:
        """(low, high) of where the whole interval is wanted; one of them may be infinite."""
        kind, bound = RELATION.fullmatch(self.relation).groups()  # type: ignore[union-attr]
        bound = float(bound)
        return {">": (bound, np.inf), "<": (-np.inf, bound)}.get(kind, (-bound, bound))

    @property
    def margin(self) -> float:
        """Standard errors from the mean to the nearest bound, negative on its wrong side.

        >>> gain = Estimate(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0}), "gain")
        >>> round((gain > 0).margin, 2), round((gain < 0).margin, 2)
        (4.9, -4.9)
        """
        low, high = self.wanted
        room = min(self.estimate.mean - low, high - self.estimate.mean)
        error = self.estimate.standard_error()
        return float(room / error if error else np.sign(room) * np.inf if room else 0.0)

    def __bool__(self):
        return self.holds


def compare(estimates: dict[Any, Estimate], delta: float | None = None) -> pd.DataFrame:
    """Many cells at once: a frame with mean, low, high and verdict.

    The intervals are widened so that all hold together.

    estimates: {cell: Estimate}. delta: the difference too small to care about, as in
    `Estimate.verdict`.
    Source: Šidák 1967 (valid for t-intervals of any correlation).

    >>> e = Estimate(pd.Series({"a": 1.0, "b": 2.0, "c": 3.0, "d": 2.0}), "gain", "points", 1)
    >>> compare({"x": e, "y": e})["verdict"].tolist()
    ['helps', 'helps']
    """
    arguments.instance("compare", "estimates", estimates, dict, "a dictionary {cell: Estimate}")
    for e in estimates.values():
        arguments.instance("compare", "each of estimates", e, Estimate, "an Estimate")
    if delta is not None:
        arguments.number("compare", "delta", delta, low=0)
    n = len(estimates)
    rows = {cell: [e.mean, *e.interval(n), e.verdict(delta, n)] for cell, e in estimates.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high", "verdict"])
