"""The projector's page of a pool in a real browser, while thirty laptops send."""

import csv
import re
import sys

from servers import own_jupyter, served

from kdlab.lessons import pool_simulate as simulate
from kdlab.lessons.pool_book import Sent, Terms
from kdlab.lessons.pool_server import opened

TERMS = Terms("Does a teacher help a student with 100 labels?", -100, 100)
VALUES = [3.0, -1.0, 2.0, 4.5, 1.0, 2.5, 3.5, 2.0]
# how far the page is from one screen, and its smallest letters
FITS = """() => {
    const seen = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&
        [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.tagName !== 'STYLE'
        && e.tagName !== 'SCRIPT');
    return {letters: Math.min(...seen.map(e => parseFloat(getComputedStyle(e).fontSize))),
        over: document.documentElement.scrollHeight - innerHeight,
        wide: document.documentElement.scrollWidth - innerWidth,
        low: Math.max(...seen.filter(e => e.closest('aside'))
            .map(e => e.getBoundingClientRect().bottom)) - innerHeight};
}"""


def send(book, number, value, prediction="helps"):
    name = f"{number:032x}"
    return book.enter(Sent(name, book.join(name), value, "points", prediction))


def test_dots_arrive_the_interval_shrinks_and_the_verdict_changes(page, tmp_path):
    page.set_viewport_size({"width": 1280, "height": 720})
    with opened(tmp_path, TERMS) as pool:
        page.goto(pool.projector)
        page.get_by_role("heading", name=TERMS.question).wait_for()
        page.get_by_text("no verdict below 4 splits").wait_for()
        assert page.get_by_text(f'kd.pool("{pool.address}", "{pool.code}")').is_visible()
        assert pool.token not in page.url  # the projector shows the address bar
        for number, value in enumerate(VALUES[:4]):
            send(pool.book, number, value)
        page.get_by_text("cannot tell", exact=True).wait_for()
        wide = float(re.search(r"± (\S+)", page.locator("#said").inner_text())[1])
        for number, value in enumerate(VALUES[4:], start=4):
            send(pool.book, number, value, "hurts")
        page.locator("#verdict.up", has_text="helps").wait_for()
        assert float(re.search(r"± (\S+)", page.locator("#said").inner_text())[1]) < wide
        assert page.locator("circle.dot").count() == 8
        assert page.locator("#guess-hurts").inner_text().split() == ["hurts", "4"]
        label = page.get_by_role("img").get_attribute("aria-label")
        assert label.startswith("8 results: +3.00, −1.00") and "points" in label


def test_what_does_not_count_stands_there_with_its_reason(page, tmp_path):
    with opened(tmp_path, Terms("Does <b>it</b> help?", -100, 100)) as pool:
        page.goto(pool.projector)
        send(pool.book, 0, 2.0)
        send(pool.book, 0, 3.0)
        send(pool.book, 1, 400.0)
        send(pool.book, 2, float("nan"))
        pool.book.enter(Sent("f" * 32, 1, 2.0, "points", "helps"))
        listed = page.get_by_role("list", name="Results that do not count")
        listed.get_by_text("split 1, +3 points: double").wait_for()
        words = listed.inner_text()
        assert "+400 points: cannot be, outside -100 to 100 points" in words
        assert "cannot be, no finite number" in words
        assert "cannot be, split 1 was not given to this laptop" in words
        assert page.locator("circle.dot").count() == 1
        # what the instructor writes is text, and no laptop's name is anywhere
        assert page.get_by_role("heading", name="Does <b>it</b> help?").is_visible()
        assert "f" * 32 not in page.content()


def test_the_instructor_closes_and_the_class_keeps_a_table_and_a_picture(page, tmp_path):
    with opened(tmp_path, TERMS) as pool:
        for number, value in enumerate(VALUES):
            send(pool.book, number, value, ["helps", "hurts"][number % 2])
        page.goto(f"{pool.address}/#{pool.code}")  # a laptop of the class reads along
        page.locator("#verdict.up").wait_for()
        assert not page.get_by_role("button", name="Close").is_visible()
        page.goto("about:blank")
        page.goto(pool.projector)
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.get_by_role("button", name="Close").click()
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Close").click()
        page.locator("#closed").wait_for()
        assert pool.book.closed and not page.get_by_role("button", name="Close").is_visible()
        assert page.locator("#guess-helps.right").inner_text().startswith("✓ helps")
        send(pool.book, 50, 2.0)
        page.get_by_text("late", exact=True).wait_for()
        with page.expect_download() as got:
            page.get_by_role("button", name="Table").click()
        rows = list(csv.DictReader(got.value.path().open(encoding="utf-8")))
        assert [row["status"] for row in rows] == ["counts"] * 8 + ["late"]
        with page.expect_download() as got:
            page.get_by_role("button", name="Picture").click()
        assert got.value.path().read_text(encoding="utf-8").count("<svg") == 1
    assert (tmp_path / "pooled.png").is_file()


def test_a_pool_that_stops_is_said_and_one_that_comes_back_is_shown(page, tmp_path):
    with opened(tmp_path, TERMS) as pool:
        page.goto(pool.projector)
        send(pool.book, 0, 2.0)
        page.locator("circle.dot").wait_for(state="attached")
    page.get_by_text("the pool does not answer").wait_for()
    with opened(tmp_path) as pool:
        send(pool.book, 1, 3.0)
        page.locator("circle.dot").nth(1).wait_for(state="attached")
        assert not page.locator("#silent").is_visible()
        page.reload()  # the key is still known
        page.locator("circle.dot").nth(1).wait_for(state="attached")


def test_without_a_key_the_page_says_what_to_open(page, tmp_path):
    with opened(tmp_path, TERMS) as pool:
        page.goto(pool.address)
        page.get_by_text("Open the address that kdlab printed").wait_for()
        assert TERMS.question not in page.content()


def test_it_fills_one_screen_in_letters_that_are_read_from_the_back(page, tmp_path):
    with opened(tmp_path, TERMS) as pool:
        for number in range(40):
            send(pool.book, number, VALUES[number % 8] + number / 50)
            send(pool.book, number, 500.0 + number)
        page.goto(pool.projector)
        page.locator("circle.dot").nth(39).wait_for(state="attached")
        for width, height in [(1280, 720), (1920, 1080), (1024, 768)]:
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size({"width": width, "height": height})
                page.wait_for_function(
                    "([w, h]) => innerWidth === w && innerHeight === h", arg=[width, height]
                )
                found = page.evaluate(FITS)
                assert found["over"] <= 0 and found["wide"] <= 0 and found["low"] < 0
                assert found["letters"] >= 0.0145 * width


# ten, a second after each other; the test below has thirty at once
def test_simulated_laptops_as_the_command_starts_them(page, tmp_path):
    command = [sys.executable, "-m", "kdlab", "pool", "--simulate", "10"]
    command += ["--dir", str(tmp_path / "pool")]
    with served(command, own_jupyter(tmp_path), "Ctrl-C") as (_, said):
        page.goto(re.search(r"projector +(\S+)", "".join(said))[1])
        page.get_by_text("simulated: no student was trained").wait_for()
        page.get_by_text("9 splits count, 2 do not").wait_for()
        assert page.locator("circle.dot").count() == 9
        assert page.locator("#apart li").count() == 2


def test_thirty_processes_of_a_class_at_once(page, tmp_path):
    with opened(tmp_path / "pool", TERMS) as pool:
        page.goto(pool.projector)
        started = [simulate.start(pool.address, pool.code, i, tmp_path) for i in range(30)]
        assert [process.wait(300) for process in started] == [0] * 30
        page.get_by_text("27 splits count, 6 do not").wait_for()
        assert page.locator("circle.dot").count() == 27
        assert page.locator("#apart li").count() == 6
