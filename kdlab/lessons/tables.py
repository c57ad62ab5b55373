"""The committed tables that a lesson draws, and, in a repetition, those measured anew for it."""

from typing import Any

import pandas as pd

from kdlab.base.places import course_files
from kdlab.base.repeats import repetition

COMMITTED = "read off the committed table"


def read(name: str) -> pd.DataFrame:
    """The rows of benchmarks/results/NAME.csv.

    In repetition k (KDLAB_REPEAT, as tools/repeat.py sets it) those of results/again/NAME.csv that
    were measured on other samples for it, where there are any.

    >>> sorted(read("reasons")["split"].unique().tolist())
    [1, 2, 3, 4, 5, 6]
    """
    results = course_files() / "benchmarks" / "results"
    again, k = results / "again" / f"{name}.csv", repetition()
    if k and again.is_file():
        rows = pd.read_csv(again)
        rows = rows[rows["repetition"] == k]
        if len(rows):
            return rows.dropna(axis="columns", how="all")
    return pd.read_csv(results / f"{name}.csv")


def over(table: Any, units: str) -> str:
    """What an interval of a table is over, and that it is read off one.

    tools/repeat.py knows by these words which claims a repetition did not draw anew.

    >>> over(read("reasons"), "splits")
    'splits; read off the committed table'
    """
    return f"{units}; {'measured again' if 'repetition' in table else COMMITTED}"
