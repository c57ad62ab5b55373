"""The models in data/teachers: whole, loadable, and as good as their cards say."""

import hashlib
import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch

from kdlab import language_model, load_text, text_classifier

DATA = Path(__file__).parent.parent / "data"
TEACHERS = sorted((DATA / "teachers").iterdir())
each_teacher = pytest.mark.parametrize("folder", TEACHERS, ids=lambda folder: folder.name)


@each_teacher
def test_the_weights_are_those_of_the_card(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text(encoding="utf-8")


def mean_nats(model, row):
    """Nats a token in windows of 128 tokens."""
    ids = row[: len(row) // 128 * 128].view(-1, 128)
    with torch.no_grad():
        return sum(
            model(part, labels=part).loss.item() * len(part) for part in ids.split(32)
        ) / len(ids)


def on_topics(model, tokenizer):
    held_out = runpy.run_path(DATA / "make_topics_lm.py")["text"]()[1]
    return mean_nats(
        model, torch.tensor(tokenizer(held_out, add_special_tokens=False)["input_ids"])
    )


def on_docstrings(model, tokenizer):
    made = runpy.run_path(DATA / "make_docs_lm.py")
    row = made["ids"](tokenizer, made["texts"]()["docstrings"][1])
    some = (
        row[: len(row) // 128 * 128].view(-1, 128)[::3].flatten()
    )  # a third of the windows will do
    assert made["teaching"].nats(model, some[:1280]) == pytest.approx(mean_nats(model, some[:1280]))
    return mean_nats(model, some)


def on_labelled_docstrings(model, tokenizer):
    rows, right = load_text()["test"], 0
    assert list(model.config.id2label.values()) == rows.features["label"].names
    for part in rows.iter(64):
        batch = tokenizer(
            part["text"], truncation=True, max_length=64, padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            right += (model(**batch).logits.argmax(-1) == torch.tensor(part["label"])).sum().item()
    return 100 * right / len(rows)


# what a card says, who loads the model, how to score it, how near; other Pythons have other
# documentation
CLAIMS = {
    "topics_lm": (r"held-out loss: ([\d.]+) nats", language_model, on_topics, 0.15),
    "docs_lm": (r"held-out docstrings: ([\d.]+) nats", language_model, on_docstrings, 0.15),
    "docs_base": (r"held-out docstrings: ([\d.]+) nats", language_model, on_docstrings, 0.15),
    "docs_bert": (r"held-out accuracy: ([\d.]+) %", text_classifier, on_labelled_docstrings, 3),
}


@each_teacher
def test_a_model_scores_what_its_card_says(folder):
    pattern, load, score, tolerance = CLAIMS[folder.name]
    claimed = float(re.search(pattern, (folder / "README.md").read_text(encoding="utf-8"))[1])
    model, tokenizer = load(str(folder))
    assert not model.training
    assert score(model, tokenizer) == pytest.approx(claimed, abs=tolerance)


@each_teacher
def test_a_card_counts_the_parameters_that_are_there(folder):
    said = re.search(r"of ([\d,]+) parameters", (folder / "README.md").read_text(encoding="utf-8"))[
        1
    ]
    assert CLAIMS[folder.name][1](str(folder))[0].num_parameters() == int(said.replace(",", ""))


def test_all_of_them_are_there_and_small_enough_to_clone():
    assert {folder.name for folder in TEACHERS} == set(CLAIMS)
    assert (
        sum(file.stat().st_size for folder in TEACHERS for file in folder.rglob("*")) < 10_000_000
    )


def test_it_finds_a_model_under_its_variable(monkeypatch):
    monkeypatch.setenv("KDLAB_MODELS", str(DATA / "teachers"))
    model, tokenizer = language_model("someone/topics_lm")
    assert model.num_parameters() > 0 and tokenizer.vocab_size == 512


def test_a_pickled_model_is_not_loaded(tmp_path):
    source = DATA / "teachers" / "topics_lm"
    model, _ = language_model(str(source))
    for file in source.glob("*.json"):
        shutil.copy(file, tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        language_model(str(tmp_path))
