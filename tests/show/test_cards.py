"""A claim's card: what a reader sees, hears and prints, and what the drawing's pixels say."""

import base64
import dataclasses
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import IPython
import numpy as np
import pandas as pd
import pytest
from nbval.plugin import get_sanitize_patterns

from kdlab import Estimate, claim
from kdlab.evidence import claims
from kdlab.show.cards import Card, show
from kdlab.show.sheet import width_of

CENTRED = np.array([-1.0, 0.0, 0.0, 1.0])  # half width of its interval: 1.2992
SANITIZE = Path(__file__).parents[1] / "sanitize.cfg"
SVG = "{http://www.w3.org/2000/svg}"


def estimate(mean, scale=1.0, what="gain", measure="points"):
    values = pd.Series(CENTRED * scale + mean, [f"digits/{i}" for i in range(4)])
    return Estimate(values, what, measure, 2)


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, as in a kernel."""
    found = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", found.append)
    return found


class Page(HTMLParser):
    """The tags of a page with their attributes, and its words with those that are folded away."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.words, self.folded = [], [], "", ""
        self.feed(page)
        assert not self.open, "a tag is not closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.open += [tag] * (tag != "img")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = "details" in self.open and "summary" not in self.open
        self.folded, self.words = (
            self.folded + data * inside,
            self.words + data * (not inside),
        )


def drawing(card):
    """(the image's attributes, its SVG as a tree)."""
    (image,) = (attributes for tag, attributes in Page(card._repr_html_()).tags if tag == "img")
    data = image["src"].removeprefix("data:image/svg+xml;base64,")
    return image, ElementTree.fromstring(base64.b64decode(data))


def places(tree):
    """How far along the axis, in pixels: bounds, shaded parts, means and intervals."""
    lines = [
        {k: line.get(k) for k in ("x1", "x2", "stroke", "stroke-width")}
        for line in tree.iter(f"{SVG}line")
    ]
    return {
        "bounds": [float(at["x1"]) for at in lines if at["stroke-width"] == "1.5"],
        "intervals": [
            (float(at["x1"]), float(at["x2"])) for at in lines if at["stroke-width"] == "5"
        ],
        "means": [float(dot.get("cx")) for dot in tree.iter(f"{SVG}circle")],
        "shaded": [
            (float(r.get("x")), float(r.get("x")) + float(r.get("width")))
            for r in tree.iter(f"{SVG}rect")
        ],
    }


def test_a_card_shows_sentence_and_word_and_folds_the_rest(shown):
    assert (
        claim("T < 4 & more helps", {"30 epochs": estimate(2) > 0, "60 epochs": estimate(3) > 0})
        is None
    )
    (card,) = shown
    page = Page(card._repr_html_())
    assert page.words == "T < 4 & more helps+ helpshow sure?"
    for line in repr(card).splitlines()[1:]:
        assert line in page.folded
    assert repr(card).startswith(
        "Claim (helps): T < 4 & more helps\n30 epochs: +2.00 ± 1.30 points"
    )


def test_the_picture_says_its_numbers_where_it_is_not_seen(shown):
    claim("it helps", {"30 epochs": estimate(2) > 0, "60 epochs": estimate(3) > 0})
    image, tree = drawing(shown[0])
    assert image["alt"] == (
        "30 epochs: +2.00 ± 1.30 points (> 0); 60 epochs: +3.00 ± 1.30 points (> 0)"
    )
    words = [text.text for text in tree.iter(f"{SVG}text")]
    assert words[:4] == ["30 epochs", "+2.00 ± 1.30 points", "60 epochs", "+3.00 ± 1.30 points"]


@pytest.mark.parametrize(
    "comparison, axis, shaded",
    [
        (estimate(2, 0.5) > 1, (0, 4), (1, 4)),
        (estimate(1, 0.5) < 3, (0, 4), (0, 3)),
        (estimate(0.1, 0.5).within(1.5), (-2, 2), (-1.5, 1.5)),
        (estimate(70, 5, measure="%") > 50, None, (50, 100)),
    ],
)
def test_the_drawing_is_to_scale(comparison, axis, shaded, shown):
    claim("a", comparison, axis)
    tree = drawing(shown[0])[1]
    low, high = axis or (0, 100)
    ends = [line for line in tree.iter(f"{SVG}line") if line.get("stroke-width") == "1"][-1]
    left, right = float(ends.get("x1")), float(ends.get("x2"))

    def value(x):
        return low + (x - left) / (right - left) * (high - low)

    found, pixel = places(tree), (high - low) / (right - left)
    ((start, end),) = found["shaded"]
    assert (value(start), value(end)) == pytest.approx(shaded, abs=0.1 * pixel)
    assert [value(x) for x in found["means"]] == pytest.approx(
        [comparison.estimate.mean], abs=0.1 * pixel
    )
    ((start, end),) = found["intervals"]
    assert (value(start), value(end)) == pytest.approx(
        comparison.estimate.interval(), abs=0.1 * pixel
    )
    bounds = [b for b in comparison.wanted if np.isfinite(b)]
    assert [value(x) for x in found["bounds"]] == pytest.approx(bounds, abs=0.1 * pixel)


@pytest.mark.parametrize(
    "comparison",
    [
        estimate(2) > 0,
        estimate(-2) < 0,
        estimate(200) > 30,
        estimate(0.003, 0.001, measure="nats") < 0.1,
        estimate(0.1, 0.2).within(0.5),
        estimate(5, 0) > 0,
        estimate(0, 0).within(0.5),
        estimate(120, measure="%") > 110,
        estimate(0.01, 0.01, measure="%") < 0.1,
    ],
)
def test_all_that_matters_lies_inside_the_picture(comparison, shown):
    claim("a", comparison)
    tree = drawing(shown[0])[1]
    found, width = places(tree), float(tree.get("width"))
    (start, end), (left, right) = found["shaded"][0], found["intervals"][0]
    assert 0 < start <= left <= right <= end < width and end - start > 20
    assert len(found["bounds"]) == sum(map(np.isfinite, comparison.wanted))
    unwanted = [x for x in found["bounds"] if min(x, width - x) < 12]
    assert not unwanted, "a bound at the edge: its other side can't be seen"


def test_a_bound_near_an_end_is_written_inwards(shown):
    """Centred, its first digits would be cut off."""
    e = estimate(40, measure="%")
    for comparison, bound, anchor in (
        (e > 1.5, 1.5, "start"),
        (e < 50, 50, "middle"),
        (e < 98.5, 98.5, "end"),
    ):
        claim("a", comparison)
        texts = drawing(shown.pop())[1].iter(f"{SVG}text")
        (told,) = [t for t in texts if t.text == f"{bound:.3g}" and t.get("font-weight") == "650"]
        assert told.get("text-anchor") == anchor


def test_an_interval_that_leaves_the_axis_stops_at_its_end(shown):
    claim("a", estimate(50) > 0, axis=(-1, 1))
    found = places(drawing(shown[0])[1])
    assert found["means"] == [found["shaded"][0][1]] == [found["intervals"][0][1]]


def test_what_nbval_compares_of_a_card_is_its_words_alone(shown):
    def masked(comparison):
        claim("it helps", comparison)
        card, patterns = shown[-1], get_sanitize_patterns(SANITIZE.read_text(encoding="ascii"))
        texts = [repr(card), card._repr_html_()]
        for pattern, replacement in patterns:
            texts = [re.sub(pattern, replacement, text) for text in texts]
        return texts

    first = masked(estimate(2) > 0)
    assert first == masked(estimate(3.1, 0.7) > 0)
    for other in (estimate(0.3, 0.1) > 0, estimate(2) > 0.25):
        assert all(a != b for a, b in zip(first, masked(other), strict=True))


def test_the_same_claim_is_the_same_card(shown):
    for _ in range(2):
        claim("it helps", estimate(2) > 0)
    assert shown[0]._repr_html_() == shown[1]._repr_html_() and "id=" not in shown[0]._repr_html_()


@pytest.mark.parametrize("flips", ["", "30 epochs (3)"])
def test_a_card_tells_what_the_ledger_holds(flips, shown, monkeypatch, tmp_path):
    table = tmp_path / "benchmarks" / "results" / "claims.csv"
    table.parent.mkdir(parents=True)
    row = {"sentence": "it helps", "held": 17, "of": 20, "mean_margin": 4.2, "least_margin": -0.3}
    pd.DataFrame([row | {"flips": flips}]).to_csv(table, index=False)
    monkeypatch.setattr(claims, "course_files", lambda: tmp_path)
    claim("it helps", estimate(2) > 0)
    folded = Page(shown[0]._repr_html_()).folded
    assert "held 17 times of 20" in folded and "4.2 standard errors" in folded and "-0.3" in folded
    assert ("flipped at: 30 epochs (3)" in folded) is bool(flips)
    assert "On fresh splits, teachers and seeds it held" in folded
    claim("another", estimate(2) > 0)
    assert "fresh splits" not in Page(shown[1]._repr_html_()).folded
    pd.DataFrame([row | {"held": 0, "of": 0, "flips": ""}]).to_csv(table, index=False)
    claim("it helps", estimate(2) > 0)
    folded = Page(shown[2]._repr_html_()).folded
    assert "off a committed table" in folded and "held 0" not in folded
    # a teacher that was not drawn is not said to be fresh
    pd.DataFrame([row | {"flips": ""}]).to_csv(table, index=False)
    claim("it helps", dataclasses.replace(estimate(2), units="fields, with one teacher") > 0)
    assert "On fresh splits and seeds it held" in Page(shown[3]._repr_html_()).folded


@pytest.mark.parametrize("there", [True, False])
def test_without_a_kernel_it_is_printed(there, capsys, monkeypatch):
    if not there:
        monkeypatch.setitem(sys.modules, "IPython", None)  # as where it is not installed
    claim("it helps", estimate(2) > 0)
    assert capsys.readouterr().out.startswith("Claim (helps): it helps\ngain +2.00 ± 1.30 points")
    show(Card("plain", "<b>marked</b>"))
    assert capsys.readouterr().out == "plain\n"


def test_a_claim_that_fails_shows_no_card_unless_it_is_a_question(shown, monkeypatch):
    with pytest.raises(AssertionError, match="^Claim does not hold: it hurts\ngain "):
        claim("it hurts", estimate(2) < 0)
    assert not shown
    monkeypatch.setenv("KDLAB_CLAIMS", "report")
    claim("it hurts", estimate(2) < 0)
    assert "does not hold here" in Page(shown[0]._repr_html_()).words


@pytest.mark.parametrize("axis", [3, "ab", (1,), (1, 1), (2, 1), (0, np.nan), (0, "1")])
def test_an_axis_that_is_none_is_refused(axis, shown):
    with pytest.raises(ValueError, match="^claim: axis"):
        claim("a", estimate(2) > 0, axis)
    assert not shown


@pytest.mark.parametrize("name", ["2 steps", "between, over teacher", "a longer name " * 5])
def test_a_budget_s_name_does_not_run_into_its_numbers(name, shown):
    claim("it helps", {name: estimate(2.4) > 0})
    (card,) = shown
    assert name in card.text
    data = re.search(r"base64,([^\"]+)", card.markup)[1]
    words = [w.text for w in ElementTree.fromstring(base64.b64decode(data)).iter(f"{SVG}text")]
    told, numbers = words[:2]
    assert told == name or told.endswith("…")
    assert width_of(told, 13) + width_of(numbers, 13, "semibold") < 328
