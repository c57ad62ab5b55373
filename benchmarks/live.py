"""The site's live pages in a real browser: how long a move takes to be answered, in seconds.

    python benchmarks/live.py [site]

site: a built site's folder, build/site where none is given (`make site`). Each handle is moved to
each of its values in turn; a row says the median and the slowest answer, the whole of it: the last
step of all 32 students. Writes results/live.csv, a row a page, control and hardware. Needs
Playwright and /usr/bin/chromium, and a machine that does nothing else."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import argparse
from pathlib import Path

import moved
from servers import folder_served
from table import hardware, write

RESULTS = Path(__file__).parent / "results" / "live.csv"
PAGES = ["train", "temperature", "peaks"]
FIRST = ("first answer", "#kdlab-result p")
# a page says what it found in one go, when it has all of it
ANSWERS = """() => {
    if (window.answers !== undefined) return window.answers;
    window.answers = 0;
    new MutationObserver(() => { window.answers += 1; })
        .observe(document.querySelector('#kdlab-result'), {childList: true});
    return 0;
}"""


def answers(page):
    """How many answers the page has given so far."""
    return page.evaluate(ANSWERS)


def one_more(page, before):
    """Wait for the next answer."""
    page.wait_for_function(f"window.answers > {before}", polling=10)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", nargs="?", type=Path, default=moved.ROOT / "build" / "site")
    site = parser.parse_args().site
    if not (site / "train.html").is_file():
        return f"live: no train.html in {site}, not measured; build it with: make site"
    if lacks := moved.missing():
        return f"live: {lacks}"
    here = hardware(kd.setup(seed=0))
    with folder_served(site) as address, moved.browser() as browser:
        for name in PAGES:
            found = moved.seconds(browser, f"{address}/{name}.html", FIRST, answers, one_more)
            write(RESULTS, moved.rows(here | {"page": name}, found), ("hardware", "page"))


if __name__ == "__main__":
    print(main() or "")
