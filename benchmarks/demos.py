"""Every demo as a class sees it, in a real browser: how long a picture takes, in seconds.

    python benchmarks/demos.py [demo ...]

Serves the demos as `make demos` does. Each control is moved to each of its values in turn (a text
field is left alone); a row says the median and the slowest answer. Writes results/demos.csv, a row
a demo, control and hardware. Needs Playwright and /usr/bin/chromium, and a machine that does
nothing else."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import argparse
import re
import sys
import tempfile
from pathlib import Path

import moved
from servers import TOKEN, free_port, own_jupyter, served
from table import hardware, write

RESULTS = Path(__file__).parent / "results" / "demos.csv"
FIRST = ("first picture", ".kdlab-explorer img")
SETTLED = "() => document.querySelector('.kdlab-status').textContent === ''"


def settled(page, _):
    """Wait until the picture is that of the controls as they stand."""
    page.wait_for_function(SETTLED, polling=20)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", nargs="*", help="parts of their names; all where none is given")
    wanted = parser.parse_args().demos
    if lacks := moved.missing():
        return f"demos: {lacks}"
    names = sorted(path.stem for path in (moved.ROOT / "notebooks" / "demos").glob("*.ipynb"))
    here, port = hardware(kd.setup(seed=0)), free_port()
    command = [sys.executable, "tools/demos.py", f"--port={port}", f"--token={TOKEN}"]
    with (
        tempfile.TemporaryDirectory() as own,
        served(command, own_jupyter(Path(own)), r"all:") as (_, said),
        moved.browser() as browser,
    ):
        base = re.search(r"http://\S+/", said[-1])[0]
        for name in names:
            if wanted and not any(part in name for part in wanted):
                continue
            address = f"{base}voila/render/{name}.ipynb?token={TOKEN}"
            found = moved.seconds(browser, address, FIRST, lambda page: None, settled)
            write(RESULTS, moved.rows(here | {"demo": name}, found), ("hardware", "demo"))


if __name__ == "__main__":
    print(main() or "")
