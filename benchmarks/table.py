"""What the benchmarks share: the hardware's name, ratios, and a table that keeps others' rows."""

import csv
import platform

import torch


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


def write(path, rows, same=("hardware",)):
    """Put the rows in place of those that say the same in these columns, and print them."""
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
    for row in rows:
        told = {k: v for k, v in row.items() if k not in ("machine", "torch") and v != ""}
        print("  ".join(f"{key} {value}" for key, value in told.items()))
