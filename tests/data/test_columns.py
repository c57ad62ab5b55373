"""Which column holds what, and what its labels mean; what cannot be meant is told by its name."""

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sets import looked_at, reviews, trec

import kdlab as kd
from kdlab import load_text, plain_text
from kdlab.data.columns import labels_hidden
from kdlab.data.plain_text import small_texts


def test_an_unknown_name_lists_where_it_looked_and_a_broken_set_is_named(folder, tmp_path):
    for name, call in (
        ("load_text", load_text),
        ("plain_text", plain_text),
        ("plain_text", small_texts),
    ):
        with pytest.raises(FileNotFoundError) as error:
            call("no/films")
        said = str(error.value)
        assert looked_at(said, "no/films", tmp_path / "data", "no/films", "not re")
        assert said.startswith(f"{name}: can't find the text 'no/films'") and "'docstrings'" in said
        (tmp_path / "data" / "broken").mkdir(parents=True, exist_ok=True)
        with pytest.raises(
            FileNotFoundError, match=f"^{name}: 'broken' was found at .*broken but can't be read"
        ):
            call("broken")


def test_row_numbers_beside_a_class_label_are_no_second_label(folder):
    for split in ("train", "test"):
        folder("films", split, **reviews(8))
    found = kd.load_text("films", sizes=(8, 0, 8))
    assert found["train"].features["label"].names == ["bad", "good"]


@pytest.mark.parametrize(
    "options, words",
    [
        (
            {},
            r"'questions' must have one text column, got \['sentence1', 'sentence2'\]: name it by",
        ),
        (
            {"text": "sentence3"},
            "'questions': text must name one of the columns .*'idx'.*'sentence3'",
        ),
        ({"text": "idx"}, r"'questions': text must name one of \['sentence1', .* got 'idx', which"),
        ({"text": 1}, "text must name one column or a pair of them, got 1"),
        ({"text": ("sentence1", None)}, "text must name one column or a pair of them"),
        ({"text": ("sentence1",) * 2}, "'questions': text and label must name different columns"),
        (
            {"text": ("sentence1", "sentence2", "idx")},
            "text must name one column or a pair of them",
        ),
        ({"text": ()}, r"text must name one column or a pair of them, got \(\)"),
        ({"text": "sentence1", "label": "moods"}, "'questions': label must name one of .*'mood'"),
        ({"text": "sentence1", "label": "sentence1"}, "'questions': text and label must name diff"),
        ({"text": "sentence1", "label": "score"}, "'questions': label must name one .*got 'score'"),
        ({"text": "sentence1", "label": "tokens"}, "'questions': label must name .*got 'tokens'"),
    ],
)
def test_a_column_that_cannot_be_meant_is_told_with_those_that_can(folder, options, words):
    for split in ("train", "test"):
        folder("questions", split, score=[0.5] * 6, tokens=[[1, 2]] * 6, **trec(6))
    with pytest.raises(ValueError, match=f"^load_text: {words}"):
        kd.load_text("questions", sizes=(4, 2, 4), **options)


def test_several_columns_of_whole_numbers_are_listed_with_the_argument_that_helps(folder):
    for split in ("train", "test"):
        folder("films", split, classes=None, **reviews(6))
    with pytest.raises(
        ValueError,
        match=r"must have one label column, got \['idx', 'mood'\]: "
        r"name it by label=, one of \['idx', 'mood'\]",
    ):
        kd.load_text("films", sizes=(4, 2, 4))
    found = kd.load_text("films", sizes=(4, 2, 4), label="mood")
    assert found["train"].features["label"].names == ["0", "1"]


LABELS = st.one_of(
    st.lists(st.integers(0, 10**9), min_size=2, max_size=5, unique=True),
    st.lists(st.text("abc", min_size=1, max_size=3), min_size=2, max_size=5, unique=True),
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=LABELS, data=st.data())
def test_the_classes_are_the_values_that_occur_sorted(folder, tmp_path, values, data):
    name = f"set{len(list((tmp_path / 'data').glob('*')))}"
    seen = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))
    train = values[:-1] * 2 if len(values) > 2 else values  # the last may occur in test alone
    folder(name, "train", sort=train, words=[f"train {i}" for i in range(len(train))])
    folder(name, "test", sort=seen, words=[f"test {i}" for i in range(len(seen))])
    found = kd.load_text(name, sizes=(len(train), 0, len(seen)), text="words", label="sort")
    classes = [str(v) for v in sorted({*train, *seen})]
    for part, given_labels in (("train", train), ("test", seen)):
        assert found[part].features["label"].names == classes
        for row in found[part]:
            assert classes[row["label"]] == str(given_labels[int(row["text"].split()[1])])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "column, value, words",
    [
        ("mood", None, "column 'mood' has no value in"),
        ("sentence", None, "column 'sentence' has no text in"),
        ("sentence", "", "column 'sentence' has no text in"),
        ("sentence", " \n\t", "column 'sentence' has no text in"),
        ("mood", -1, r"column 'mood' has hidden labels \(below 0\) in"),
    ],
)
def test_a_text_or_label_that_is_missing_is_told_by_its_row(folder, split, column, value, words):
    rows = {"train": reviews(20), "test": reviews(20, 100)}
    rows[split][column][3] = rows[split][column][17] = value
    for part, columns in rows.items():
        folder("films", part, **columns)
    with pytest.raises(
        ValueError,
        match=f"^load_text: 'films': {words} " rf"rows \[3, 17\] of the {split} split",
    ):
        kd.load_text("films", sizes=(4, 2, 4))


def test_a_pair_lacks_no_half(folder):
    rows = trec(6)
    rows["sentence2"][4] = None
    for split in ("train", "test"):
        folder("pairs", split, **rows)
    with pytest.raises(ValueError, match=r"column 'sentence2' has no text in rows \[4\] of the"):
        kd.load_text("pairs", sizes=(4, 2, 4), text=("sentence1", "sentence2"), label="mood")


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_one_class_is_nothing_to_tell_apart(folder, kind):
    for split in ("train", "test"):
        folder("films", split, kind, mood=[1] * 6, sentence=["a text"] * 6)
    with pytest.raises(
        ValueError,
        match=(
            "^load_text: 'films': column 'mood' must hold at least "
            "two classes in the train split, got '(good|1)' alone"
        ),
    ):
        kd.load_text("films", sizes=(4, 2, 4))


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_told(folder, tmp_path, split):
    (tmp_path / "data" / "films").mkdir(parents=True)
    features = datasets.Features(words=datasets.Value("string"), mood=datasets.Value("int64"))
    for part in ("train", "test"):
        n = 0 if part == split else 6
        columns = {"words": ["a film"] * n, "mood": [i % 2 for i in range(n)]}
        table = datasets.Dataset.from_dict(columns, features)
        table.to_parquet(tmp_path / "data" / "films" / f"{part}.parquet")
    for call in (kd.load_text, kd.plain_text):
        words = f"^{call.__name__}: 'films': the {split} split is empty"
        with pytest.raises(ValueError, match=words):
            call("films")


def test_row_numbers_are_not_taken_for_classes(folder):
    for split in ("train", "test"):
        folder("notes", split, idx=list(range(6)), sentence=["a text"] * 6)
    with pytest.raises(ValueError, match="column 'idx' only numbers the rows, no two alike"):
        kd.load_text("notes", sizes=(4, 2, 4))


@pytest.mark.parametrize(
    "labels, hidden",
    [([-1, -1], True), ([None, None], True), ([-1, 0], False), (["-1", "-1"], False), ([], False)],
    ids=str,
)
def test_labels_are_hidden_where_a_split_shows_none(labels, hidden):
    assert labels_hidden(datasets.Dataset.from_dict({"kind": labels}), "kind") is hidden
