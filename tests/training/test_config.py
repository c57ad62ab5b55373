"""`DistillationConfig` on a command line and in a trainer; teachers by name, and placed."""

import pytest
import torch
from tiny_models import build
from transformers import HfArgumentParser, TrainingArguments

import kdlab as kd

QUIET = dict(report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no", max_steps=1)
TEXT = [{"input_ids": [6, 7, 8, 9], "labels": [6, 7, 8, 9]}] * 2


def parsed(*line):
    return HfArgumentParser(kd.DistillationConfig).parse_args_into_dataclasses(list(line))[0]


def test_every_setting_has_words_and_a_default():
    from dataclasses import fields

    own = {f.name for f in fields(kd.DistillationConfig)} - {
        f.name for f in fields(TrainingArguments)
    }
    told = {f.name: f for f in fields(kd.DistillationConfig)}
    assert own and all(told[name].metadata["help"] for name in own)


@pytest.mark.parametrize(
    "line, expected",
    [
        ([], kd.TokenLoss()),
        (["--divergence", "reverse_kl", "--alpha", "0.7"], kd.TokenLoss(kd.reverse_kl, alpha=0.7)),
        (["--divergence", "jsd", "--beta", "0.1"], kd.TokenLoss(kd.jsd, beta=0.1)),
        (
            ["--divergence", "skew_reverse_kl", "--skew", "0.2"],
            kd.TokenLoss(kd.skew_reverse_kl, skew=0.2),
        ),
        (["--temperature", "2"], kd.TokenLoss(temperature=2.0)),
    ],
)
def test_a_command_line_describes_the_loss(line, expected, tmp_path):
    config = parsed("--output_dir", str(tmp_path), *line)
    found = config.objective(causal=True)
    assert repr(found) == repr(expected)
    z = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(4, dtype=torch.long)
    assert found(*z, labels) == expected(*z, labels)


def test_a_teacher_s_own_load_arguments_come_as_json(tmp_path):
    line = ["--teacher_model_init_kwargs", '{"dtype": "bfloat16"}']
    config = parsed("--output_dir", str(tmp_path), *line)
    assert config.teacher_model_init_kwargs == {"dtype": "bfloat16"}


@pytest.mark.parametrize(
    "settings, causal, words",
    [
        ({"fused": "yes"}, True, "fused must be one of .*got 'yes'"),
        ({"on_policy_share": 2.0}, True, r"on_policy_share must be a number in \[0, 1\], got 2.0"),
        ({"beta": 0.5}, False, "beta must be left out for KDLoss"),
        (
            {"beta": 0.2},
            True,
            "^DistillationConfig: beta must be left out for the divergence forward_kl, "
            "which takes neither beta nor skew, got 0.2",
        ),
        (
            {"divergence": "jsd", "skew": 0.2},
            True,
            r"^DistillationConfig: skew must .* divergence jsd, which takes \['beta'\], got 0.2",
        ),
        ({"divergence": "kl"}, True, "divergence must be one of .*got 'kl'"),
        ({"temperature": -1.0}, True, "temperature must be a finite number above 0, got -1.0"),
    ],
)
def test_a_setting_that_the_loss_does_not_take_is_named(settings, causal, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        kd.DistillationConfig(tmp_path, **settings).objective(causal=causal)


def test_a_teacher_by_name_trains_like_the_model_itself(tmp_path):
    build("Llama", seed=2).save_pretrained(tmp_path / "teacher")
    losses = []
    for how in ("module", "argument", "config"):
        config = kd.DistillationConfig(tmp_path / "out", logging_steps=1, alpha=0.5, **QUIET)
        teacher = {"module": build("Llama", seed=2), "argument": tmp_path / "teacher"}.get(how)
        if how == "config":
            config.teacher_model_name_or_path = str(tmp_path / "teacher")
        trainer = kd.DistillationTrainer(
            build("Llama", seed=1), config, teacher=teacher, train_dataset=TEXT
        )
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
        assert not any(p.requires_grad for p in trainer.teacher.parameters())
    assert losses[0] == losses[1] == losses[2] > 0


def test_a_teacher_is_loaded_with_its_own_arguments(tmp_path):
    build("Llama", seed=2).save_pretrained(tmp_path / "teacher")
    trainer = kd.DistillationTrainer(
        build("Llama", seed=1),
        TrainingArguments(tmp_path / "out", **QUIET),
        teacher=str(tmp_path / "teacher"),
        teacher_init={"dtype": "bfloat16"},
        train_dataset=TEXT,
    )
    assert {p.dtype for p in trainer.teacher.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_a_name_that_is_no_model_is_told_with_every_place_tried(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="DistillationTrainer: can't find the model 'no/such'"
    ):
        kd.DistillationTrainer(
            build("Llama"),
            TrainingArguments(tmp_path, **QUIET),
            teacher="no/such",
            train_dataset=TEXT,
        )


def test_the_loss_is_described_once(tmp_path):
    config = kd.DistillationConfig(tmp_path, alpha=0.5, **QUIET)
    with pytest.raises(
        ValueError, match="objective: argument must be left out where args describe"
    ):
        kd.DistillationTrainer(
            build("Llama"),
            config,
            teacher=build("Llama", seed=2),
            objective=kd.TokenLoss(),
            train_dataset=TEXT,
        )


def test_without_args_the_trainer_has_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it makes its folder, trainer_output
    trainer = kd.DistillationTrainer(
        build("Llama"), teacher=build("Llama", seed=2), train_dataset=TEXT
    )
    assert isinstance(trainer.args, kd.DistillationConfig)


def test_the_student_writes_where_the_config_says_so(tmp_path):
    config = kd.DistillationConfig(tmp_path, on_policy_share=1.0, max_new_tokens=2, **QUIET)
    rows = [{"input_ids": [6, 7, 8, 9], "labels": [-100, 7, 8, 9]}] * 2
    trainer = kd.DistillationTrainer(
        build("Llama"), config, teacher=build("Llama", seed=2), train_dataset=rows
    )
    assert isinstance(trainer.on_policy, kd.OnPolicy) and trainer.train().training_loss > 0
