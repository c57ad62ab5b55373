"""The site's live pages in a real browser: how long a move takes to be answered, in seconds.

    python benchmarks/live.py [site]

site: a built site's folder, build/site where none is given (`make site`). Each handle is moved to
each of its values in turn; a row says the median and the slowest answer, the whole of it: the last
step of all 32 students. Writes results/live.csv, a row a page, control and hardware. Needs
Playwright and /usr/bin/chromium, and a machine that does nothing else."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import argparse
import statistics
import sys
import time
from pathlib import Path

from demos import CHROMIUM, MOST, MOVE, VALUES
from table import hardware, write

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "browser"))
from servers import PATIENCE, folder_served

RESULTS = Path(__file__).parent / "results" / "live.csv"
PAGES = ["train", "temperature", "peaks"]
# a page says what it found in one go, when it has all of it
ANSWERS = """() => {
    window.answers = 0;
    new MutationObserver(() => { window.answers += 1; })
        .observe(document.querySelector('#kdlab-result'), {childList: true});
}"""


def moves(page):
    """{a control's name: seconds of each answer}."""
    found = {}
    page.evaluate(ANSWERS)
    for row in page.locator(".kdlab-control:not([hidden])").all():
        control = row.locator("input, select")
        values = round(control.evaluate(VALUES))
        if values < 2:
            continue
        name, seconds = row.locator("label").inner_text(), []
        for _ in range(min(MOST, values)):
            before, began = page.evaluate("window.answers"), time.perf_counter()
            control.evaluate(MOVE)
            page.wait_for_function(f"window.answers > {before}", polling=10)
            seconds.append(time.perf_counter() - began)
        found[name] = seconds
    return found


def measure(browser, address):
    """A page's rows: its first answer, then its controls."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(PATIENCE)
    began = time.perf_counter()
    page.goto(address)
    page.locator("#kdlab-result p").first.wait_for()
    first = time.perf_counter() - began
    found = {"first answer": [first]} | moves(page)
    page.close()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", nargs="?", type=Path, default=ROOT / "build" / "site")
    site = parser.parse_args().site
    if not (site / "train.html").is_file():
        return f"live: no train.html in {site}, not measured; build it with: make site"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "live: no Playwright, not measured; install it with: pip install playwright"
    if not CHROMIUM.exists():
        return f"live: no {CHROMIUM}, not measured"
    here = hardware(kd.setup(seed=0))
    with folder_served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        for name in PAGES:
            rows = [
                here
                | {
                    "page": name,
                    "what": what,
                    "median_s": f"{statistics.median(seconds):.2f}",
                    "slowest_s": f"{max(seconds):.2f}",
                    "moves": len(seconds),
                }
                for what, seconds in measure(browser, f"{address}/{name}.html").items()
            ]
            write(RESULTS, rows, ("hardware", "page"))


if __name__ == "__main__":
    print(main() or "")
