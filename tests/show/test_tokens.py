"""Tokens are text whatever a model writes, shaded by what was given, each where it was read."""

import xml.etree.ElementTree

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from kdlab.show.tokens import BANDS, CAME, tokens

WORDS = ("A caption.", "An alt text.")


def said(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def written(figure):
    """The tokens, in monospace, with their colours."""
    return {
        text.get_text(): text.get_color()
        for text in figure.axes[0].texts
        if text.get_fontfamily() == ["monospace"]
    }


def test_a_token_is_shaded_by_its_probability(drawn):
    given = [("The", None), (" sky", 0.2), (" was", 0.05), (" so", 0.002), (" odd", 1e-6), (".", 0)]
    tokens(given, *WORDS)
    assert list(written(drawn[0])) == ["The", "sky", "was", "so", "odd", "."]
    patches = [to_hex(p.get_facecolor()) for p in drawn[0].axes[0].patches]
    assert patches[len(BANDS) :] == [BANDS[i][1] for i in (1, 2, 3, 3)]  # after the key
    assert written(drawn[0])["odd"] == "white"


def test_what_a_model_writes_stays_text():
    nasty = ["$x_1$", "<b>", "a & b", "\n", "\t", "   ", "", '"', "😀", "x" * 500]
    picture = tokens([(token, 0.001) for token in nasty], *WORDS)
    svg = picture.svg.decode()
    assert "&lt;b&gt;" in svg and "$x_1$" in svg and "⏎" in svg and "<b>" not in svg
    assert "nan" not in svg.lower()


def test_lines_are_as_wide_as_their_panel_and_a_line_break_ends_one(drawn):
    given = [(f" word{i}", 0.5) for i in range(60)] + [("\n", 0.5), ("new", 0.5)]
    tokens({"before": given, "after": given[:3]}, *WORDS, title="Two")
    assert {"Two", "before", "after"} <= set(said(drawn[0]))
    FigureCanvasAgg(drawn[0]).draw()
    left = [t for t in drawn[0].axes[0].texts if t.get_fontfamily() == ["monospace"]]
    for text in left:
        box = text.get_window_extent()
        assert box.x1 <= 490 + 2 or box.x0 >= 490
    places = {t.get_text(): t.get_position() for t in left[:62]}
    assert places["new"][0] < 24.5 and places["new"][1] > places["word59"][1]


def test_several_texts_begin_in_line_in_every_panel(drawn):
    long, short = [(f" word{i}", 0.5) for i in range(60)], [(" short", 0.5)]
    panels = {"before": [long, [(" one", None)]], "after": [short, [(" two", None)]]}
    tokens(panels, *WORDS)
    places = {t.get_text(): t.get_position() for t in drawn[0].axes[0].texts}
    assert places["one"][1] == places["two"][1] > places["word59"][1] > places["short"][1]
    assert places["two"][0] > places["one"][0]


def test_a_token_stands_above_the_likeliest_words_its_own_in_colour(drawn):
    words = {" is": 0.5, " was": 0.3, " be": 0.1, " am": 0.001}
    tokens([(" was", words), (" am", words), ("odd", None or {})], *WORDS, top=3)
    found = said(drawn[0])
    assert found.count("was") == 3 and found.count("am") == 2  # heads, and words in both columns
    assert {"30 %", "< 1 %"} <= set(found)
    came = [p for p in drawn[0].axes[0].patches if to_hex(p.get_facecolor()) == CAME]
    assert len(came) == 1 + 2  # the key, and each token's own


@pytest.mark.parametrize(
    "given, words",
    [
        ([], "hold a token"),
        ({}, "hold a token"),
        ([("a", 2.0)], r"lie in \[0, 1\], got 2.0"),
        ([("a", "b")], "probability must lie"),
        ([("a", {"b": -1})], "probability must lie"),
        ([("a", 0.5), ("b", {"c": 0.5})], "not both"),
        (["ab"], r"hold \(token, probability\)"),
        ([(1, 0.5)], r"hold \(token, probability\)"),
        ("text", "sequence must be a list, got str"),
        ([[("a", 0.5)], []], "hold a token"),
        ({"a": [[("a", 0.5)]], "b": [[("a", 0.5)], [("b", 0.5)]]}, "as many texts"),
        ([[("a", {"b": 0.5})], [("a", {"b": 0.5})]], "one text a panel"),
    ],
)
def test_what_cannot_be_drawn_is_named(given, words):
    with pytest.raises((TypeError, ValueError), match=words):
        tokens(given, *WORDS)


def test_bytes_that_are_no_text_leave_the_picture_whole():
    picture = tokens([("a\x02\x1b", 0.5), ("\ufffd", None)], *WORDS)
    xml.etree.ElementTree.fromstring(picture.svg)
