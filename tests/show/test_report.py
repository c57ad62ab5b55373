"""kdlab.show.report: the page says what the audit counted, and is whole or not there."""

import html.parser
import re

import pytest
import torch

import kdlab as kd

N = 60
LABELS = torch.arange(N) % 3
TEACHER = 4.0 * torch.eye(3)[LABELS]
STUDENT = TEACHER.clone()
STUDENT[[4, 7, 10]] = torch.tensor([[0.0, 0, 3], [9, 0, 0], [2, 0, 0]])  # three of class 1
FOUND = kd.audit(TEACHER, STUDENT, LABELS, ["<no>", "yes", "perhaps"], {"early": LABELS > 5})
TEXTS = [f"text <{i}>" for i in range(N)]


class Words(html.parser.HTMLParser):
    """The rows of all tables and the words of a page; an error for a tag that is not closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.rows, self.words = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag not in ("meta", "img", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1].append(data)


def test_the_page_says_what_the_table_counts():
    page = Words(kd.report(FOUND, TEXTS)._repr_html_())
    table = FOUND.table()
    rows = {row[0]: row for row in page.rows if row[0] in table.index}
    assert list(rows) == ["all", "<no>", "yes", "perhaps", "early"]
    for name, row in table.iterrows():
        told = rows[name]
        assert told[1] == str(row["rows"]) and told[-1] == row["verdict"]
        if row["rows"]:
            assert told[2:4] == [f"{row['teacher']:.1f}", f"{row['student']:.1f}"]
    low, high = table.loc["yes", ["low", "high"]]
    assert rows["yes"][4] == f"−15.0 ({low:.1f} to {high:.1f})".replace("-", "−")
    assert rows["early"][2:] == ["too few"]
    worst = [row for row in page.rows if row[0].startswith("text <")]
    assert [row[:2] for row in worst] == [[f"text <{i}>", "yes"] for i in (7, 4, 10)]
    assert worst[0][2] == "<no> (100 %)"


def test_the_text_says_the_sentences():
    said = str(kd.report(FOUND, title="Mine"))
    assert said.startswith("Mine\nOf 60 rows the teacher gets 100.0 % right, the student 95.0 %")
    low, high = (100 * end for end in FOUND.agreement_interval)
    assert f"They agree on 95.0 % ({low:.1f} to {high:.1f})." in said
    errors = [
        f"{who} {FOUND.calibration[who]:.1f} % ({low:.1f} to {high:.1f})"
        for who, (low, high) in FOUND.calibration_interval.items()
    ]
    assert f"Calibration error: {', '.join(errors)}." in said
    assert "repeats 0 of the teacher's 0 mistakes, and makes 3 where the teacher is right" in said


def test_of_a_few_rows_no_calibration_interval_is_told():
    said = str(kd.report(kd.audit(TEACHER[:9], STUDENT[:9], LABELS[:9])))
    assert "They agree on 77.8 % (45.3 to 93.7)." in said and "nan" not in said


def test_a_file_is_one_page_with_nothing_from_elsewhere(tmp_path):
    images = torch.rand(N, 1, 8, 8)
    kd.report(FOUND, images, tmp_path / "audit.html")
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "These got worse" not in page.split("<figure")[0]
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page
    assert re.search(r'<img alt="3 images that the teacher reads rightly', page)
    assert [p.name for p in tmp_path.iterdir()] == ["audit.html"]
    before = page
    kd.report(FOUND, images, str(tmp_path / "audit.html"))  # again, in its place
    assert (tmp_path / "audit.html").read_text(encoding="utf-8") == before
    with pytest.raises(OSError):
        kd.report(FOUND, images, tmp_path / "nowhere" / "audit.html")


def test_where_nothing_got_worse_it_says_so():
    same = kd.audit(TEACHER, TEACHER, LABELS)
    assert "No row got worse." in kd.report(same, TEXTS)._repr_html_()


def test_an_interval_is_drawn_where_it_lies():
    page = kd.report(FOUND)._repr_html_()
    drawn = re.findall(r'd="M([\d.]+) 0V18".*?d="M([\d.]+) [\d.]+H([\d.]+)".*?cx="([\d.]+)"', page)
    rows = FOUND.table().dropna()
    assert len(drawn) == len(rows)
    for found, (_, row) in zip(drawn, rows.iterrows(), strict=True):
        zero, low, high, change = map(float, found)
        for end, points in ((low, row["low"]), (high, row["high"]), (change, row["change"])):
            assert (end > zero) == (points > 0) or abs(end - zero) < 0.2


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"audit": 3}, TypeError, "audit must be"),
        ({"examples": TEXTS[1:]}, ValueError, "examples must be one for each of 60 rows, got 59"),
        ({"examples": [1] * N}, TypeError, "examples must be images .* got a list of int"),
        ({"path": 3}, TypeError, "path must be"),
        ({"title": ""}, ValueError, "title must not be empty"),
    ],
)
def test_what_cannot_be_reported_is_told(change, error, words):
    with pytest.raises(error, match=f"^report: {words}"):
        kd.report(**{"audit": FOUND} | change)
