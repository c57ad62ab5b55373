"""Texts for language models: whole, and in parts that share nothing."""

import datasets
import huggingface_hub.constants as hub
import pytest

import kdlab as kd
from kdlab import plain_text
from kdlab.data.docstrings import FIELDS, docstrings, held_out
from kdlab.data.plain_text import small_texts


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Empty caches and an empty KDLAB_DATA; write(file, lines) makes a split of the set "tales"."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("KDLAB_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "tales").mkdir(parents=True)

    def write(file, count, word):
        lines = [f"{word} {i}" for i in range(count)]
        (tmp_path / "data" / "tales" / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return lines

    return write


def test_docstrings_as_plain_text_are_all_there_and_parted_by_what_is_held_out():
    found = plain_text()
    assert sorted(found["train"] + found["test"]) == sorted(t for _, t in docstrings())
    assert all(held_out(t) == (part == "test") for part in found for t in found[part])


def test_small_texts_are_the_fields_disjoint_and_complete():
    found = small_texts()
    assert list(found) == list(FIELDS) and list(small_texts(count=3)) == list(FIELDS)[:3]
    pairs = [
        (t, field) for field, parts in found.items() for texts in parts.values() for t in texts
    ]
    field_of = {m: field for field, modules in FIELDS.items() for m in modules.split()}
    assert sorted(pairs) == sorted((t, field_of[m]) for m, t in docstrings() if m in field_of)
    assert all(
        held_out(t) == (part == "test")
        for parts in found.values()
        for part in parts
        for t in parts[part]
    )
    assert found["mail"] == plain_text("mail")


def test_one_split_cuts_off_its_last_tenth(corpus):
    lines = corpus("train.txt", 40, "line")
    assert plain_text("tales") == {"train": lines[:36], "test": lines[36:]}


@pytest.mark.parametrize("published", [["validation"], ["validation", "test"]])
def test_a_published_test_or_else_validation_split_is_the_test_text(corpus, published):
    train = corpus("train.txt", 20, "train")
    lines = {split: corpus(f"{split}.txt", 5, split) for split in published}
    assert plain_text("tales") == {"train": train, "test": lines[published[-1]]}


@pytest.mark.parametrize("count", [1, 4])
def test_parts_of_another_set_are_disjoint_and_complete(corpus, count):
    train, test = corpus("train.txt", 22, "train"), corpus("test.txt", 3, "test")
    parts = small_texts("tales", count)
    assert list(parts) == [f"part {i}" for i in range(count)]
    assert sorted(t for part in parts.values() for t in part["train"]) == sorted(train)
    assert all(part["test"] == test for part in parts.values())
    assert (
        max(len(p["train"]) for p in parts.values()) - min(len(p["train"]) for p in parts.values())
        <= 1
    )


def test_a_set_without_a_train_split_or_a_count_out_of_range_is_told(corpus):
    corpus("test.txt", 4, "test")
    with pytest.raises(
        ValueError, match=r"^plain_text: 'tales' must have a train split, got \['test'\]"
    ):
        plain_text("tales")
    for name, count, words in (
        ("docstrings", 9, r"\[1, 8\], got 9"),
        ("docstrings", 0, r"\[1, 8\], got 0"),
        ("tales", 0, r"\[1, inf\], got 0"),
        ("tales", 2.0, r"\[1, inf\], got 2.0"),
    ):
        with pytest.raises(
            ValueError, match=f"^small_texts: count must be a whole number in {words}"
        ):
            small_texts(name, count)


def table(name, tmp_path, **splits):
    folder = tmp_path / "data" / name
    folder.mkdir()
    for split, columns in splits.items():
        datasets.Dataset.from_dict(columns).to_parquet(folder / f"{split}.parquet")


def test_one_of_several_columns_of_text_is_named_by_the_reader(corpus, tmp_path):
    titles, bodies = [f"title {i}" for i in range(10)], [f"body {i}" for i in range(10)]
    table("news", tmp_path, train={"title": titles, "body": bodies, "views": [3] * 10})
    for column, texts in (("title", titles), ("body", bodies)):
        assert kd.plain_text("news", text=column) == {"train": texts[:9], "test": texts[9:]}
        parts = small_texts("news", 2, text=column)
        assert [part["train"] for part in parts.values()] == [texts[:9:2], texts[1:9:2]]
    for call in (kd.plain_text, small_texts):
        for options, words in [
            ({}, r"must have one text column, got \['title', 'body'\]: name it by text="),
            ({"text": "words"}, "text must name one of the columns .*'views'.* got 'words'"),
            ({"text": "views"}, r"text must name one of \['title', 'body'\], got 'views'"),
        ]:
            with pytest.raises(ValueError, match=words):
                call("news", **options)
        with pytest.raises(ValueError, match="text is for sets in the hub's layout, not for 'doc"):
            call(text="title")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_row_without_a_text_is_told_and_an_empty_line_is_a_text(corpus, tmp_path, split):
    rows = {part: {"line": [f"{part} {i}" for i in range(8)]} for part in ("train", "validation")}
    rows[split]["line"][2] = ""
    table("lines", tmp_path, **rows)
    assert kd.plain_text("lines") == {
        "train": rows["train"]["line"],
        "test": rows["validation"]["line"],
    }
    rows[split]["line"][5] = rows[split]["line"][6] = None
    table("gaps", tmp_path, **rows)
    with pytest.raises(
        ValueError,
        match="^plain_text: 'gaps': column 'line' has no text in rows "
        rf"\[5, 6\] of the {split} split",
    ):
        kd.plain_text("gaps")


def test_a_single_text_cannot_be_parted(corpus):
    corpus("train.txt", 1, "alone")
    with pytest.raises(ValueError, match="^plain_text: 'tales' must hold at least two texts"):
        kd.plain_text("tales")


def test_more_parts_than_texts_are_told(corpus):
    corpus("train.txt", 3, "train")
    corpus("test.txt", 3, "test")
    assert [len(part["train"]) for part in small_texts("tales", 3).values()] == [1, 1, 1]
    with pytest.raises(
        ValueError,
        match="^small_texts: count must be at most the number of training texts, 3, got 4",
    ):
        small_texts("tales", 4)
