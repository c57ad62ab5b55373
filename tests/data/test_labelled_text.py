"""Texts with labels: split without overlap, of sets that name their columns as they like."""

import datasets
import huggingface_hub.constants as hub
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kdlab as kd
from kdlab import load_text, plain_text
from kdlab.data.docstrings import FIELDS, docstrings, held_out
from kdlab.data.plain_text import small_texts

PARTS = ("train", "validation", "test")


def test_docstrings_are_split_without_overlap_and_the_test_texts_stay():
    seeds = [load_text(seed=seed, sizes=(600, 200, 300)) for seed in (0, 0, 1)]
    for found in seeds:
        assert [len(found[part]) for part in PARTS] == [600, 200, 300]
        assert len({t for part in PARTS for t in found[part]["text"]}) == 1100
        assert all(held_out(t) == (part == "test") for part in PARTS for t in found[part]["text"])
    first, again, other = ([list(found[part]["text"]) for part in PARTS] for found in seeds)
    assert first == again and first[2] == other[2]
    assert first[0] != other[0] and first[1] != other[1]
    module = {t: m for m, t in docstrings()}
    for part in PARTS:
        label = seeds[0][part].features["label"]
        assert label.names == list(FIELDS) and set(seeds[0][part]["label"]) == set(range(8))
        for row in seeds[0][part]:
            assert module[row["text"]] in FIELDS[label.int2str(row["label"])].split()


@pytest.mark.parametrize(
    "options, words",
    [
        (
            {"sizes": (100, 100)},
            (
                r"sizes must be three counts, at most \d+ for train .* \d+ for test .*, got \(100,"
                r" 100\)"
            ),
        ),
        ({"sizes": 100}, "sizes must be three counts, .* got 100"),
        ({"sizes": (0, 100, 100)}, r"sizes must .*only validation may be 0.*got \(0, 100, 100\)"),
        ({"sizes": (100, -1, 100)}, r"sizes must .* got \(100, -1, 100\)"),
        ({"sizes": (100, 100, 0)}, r"sizes must .* got \(100, 100, 0\)"),
        ({"sizes": (1e2, 10, 10)}, r"sizes must .* got \(100.0, 10, 10\)"),
        ({"sizes": (9000, 10, 10)}, r"sizes must .* got \(9000, 10, 10\)"),
        ({"sizes": (10, 9000, 10)}, r"sizes must .* got \(10, 9000, 10\)"),
        ({"sizes": (10, 10, 9000)}, r"sizes must .* got \(10, 10, 9000\)"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=f"^load_text: {words}"):
        load_text(**options)


def test_train_and_validation_may_take_every_text_but_no_more():
    train, test = (
        sum(
            held_out(t) == which and any(m in f.split() for f in FIELDS.values())
            for m, t in docstrings()
        )
        for which in (False, True)
    )
    assert len(set(load_text(sizes=(train - 1, 1, test))["train"]["text"])) == train - 1
    for sizes in ((train, 1, test), (1, 1, test + 1)):
        with pytest.raises(ValueError, match="sizes must"):
            load_text(sizes=sizes)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory and empty caches; write(name, split, …) makes a set in
    KDLAB_DATA."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("KDLAB_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def write(name, split, kind="parquet", classes=("bad", "good"), **columns):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        rows = datasets.Dataset.from_dict(columns)
        if classes and "mood" in columns:
            rows = rows.cast_column("mood", datasets.ClassLabel(names=list(classes)))
        file = str(tmp_path / "data" / name / f"{split}.{kind}")
        rows.to_parquet(file) if kind == "parquet" else rows.to_json(file)

    return write


def reviews(n, first=0, labelled=True):
    return {
        "idx": list(range(n)),
        "mood": [i % 2 if labelled else -1 for i in range(n)],
        "sentence": [f"review {first + i}" for i in range(n)],
    }


@pytest.mark.parametrize("kind, names", [("parquet", ["bad", "good"]), ("jsonl", ["0", "1"])])
def test_a_set_in_the_hubs_layout_may_name_its_columns_as_it_likes(folder, kind, names):
    def columns(*numbers):  # a jsonl file has whole numbers, and so only one such column
        return {k: v for k, v in reviews(*numbers).items() if kind == "parquet" or k != "idx"}

    folder("films", "train", kind, **columns(40))
    folder("films", "test", kind, **columns(20, 100))
    found, other = (load_text("films", seed=seed, sizes=(30, 10, 20)) for seed in (0, 1))
    for part in PARTS:
        assert (
            found[part].column_names == ["text", "label"]
            and found[part].features["label"].names == names
        )
        assert all(int(row["text"].split()[1]) % 2 == row["label"] for row in found[part])
    assert sorted([*found["train"]["text"], *found["validation"]["text"]]) == sorted(
        reviews(40)["sentence"]
    )
    assert sorted(found["test"]["text"]) == sorted(reviews(20, 100)["sentence"])
    assert list(found["test"]["text"]) == list(other["test"]["text"])
    assert list(found["train"]["text"]) != list(other["train"]["text"])


@pytest.mark.parametrize("hidden", [True, False], ids=["hidden", "published"])
def test_hidden_test_labels_give_way_to_the_validation_split(folder, hidden):
    folder("films", "train", **reviews(12))
    folder("films", "validation", **reviews(6, 100))
    folder("films", "test", **reviews(6, 200, labelled=not hidden))
    found = load_text("films", sizes=(8, 4, 6))
    assert sorted(found["test"]["text"]) == sorted(reviews(6, 100 if hidden else 200)["sentence"])
    assert sorted([*found["train"]["text"], *found["validation"]["text"]]) == sorted(
        reviews(12)["sentence"]
    )


@pytest.mark.parametrize(
    "splits, words",
    [
        (
            {"train": reviews(9)},
            r"'films' must have a test or validation split with labels, got \['train'\]",
        ),
        (
            {"train": reviews(9), "test": reviews(9, 0, False)},
            "'films' must have a test or validation split with labels",
        ),
        ({"test": reviews(9)}, r"'films' must have a train split, got \['test'\]"),
        (
            {"train": reviews(3) | {"title": ["a"] * 3}},
            r"'films' must have one text column, got \['sentence', 'title'\]: name it by text=",
        ),
        ({"train": {"sentence": ["a"] * 3}}, "'films' must have one label column, got {'sentence'"),
    ],
)
def test_a_set_without_what_is_needed_is_told(folder, splits, words):
    for split, columns in splits.items():
        folder("films", split, **columns)
    with pytest.raises(ValueError, match=f"^load_text: {words}"):
        load_text("films", sizes=(4, 4, 4))


def test_an_unknown_name_lists_where_it_looked_and_a_broken_set_is_named(folder, tmp_path):
    for name, call in (
        ("load_text", load_text),
        ("plain_text", plain_text),
        ("plain_text", small_texts),
    ):
        with pytest.raises(FileNotFoundError) as error:
            call("no/films")
        said = str(error.value)
        looked = [
            "directory no/films",
            f"KDLAB_DATA={tmp_path / 'data'}",
            "hub cache, id no/films",
            "the hub (not re",
        ]
        assert [said.index(place) for place in looked] == sorted(
            said.index(place) for place in looked
        )
        assert said.startswith(f"{name}: can't find the text 'no/films'") and "'docstrings'" in said
        (tmp_path / "data" / "broken").mkdir(parents=True, exist_ok=True)
        with pytest.raises(
            FileNotFoundError, match=f"^{name}: 'broken' was found at .*broken but can't be read"
        ):
            call("broken")


def trec(n):
    """Rows with two label columns, as TREC has, and two texts beside row numbers, as GLUE has."""
    return {
        "idx": [7 + i for i in range(n)],
        "mood": [i % 2 for i in range(n)],
        "coarse": [i % 3 for i in range(n)],
        "sentence1": [f"first {i}" for i in range(n)],
        "sentence2": [f"second {i}" for i in range(n)],
    }


@pytest.mark.parametrize("label, classes", [("mood", ["bad", "good"]), ("coarse", ["0", "1", "2"])])
@pytest.mark.parametrize(
    "text", ["sentence1", "sentence2", ("sentence1", "sentence2"), ["sentence2", "sentence1"]]
)
def test_the_reader_says_which_text_and_which_label(folder, text, label, classes):
    for split in ("train", "validation"):
        folder("questions", split, **trec(12))
    found = kd.load_text("questions", sizes=(8, 4, 12), text=text, label=label)
    pair = not isinstance(text, str)
    words = {"sentence1": "first", "sentence2": "second"}
    for part in PARTS:
        new = ["text", "text_pair"] if pair else ["text"]
        assert found[part].column_names == [*new, "label"]
        assert found[part].features["label"].names == classes
        for row in found[part]:
            i = int(row["text"].split()[1])
            assert [row[k] for k in new] == [f"{words[k]} {i}" for k in (text if pair else [text])]
            assert row["label"] == i % len(classes)


def test_columns_that_bear_each_others_names_are_told_apart(folder):
    for split in ("train", "test"):
        folder(
            "swapped",
            split,
            label=["a", "b", "c", "d"],
            text_pair=["A", "B", "C", "D"],
            text=[0, 1, 1, 0],
        )
    found = kd.load_text("swapped", sizes=(4, 0, 4), text=("text_pair", "label"), label="text")
    assert {tuple(row.values()) for row in found["train"]} == {
        ("A", "a", 0),
        ("B", "b", 1),
        ("C", "c", 1),
        ("D", "d", 0),
    }


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


@pytest.mark.parametrize("option", [{"text": "text"}, {"label": "label"}])
def test_the_docstrings_have_no_columns_to_choose(option):
    with pytest.raises(ValueError, match="^load_text: text and label are for sets .*'docstrings'"):
        kd.load_text(**option)


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


def test_every_text_may_be_taken_for_training(folder):
    for split in ("train", "test"):
        folder("films", split, **reviews(8))
    found = kd.load_text("films", sizes=(8, 0, 8))
    assert sorted(found["train"]["text"]) == reviews(8)["sentence"]
    assert len(found["validation"]) == 0 and found["validation"].column_names == ["text", "label"]


def test_row_numbers_are_not_taken_for_classes(folder):
    for split in ("train", "test"):
        folder("notes", split, idx=list(range(6)), sentence=["a text"] * 6)
    with pytest.raises(ValueError, match="column 'idx' only numbers the rows, no two alike"):
        kd.load_text("notes", sizes=(4, 2, 4))
