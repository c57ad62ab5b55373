"""How student and teacher are called: with what, where, and what they answer."""

import pytest
import torch
from torch import nn
from trainers import agree, arguments, bert, llama, loss_of, plain_terms, texts, trained, trainer_of

from kdlab import HardLabels, KDLoss
from kdlab.training import trainer
from kdlab.training.sides import logits_of
from kdlab.training.trainer import DistillationTrainer


def test_fused_is_chosen_where_it_fits_only(tmp_path, monkeypatch):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {
        "vocab_size": 32,
        "hidden_size": 8,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
    }
    capped = Gemma2ForCausalLM(Gemma2Config(final_logit_softcapping=0.1, **sizes))
    free = Gemma2ForCausalLM(Gemma2Config(final_logit_softcapping=None, **sizes))

    def made(student, teacher, fused="auto", objective=None):
        return DistillationTrainer(
            student, arguments(tmp_path), teacher=teacher, fused=fused, objective=objective
        )

    assert not made(free, llama(8)).fused  # 32 tokens are few
    monkeypatch.setattr(trainer, "FUSED_FROM", 32)
    assert made(free, llama(8)).fused and not made(free, llama(8), False).fused
    for student, teacher, objective in [
        (free, capped, None),
        (capped, free, None),
        (free, llama(8), HardLabels()),
        (bert(8), bert(16), None),
    ]:
        assert not made(student, teacher, objective=objective).fused
        with pytest.raises(ValueError, match="fused: argument must be False"):
            made(student, teacher, True, objective)


class Tiny(nn.Module):
    """A classifier that is no model of transformers, and takes a column that nobody else does."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(32, 3)

    def forward(self, input_ids, turn=None):
        return self.table(input_ids).mean(1) * turn[:, None]


def test_columns_that_only_the_teacher_takes_reach_it(tmp_path):
    from datasets import Dataset

    rows = [
        {"input_ids": [1, 2, 3], "labels": i % 3, "turn": float(i), "unknown": 1} for i in range(4)
    ]
    teacher, student, reference = Tiny().double(), bert(8, seed=1), bert(8, seed=1)
    done = DistillationTrainer(
        student, arguments(tmp_path, 4), teacher=teacher, train_dataset=Dataset.from_list(rows)
    )
    done.train()
    ids, turn, y = torch.tensor([[1, 2, 3]] * 4), torch.arange(4.0), torch.tensor([0, 1, 2, 0])
    (plain_terms(KDLoss(), reference(ids).logits, teacher(ids, turn), y) / 4).backward()
    with torch.no_grad():
        for p in reference.parameters():
            p -= 0.5 * p.grad
    agree(student, reference, 1e-6)


@pytest.mark.parametrize("mark", ["is_quantized", "hf_device_map", "quantization_method"])
def test_a_teacher_that_was_placed_is_not_moved(mark, tmp_path):
    """Quantised models raise on `.to`; those with a device map would be torn from their hooks."""
    teacher = llama(16, seed=2)
    setattr(teacher, mark, {"": "cpu"} if mark == "hf_device_map" else True)

    def refuses(*args, **kwargs):
        raise ValueError("`.to` is not supported for quantised models")

    teacher.to = refuses
    done = trained(tmp_path, llama(8, seed=1), teacher, texts(4))
    assert done.state.log_history[0]["loss"] > 0


@pytest.mark.parametrize(
    "answer", [lambda z: z, lambda z: {"logits": z, "loss": 0.0}, lambda z: (z, "cache")]
)
def test_logits_come_alone_by_name_or_first(answer):
    z = torch.zeros(2, 3)
    assert logits_of(answer(z)) is z


def test_an_answer_without_logits_is_named(tmp_path):
    class Odd(nn.Module):
        def forward(self, input_ids):
            return {"scores": input_ids}

    with pytest.raises(
        ValueError, match="must answer a tensor of logits, or 'logits', got \\['scores'\\]"
    ):
        loss_of(trainer_of(tmp_path, bert(8), Odd()), [{"input_ids": [1, 2], "labels": 0}])
    with pytest.raises(ValueError, match="got NoneType"):
        logits_of(None)
