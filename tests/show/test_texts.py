"""Texts side by side: whatever a model writes stays text, and nbval compares all but what it
wrote."""

import re
from html.parser import HTMLParser

import pytest
from nbval.plugin import get_sanitize_patterns
from test_sanitize import SANITIZE

from kdlab.show.plots import Texts

NASTY = {
    "teacher <b>": "</samp><script>alert(1)</script> a < b & c > \"d\" 'e'",
    "student & co": "\ndef f(x):\n    <pad>",
    "empty": "",
}


class Page(HTMLParser):
    """The tags in order, and the words found in each kind of element."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.append(tag)
        self.words.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words[self.open[-1]][-1] += data


def test_every_name_text_and_caption_is_shown_as_it_is_and_none_is_html():
    page = Page(Texts(NASTY, "Two <samples> & more")._repr_html_())
    assert page.tags == ["table", *["tr", "th", "td", "samp"] * 3, "p"] and not page.open
    assert page.words["th"] == list(NASTY) and page.words["samp"] == list(NASTY.values())
    assert page.words["p"] == ["Two <samples> & more"]


def test_line_breaks_and_indentation_are_kept():
    assert (
        "white-space:pre-wrap"
        in re.search(r"<td style='([^']*)'", Texts(NASTY, "A caption.")._repr_html_())[1]
    )


def test_the_plain_form_names_who_wrote_but_not_what():
    assert (
        repr(Texts(NASTY, "A caption.")) == "Texts: A caption. [teacher <b>, student & co, empty]"
    )


def test_the_texts_are_a_copy():
    given = {"a": "one"}
    shown = Texts(given, "A caption.")
    given["a"] = given["b"] = "two"
    assert shown.texts == {"a": "one"}


def mask(texts, caption="A caption."):
    text = Texts(texts, caption)._repr_html_()
    for pattern, replacement in get_sanitize_patterns(SANITIZE.read_text(encoding="ascii")):
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize("other", ["", "another text", "one\nline\nmore", "<samp> & </samp>", "±"])
def test_nbval_passes_another_text_but_no_other_name_or_caption(other):
    one = mask({"teacher": "a < b", "student": "c"})
    assert mask({"teacher": other, "student": "d"}) == one and one.count("<samp>TEXT</samp>") == 2
    assert mask({"teacher": "a < b", "pupil": "c"}) != one
    assert mask({"teacher": "a < b"}) != one
    assert mask({"teacher": "a < b", "student": "c"}, "Another caption.") != one
