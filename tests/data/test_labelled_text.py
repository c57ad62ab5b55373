"""Texts with labels: split without overlap, of sets that name their columns as they like."""

import pytest
from sets import reviews, trec

import kdlab as kd
from kdlab import load_text
from kdlab.data.docstrings import FIELDS, docstrings, held_out

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


@pytest.mark.parametrize("option", [{"text": "text"}, {"label": "label"}])
def test_the_docstrings_have_no_columns_to_choose(option):
    with pytest.raises(ValueError, match="^load_text: text and label are for sets .*'docstrings'"):
        kd.load_text(**option)


def test_every_text_may_be_taken_for_training(folder):
    for split in ("train", "test"):
        folder("films", split, **reviews(8))
    found = kd.load_text("films", sizes=(8, 0, 8))
    assert sorted(found["train"]["text"]) == reviews(8)["sentence"]
    assert len(found["validation"]) == 0 and found["validation"].column_names == ["text", "label"]
