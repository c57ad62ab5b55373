"""What the benchmarks share: the hardware's name, ratios, and a table that keeps others' rows.

    python benchmarks/table.py

prints what was measured on this hardware as one table; a benchmark of which nothing was says so."""

import csv
import os
import platform
from pathlib import Path

import pandas as pd
import torch

RESULTS = Path(__file__).parent / "results"
SHOWN = ("replicas", "fused", "step", "budget", "lessons", "demos", "live")


def hardware(lab):
    """The columns that say where a row was measured."""
    cuda = lab.device.type == "cuda"
    threads = f"CPU, {lab.threads} thread{'s' if lab.threads > 1 else ''}"
    return {
        "hardware": torch.cuda.get_device_name() if cuda else threads,
        "machine": platform.machine(),
        "torch": torch.__version__.split("+")[0],
    }


def ratio(a, b, key):
    """a[key] / b[key] as text; "" where one of them was not measured."""
    return f"{a[key] / b[key]:.2f}" if a.get(key) and b.get(key) else ""


def write(path, rows, same=("hardware",), show=True):
    """Put the rows in place of those that say the same in these columns, and print them.

    Raises ValueError where a repetition (KDLAB_REPEAT) would replace what is committed."""
    if path.parent == RESULTS and os.environ.get("KDLAB_REPEAT", "0").strip("0"):
        raise ValueError(
            f"write: {path.name} is no table that is measured again, see again.py; unset "
            f"KDLAB_REPEAT, got {os.environ['KDLAB_REPEAT']!r}"
        )
    keep = []
    if path.exists():
        with path.open(newline="") as file:
            keep = [
                row
                for row in csv.DictReader(file)
                if any(row.get(key) != str(rows[0][key]) for key in same)
            ]
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], restval="")
        writer.writeheader()
        writer.writerows(keep + rows)
    for row in rows if show else ():
        told = {k: v for k, v in row.items() if k not in ("machine", "torch") and v != ""}
        print("  ".join(f"{key} {value}" for key, value in told.items()))


def main():
    import kdlab as kd

    here = hardware(kd.setup(seed=0))["hardware"]
    for name in SHOWN:
        path = RESULTS / f"{name}.csv"
        found = pd.read_csv(path, dtype=str) if path.exists() else pd.DataFrame({"hardware": []})
        found = found[found["hardware"] == here].drop(
            columns=["hardware", "machine", "torch"], errors="ignore"
        )
        print(f"\n{name}, {here}")
        print(found.fillna("").to_string(index=False) if len(found) else "  not measured")


if __name__ == "__main__":
    main()
