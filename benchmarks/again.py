"""A committed table measured again on other samples, so that claims read off it can be counted.

    KDLAB_REPEAT=1 python benchmarks/encoders.py        also 2, 3, …; so language.py and reasons.py

Every seed moves, and nothing is chosen anew: rates and numbers of steps are the committed table's.
Rows go to results/again/NAME.csv with the number of the repetition, and tools/repeat.py counts how
often the claims hold in them."""

from pathlib import Path

import pandas as pd
from table import RESULTS, write

from kdlab.base.repeats import repetition


def known(name: str) -> pd.DataFrame:
    """The committed table."""
    return pd.read_csv(RESULTS / f"{name}.csv")


def add(name: str, rows: list[dict]) -> Path:
    """Put rows in place of this repetition's earlier ones in results/again/NAME.csv."""
    path = RESULTS / "again" / f"{name}.csv"
    if not repetition():
        raise ValueError("add: KDLAB_REPEAT must be at least 1, the number of the repetition")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    whole = [
        {"repetition": repetition()} | {key: row.get(key, "") for key in columns} for row in rows
    ]
    write(path, whole, same=("repetition",), show=False)
    return path
