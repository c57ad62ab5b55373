"""Every demo as a class sees it, in a real browser: how long a picture takes, in seconds.

    python benchmarks/demos.py [demo ...]

Serves the demos as `make demos` does. Each control is moved to each of its values in turn (a text
field is left alone); a row says the median and the slowest answer. Writes results/demos.csv, a row
a demo, control and hardware. Needs Playwright and /usr/bin/chromium, and a machine that does
nothing else."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import argparse
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from table import hardware, write

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "browser"))
from servers import PATIENCE, TOKEN, free_port, own_jupyter, served

RESULTS = Path(__file__).parent / "results" / "demos.csv"
CHROMIUM = Path("/usr/bin/chromium")
MOST = 10  # moves a control
SETTLED = "() => document.querySelector('.kdlab-status').textContent === ''"
# the control takes its next value and says so, as it does when a person moves it
MOVE = """(control) => {
    if (control.tagName === 'SELECT')
        control.selectedIndex = (control.selectedIndex + 1) % control.options.length;
    else
        control.value = control.value === control.max ? control.min
            : Number(control.value) + Number(control.step || 1);
    for (const said of ['input', 'change'])
        control.dispatchEvent(new Event(said, {bubbles: true}));
}"""
VALUES = """(control) => control.tagName === 'SELECT' ? control.options.length
    : control.type === 'range' ? 1 + (control.max - control.min) / (control.step || 1) : 0"""


def moves(page):
    """{a control's name: seconds of each answer}."""
    found = {}
    for row in page.locator(".kdlab-control").all():
        control = row.locator("input, select")
        values = round(control.evaluate(VALUES))
        if values < 2:
            continue
        name, seconds = row.locator("label").inner_text(), []
        for _ in range(min(MOST, values)):
            began = time.perf_counter()
            control.evaluate(MOVE)
            page.wait_for_function(SETTLED, polling=20)
            seconds.append(time.perf_counter() - began)
        found[name] = seconds
    return found


def measure(browser, address):
    """A demo's rows: its first picture, then its controls."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(PATIENCE)
    began = time.perf_counter()
    page.goto(address)
    page.locator(".kdlab-explorer img").wait_for()
    first = time.perf_counter() - began
    found = {"first picture": [first]} | moves(page)
    page.close()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", nargs="*", help="parts of their names; all where none is given")
    wanted = parser.parse_args().demos
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "demos: no Playwright, not measured; install it with: pip install playwright"
    if not CHROMIUM.exists():
        return f"demos: no {CHROMIUM}, not measured"
    names = sorted(path.stem for path in (ROOT / "notebooks" / "demos").glob("*.ipynb"))
    here, port = hardware(kd.setup(seed=0)), free_port()
    command = [sys.executable, "tools/demos.py", f"--port={port}", f"--token={TOKEN}"]
    with (
        tempfile.TemporaryDirectory() as own,
        served(command, own_jupyter(Path(own)), r"all:") as (_, said),
        sync_playwright() as playwright,
    ):
        base = re.search(r"http://\S+/", said[-1])[0]
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--headless", "--no-sandbox", "--disable-gpu"],
        )
        for name in names:
            if wanted and not any(part in name for part in wanted):
                continue
            found = measure(browser, f"{base}voila/render/{name}.ipynb?token={TOKEN}")
            rows = [
                here
                | {
                    "demo": name,
                    "what": what,
                    "median_s": f"{statistics.median(seconds):.2f}",
                    "slowest_s": f"{max(seconds):.2f}",
                    "moves": len(seconds),
                }
                for what, seconds in found.items()
            ]
            write(RESULTS, rows, ("hardware", "demo"))


if __name__ == "__main__":
    print(main() or "")
