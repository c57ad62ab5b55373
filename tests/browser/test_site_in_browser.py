"""The site and the slides in a real browser: search, phone width, dark mode, formulas, keys,
figures that fit."""

import re

import nbformat
import pytest
from pages import ROOT
from servers import DESK, PHONE, PROJECTOR

from kdlab.lessons.predict import questions

pytest.importorskip(
    "sphinx", reason="the site's packages are not installed: pip install -e '.[site]'"
)
LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
looks = pytest.mark.usefixtures("readers")
each_lesson = pytest.mark.parametrize("lesson", LESSONS)
# the least contrast of WCAG 2, level AA, between a text and the ground that it stands on
CONTRAST = """selector => [...document.querySelectorAll(selector)]
    .filter(e => e.innerText?.trim()).map(e => {
    const channels = c => c.match(/[\\d.]+/g).map(Number);
    const light = c => channels(c).slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    let ground = e;
    const behind = () => getComputedStyle(ground).backgroundColor;
    while (ground && (channels(behind())[3] ?? 1) === 0) ground = ground.parentElement;
    const pair = [light(getComputedStyle(e).color), light(behind())];
    return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), e.innerText.slice(0, 60)];
}).filter(([ratio, text]) => ratio < 4.5)"""

# a page that is open takes the reader's other scheme, and no colour is on its way any more
TURNED = """scheme => document.documentElement.dataset.theme === scheme
    && !document.getAnimations().some(a => a instanceof CSSTransition)"""


def test_search_finds_temperature(site):
    page = site("index.html")
    page.locator("button.search-button-field:visible, button.search-button:visible").first.click()
    page.keyboard.type("temperature")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=temperature*")
    found = page.locator("ul.search li a")
    found.first.wait_for()
    page.wait_for_function("document.querySelectorAll('ul.search li a').length > 5")
    assert any("03 · Temperature" in title for title in found.all_inner_texts())
    found.filter(has_text="03 · Temperature").first.click()
    assert "why soften it" in page.locator("h1").first.inner_text()


def test_search_of_nonsense_finds_nothing(site):
    page = site("search.html?q=xyzzyplugh")
    page.get_by_text("did not match any documents").wait_for()
    assert page.locator("ul.search li a").count() == 0


def check_fits_a_phone(page):
    """Nothing makes the page wider than a phone, and the list of pages opens."""
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    # what is wider than the screen scrolls in a box of its own
    too_wide = page.evaluate("""() =>
        [...document.querySelectorAll('article :is(img, table, pre, p)')]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .filter(e => !e.closest('pre, table, mjx-container'))
        .map(e => e.outerHTML.slice(0, 90))""")
    assert too_wide == []
    page.locator("button.primary-toggle:visible").click()
    page.get_by_role("link", name="03 · Temperature").first.wait_for()


def check_text_and_figures_can_be_read(page, scheme):
    assert page.locator("html").get_attribute("data-theme") == scheme
    words = "article p, article figcaption, article li, article td, article summary"
    assert page.evaluate(CONTRAST, words) == []
    grounds = page.locator("figure img").evaluate_all(
        "all => all.map(e => getComputedStyle(e).backgroundColor)"
    )
    assert scheme == "light" or set(grounds) == {"rgb(255, 255, 255)"}


@pytest.mark.parametrize(
    "address",
    [
        "index.html",
        "glossary.html",
        "bibliography.html",
        "api/index.html",
        "api/losses.divergences.html",
        "api/teachers.sparse.html",  # code in a sentence
        "api/training.config.html",  # a signature of many arguments
    ],
)
def test_a_phone_shows_the_page_without_sideways_scrolling(site, address):
    check_fits_a_phone(site(address, PHONE))


# opened once: most of its time is that of its formulas
@looks
@each_lesson
def test_a_lesson_fits_a_phone_and_can_be_read_in_light_and_dark(site, lesson):
    page = site(f"notebooks/{lesson}.html", PHONE, "dark")
    check_fits_a_phone(page)
    page.keyboard.press("Escape")  # closes the list of pages
    page.set_viewport_size(DESK)
    check_text_and_figures_can_be_read(page, "dark")
    page.emulate_media(color_scheme="light")
    page.wait_for_function(TURNED, arg="light")
    check_text_and_figures_can_be_read(page, "light")
    assert page.locator(".math").count() == page.locator(".math mjx-container svg").count()
    assert page.locator("[data-mml-node=merror], mjx-merror").count() == 0


@pytest.fixture
def deck(serve, page):
    """Open a deck, ready to move: deck("02_dark_knowledge")."""
    missing = []
    page.on(
        "response",
        lambda r: missing.append(r.url) if r.status >= 400 and "favicon" not in r.url else None,
    )

    def go(lesson):
        page.set_viewport_size(PROJECTOR)
        page.goto(f"{serve('slides')}/{lesson}.html")
        page.wait_for_function(
            "window.Reveal?.isReady() && document.querySelector('section.present')"
        )
        return page

    yield go
    assert missing == []


def test_the_arrow_key_goes_through_the_story_and_down_to_its_code(deck):
    page = deck("00_start_here")
    now = "(({h, v, f}) => [h, v, f])(Reveal.getIndices())"
    titles, codes, before = [], [], None
    while before != page.evaluate(now):
        before, slide = page.evaluate(now), page.locator("section.present:not(.stack)")
        titles += [
            title for title in slide.locator("h1, h2").all_inner_texts() if title not in titles
        ]
        assert before[1] == 0 and slide.locator(".highlight pre").count() == 0
        page.keyboard.press("ArrowDown")
        if page.evaluate(now)[1]:
            codes.append(
                page.locator("section.present:not(.stack) .highlight pre").first.inner_text()
            )
            page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowRight")
    lesson = nbformat.read(ROOT / "notebooks" / "00_start_here.ipynb", as_version=4)
    headings = [
        line for cell in lesson.cells for line in cell.source.splitlines() if re.match("##? ", line)
    ]
    assert titles == [line.strip("# ") for line in headings]
    assert len(codes) > 5 and codes[0].startswith("task = kd.load(")


def test_the_answer_to_a_prediction_comes_after_its_figure(deck):
    page, asked = deck("02_dark_knowledge"), questions()["02.a"]
    told = page.evaluate(
        """Reveal.getHorizontalSlides().map(
            slide => slide.textContent + (slide.querySelector('img') ? '[img]' : ''))"""
    )
    question = next(i for i, words in enumerate(told) if "Predict." in words)
    answer = next(i for i, words in enumerate(told) if asked.because in words)
    assert any("[img]" in words for words in told[question + 1 : answer])
    assert asked.because not in told[question]


@looks
@each_lesson
def test_every_slide_fits_and_no_formula_failed(deck, lesson):
    page = deck(lesson)
    # no frame is awaited between two slides: a box that is asked for is laid out at once
    too_large = page.evaluate("""() => {
        const found = [];
        for (const slide of Reveal.getSlides()) {
            const {h, v} = Reveal.getIndices(slide);
            Reveal.slide(h, v);
            for (const e of slide.querySelectorAll('img, p, li, pre, td, figcaption')) {
                const box = e.getBoundingClientRect();
                const below = box.bottom > innerHeight + 1, beside = box.right > innerWidth + 1;
                if (box.width && (below || beside || box.top < -1))
                    found.push([h, v, e.outerHTML.slice(0, 60), box.bottom, box.right]);
            }
        }
        return found;
    }""")
    assert too_large == []
    assert page.locator("[data-mml-node=merror], mjx-merror").count() == 0
    assert "$" not in page.evaluate(
        """() => [...document.querySelectorAll('.slides p, .slides li, .slides td')]
        .map(e => e.textContent).join(' ')"""
    )
