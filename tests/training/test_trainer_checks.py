"""What a trainer expects, said before anything is trained."""

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers as hf
from trainers import (
    Pairs,
    V,
    arguments,
    bert,
    llama,
    loss_of,
    padded_pair,
    texts,
    train,
    trained,
    trainer_of,
)

import kdlab as kd
from kdlab.data.tokenizers import same_tokenizer
from kdlab.losses.fused import linear_divergence
from kdlab.losses.kd import TokenLoss
from kdlab.training import trainer_checks as checks
from kdlab.training.trainer import DistillationTrainer


def test_errors_say_what_was_expected(tmp_path):
    student = llama(8)
    tied = llama(8, seed=3)
    tied.model.embed_tokens = student.model.embed_tokens
    for match, options in [
        ("shares its parameters", {"teacher": student}),
        ("shares its parameters", {"teacher": tied}),
        ("None without hidden", {"teacher": None, "hidden": Pairs()}),
        ("teacher: argument must be an nn.Module", {"teacher": 3.0}),
        ("fused: argument must be True", {"teacher": None, "fused": "no"}),
        ("32 tokens or classes, got 33.*uld", {"teacher": llama(8, vocab=33)}),
        ("compute_loss_func", {"teacher": None, "compute_loss_func": print}),
    ]:
        with pytest.raises(ValueError, match=match):
            DistillationTrainer(student, arguments(tmp_path), **options)
    for match, rows, options in [
        (
            "teacher: argument must be an nn.Module, or give teacher_logits",
            texts(2),
            {"teacher": None},
        ),
        (
            "labels must lie in",
            [r | {"labels": [99] * len(r["labels"])} for r in texts(2)],
            {"teacher": llama(4)},
        ),
        (
            "batches must hold labels",
            [{"input_ids": [1, 2]}] * 2,
            {"teacher": llama(4), "objective": TokenLoss(alpha=0.5)},
        ),
    ]:
        with pytest.raises(ValueError, match=match):
            train(tmp_path, student, rows, 2, 1, **options)


def test_what_is_no_model_is_called_so(tmp_path):
    with pytest.raises(ValueError, match="model: argument must be an nn.Module, got str"):
        trainer_of(tmp_path, "gpt2", llama(8))


def test_widths_that_differ_are_spoken_of_when_the_trainer_is_made(tmp_path):
    student, teacher = padded_pair()
    with pytest.raises(
        ValueError, match="40 tokens or classes, got 36; .*vocab_size=.*processing_class.*uld"
    ):
        trainer_of(tmp_path, student, teacher)
    for wrong in (0, 37, 2.5, "32"):
        with pytest.raises(
            ValueError, match="vocab_size: argument must be a whole number from 1 to the narrower"
        ):
            trainer_of(tmp_path, student, teacher, vocab_size=wrong)
    with pytest.raises(ValueError, match="linear_divergence: vocab_size must be"):
        linear_divergence(
            torch.zeros(1, 8),
            student.lm_head,
            torch.zeros(1, 16),
            teacher.lm_head,
            torch.zeros(1, dtype=torch.long),
            vocab_size=37,
        )
    five = hf.BertForSequenceClassification(
        hf.BertConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            vocab_size=V,
            num_labels=5,
        )
    ).double()
    with pytest.raises(ValueError, match="3 tokens or classes, got 5"):
        trainer_of(tmp_path, bert(8), five)


def test_the_tokenizer_says_how_many_tokens_there_are(tmp_path):
    _, tokenizer = kd.language_model("docs_lm")
    known = same_tokenizer(tokenizer, tokenizer).vocab_size
    student, teacher = llama(8, vocab=known + 8), llama(8, vocab=known + 3)
    assert trainer_of(tmp_path, student, teacher, processing_class=tokenizer).vocab_size == known


def test_a_student_in_half_precision_is_refused_or_asked_for_by_name(tmp_path):
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(
            ValueError, match=f"model: argument must be in float32.*half_precision=True.*{dtype}"
        ):
            trainer_of(tmp_path, llama(8).to(dtype), llama(8, seed=2))
    student = llama(8).to(torch.bfloat16)
    assert (
        trainer_of(tmp_path, student, llama(8, seed=2), half_precision=True).model.dtype
        == torch.bfloat16
    )


def test_a_frozen_half_precision_base_under_an_adapter_is_no_half_precision_student(tmp_path):
    from peft import LoraConfig, get_peft_model

    base = get_peft_model(llama(8).to(torch.bfloat16), LoraConfig(target_modules=["q_proj"]))
    assert trainer_of(tmp_path, base, llama(8, seed=2)).model is base


@pytest.mark.parametrize(
    "options, error, says",
    [
        (
            {"objective": kd.reverse_kl},
            TypeError,
            (
                "objective: argument must be an instance such as kd.TokenLoss\\(kd.reverse_kl\\),"
                " got reverse_kl"
            ),
        ),
        (
            {"objective": kd.KDLoss},
            TypeError,
            "objective: argument must be an instance.*got KDLoss",
        ),
        ({"objective": "kl"}, TypeError, "objective: argument must be an instance.*got str"),
        (
            {"objective": kd.HiddenLoss(kd.features.fitnets, [("1", "3")])},
            TypeError,
            "HiddenLoss belongs to kd.distill",
        ),
        (
            {"hidden": kd.HiddenLoss(kd.features.fitnets, [("1", "3")])},
            ValueError,
            (
                "hidden: argument must be a loss on the "
                "layers.*HiddenLoss belongs to kd.distill.*got fitnets"
            ),
        ),
        (
            {"hidden": kd.LayerMap},
            ValueError,
            "hidden: argument must be a loss on the layers.*got LayerMap",
        ),
        (
            {"on_policy": 0.5},
            ValueError,
            "on_policy: argument must be as kd.OnPolicy, or None, got float",
        ),
        ({"objective": kd.SquaredError()}, ValueError, "objective: argument must be for classes"),
    ],
)
def test_what_is_no_objective_is_called_so(tmp_path, options, error, says):
    with pytest.raises(error, match=says):
        trainer_of(tmp_path, bert(8), bert(8, seed=2), **options)


def short(width=8, room=6, seed=0):
    return llama(width, seed=seed, max_position_embeddings=room)


@pytest.mark.parametrize("rooms", [(6, 9), (9, 6)])
def test_a_text_longer_than_either_model_reads_is_named_before_training(tmp_path, rooms):
    from datasets import Dataset

    student, teacher = short(room=rooms[0]), short(room=rooms[1], seed=2)
    rows = [{"input_ids": [1] * n, "labels": [1] * n} for n in (3, 6, 7)]
    before = copy.deepcopy(student.state_dict())
    for data in (rows, Dataset.from_list(rows)):
        with pytest.raises(
            ValueError, match="must fit the models' 6 positions, got 7 tokens in row 2"
        ):
            trained(tmp_path, student, teacher, data)
    with pytest.raises(
        ValueError, match="batches must fit the models' 6 positions.*longest text with 7"
    ):
        loss_of(trainer_of(tmp_path, student, teacher), rows)
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())
    trained(tmp_path, student, teacher, rows[:2])


def test_an_id_that_is_no_token_is_named_before_training(tmp_path):
    from datasets import Dataset

    rows = [{"input_ids": [1, 2], "labels": [1, 2]}, {"input_ids": [1, V], "labels": [1, -100]}]
    for data in (rows, Dataset.from_list(rows)):
        with pytest.raises(
            ValueError, match="input_ids must be below the models' 32 tokens, got 32.*tokenizer"
        ):
            trained(tmp_path, llama(8), llama(8, seed=2), data)
    with pytest.raises(
        ValueError, match="below the models' 31 tokens, got 31"
    ):  # the teacher's are fewer
        trained(
            tmp_path, llama(8), llama(8, seed=2, vocab=31), [{"input_ids": [1, 31]}], vocab_size=31
        )


def test_packed_texts_may_be_longer_together_than_one_may_be(tmp_path):
    rows = [{"input_ids": [1, 2, 3, 4]}] * 4
    trained(
        tmp_path,
        short(),
        short(seed=2),
        rows,
        data_collator=hf.DataCollatorWithFlattening(return_tensors="pt"),
    )


def test_sharding_that_would_not_happen_is_refused(monkeypatch):
    """accelerate passes FSDP over on processors, and says nothing: each would train alone."""

    def processes(kind, count=2):
        return SimpleNamespace(distributed_type=SimpleNamespace(value=kind), num_processes=count)

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="args: argument must leave FSDP out .* 2 processes of"):
        checks.check_sharding(processes("MULTI_CPU"))
    checks.check_sharding(processes("FSDP"))
    checks.check_sharding(processes("NO", 1))  # one process is whole
    monkeypatch.delenv("ACCELERATE_USE_FSDP")
    checks.check_sharding(processes("MULTI_CPU"))
