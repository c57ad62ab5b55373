"""How long a page takes to answer a move of each of its controls, in a real browser: what the
benchmarks of demos and of live pages share."""

import statistics
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "browser"))
from servers import PATIENCE

CHROMIUM = Path("/usr/bin/chromium")
MOST = 10  # moves a control
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


def missing():
    """What this machine lacks to measure, in words; "" where nothing is."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "no Playwright, not measured; install it with: pip install playwright"
    return "" if CHROMIUM.exists() else f"no {CHROMIUM}, not measured"


@contextmanager
def browser():
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    arguments = ["--headless", "--no-sandbox", "--disable-gpu"]
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)


def seconds(browser, address, first, begun, answered):
    """{what: seconds of each answer} of a page: what is called `first`, then its controls.

    first: (name, selector) of what is there once the page has answered for the first time.
    begun(page) is called before each move; what it gives goes to answered(page, given), which waits
    for the answer."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(PATIENCE)
    name, selector = first
    start = time.perf_counter()
    page.goto(address)
    page.locator(selector).first.wait_for()
    found = {name: [time.perf_counter() - start]}
    for row in page.locator(".kdlab-control:not([hidden])").all():
        control = row.locator("input, select")
        values = round(control.evaluate(VALUES))
        if values >= 2:  # a field for text is left alone
            label = row.locator("label").inner_text()
            found[label] = [_move(page, control, begun, answered) for _ in range(min(MOST, values))]
    page.close()
    return found


def _move(page, control, begun, answered):
    given, start = begun(page), time.perf_counter()
    control.evaluate(MOVE)
    answered(page, given)
    return time.perf_counter() - start


def rows(here, found):
    """The rows of a table: `here`, what was moved, and the median and the slowest answer."""
    return [
        here
        | {
            "what": what,
            "median_s": f"{statistics.median(taken):.2f}",
            "slowest_s": f"{max(taken):.2f}",
            "moves": len(taken),
        }
        for what, taken in found.items()
    ]
