"""The models in data/teachers: whole, loadable, and as good as their cards say."""

import hashlib
import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch

from kdlab import language_model

DATA = Path(__file__).parent.parent / "data"
TEACHERS = sorted((DATA / "teachers").iterdir())


@pytest.mark.parametrize("folder", TEACHERS, ids=lambda folder: folder.name)
def test_the_weights_are_those_of_the_card(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text(encoding="utf-8")


def test_the_language_model_scores_what_its_card_says():
    folder = DATA / "teachers" / "topics_lm"
    claimed = float(re.search(r"held-out loss: ([\d.]+) nats", (folder / "README.md").read_text(encoding="utf-8"))[1])
    model, tokenizer = language_model(str(folder))
    assert not model.training
    held_out = runpy.run_path(DATA / "make_topics_lm.py")["text"]()[1]
    ids = torch.tensor(tokenizer(held_out, add_special_tokens=False)["input_ids"])
    ids = ids[: len(ids) // 128 * 128].view(-1, 128)
    with torch.no_grad():
        loss = sum(model(part, labels=part).loss.item() * len(part) for part in ids.split(32)) / len(ids)
    assert loss == pytest.approx(claimed, abs=0.15)  # other versions of Python have other documentation


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
