"""Lessons 09 to 11 with a teacher of the reader's own, named by KDLAB_LM alone."""

import os
from pathlib import Path

import nbformat
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import kdlab as kd
from kdlab.base import lab

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSONS = [next(NOTEBOOKS.glob(f"{number}_*.ipynb")) for number in ("09", "10", "11")]


@pytest.fixture(scope="module")
def models_of_one_s_own(tmp_path_factory):
    """A folder with the model "mine": three blocks, and a tokenizer that is not the course's."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(kd.plain_text("web")["train"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=300,
            hidden_size=16,
            intermediate_size=16,
            num_attention_heads=2,
            num_hidden_layers=3,
            max_position_embeddings=128,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    folder = tmp_path_factory.mktemp("models")
    for part in (model, tokenizer):
        part.save_pretrained(folder / "mine")
    return folder


@pytest.fixture
def named(models_of_one_s_own, monkeypatch):
    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setattr(lab, "chosen", None)
    monkeypatch.setattr(lab, "named", None)
    monkeypatch.setenv("KDLAB_STUDENT", "")  # so that it is put back
    monkeypatch.delenv("KDLAB_STUDENT")
    monkeypatch.delenv("KDLAB_TEXT", raising=False)
    monkeypatch.setenv("KDLAB_MODELS", str(models_of_one_s_own))
    monkeypatch.setenv("KDLAB_LM", "mine")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_begins_with_a_teacher_of_one_s_own(lesson, named, capsys):
    cells = [c for c in nbformat.read(lesson, as_version=4).cells if c.cell_type == "code"]
    found = {}
    for number, cell in enumerate(cells[:2]):  # the models, and the picture of what they do
        exec(compile(cell.source, f"{lesson.stem}, code cell {number}", "exec"), found)
    said = capsys.readouterr().out
    assert said.count("The student: every second block of mine, 2 of 3.") == 1
    teacher, base = found["teacher"], found["base"]
    assert [m.config.num_hidden_layers for m in (teacher, base)] == [3, 2]
    last = [m.model.layers[-1].mlp.up_proj.weight for m in (teacher, base)]
    assert torch.equal(*last) and os.environ["KDLAB_LM"] == "mine"
