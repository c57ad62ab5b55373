"""DistillationTrainer killed and resumed, in two processes, with padding on either side; the small cases of its tests.

Run as a script, it is the process that a test kills, or one of two that train together.
"""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    TrainerCallback,
    TrainingArguments,
)

from kdlab import KDLoss
from kdlab.features import tap
from kdlab.tokens import TokenLoss
from kdlab.trainer import DistillationTrainer

V = 32


def llama(width, seed=0, vocab=V, **options):
    """A language model in float64 and eval mode, with weights large enough to tell texts apart."""
    config = LlamaConfig(vocab_size=vocab, hidden_size=width, intermediate_size=16, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=2, initializer_range=0.3, **options)
    return _built(LlamaForCausalLM, config, seed)


def bert(width, seed=0, dropout=0.0):
    """A classifier of 3 classes in float64 and eval mode."""
    config = BertConfig(vocab_size=V, hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_labels=3,
                        num_attention_heads=2, initializer_range=0.3, hidden_dropout_prob=dropout,
                        attention_probs_dropout_prob=dropout)
    return _built(BertForSequenceClassification, config, seed)


def _built(kind, config, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(config).double().eval()


def _rows(n, seed):
    g = torch.Generator().manual_seed(seed)
    for _ in range(n):
        yield torch.randint(1, V, (int(torch.randint(2, 9, (1,), generator=g)),), generator=g).tolist(), g


def texts(n, seed=0):
    """Texts of 2 to 8 tokens, of which a prompt of some is not learnt."""
    rows = [(ids, int(torch.randint(0, 3, (1,), generator=g))) for ids, g in _rows(n, seed)]
    return [{"input_ids": ids, "labels": [-100] * k + ids[k:]} for ids, k in rows]


def sentences(n, seed=0):
    """Sentences of 3 classes, some without a label."""
    return [{"input_ids": ids, "labels": int(torch.randint(0, 4, (1,), generator=g)) % 4 - 1} for ids, g in
            _rows(n, seed)]


class Collate:
    """A batch padded on one side, to `more` tokens beyond its longest row."""

    def __init__(self, side, more):
        self.side, self.more = side, more

    def __call__(self, rows):
        L = max(len(r["input_ids"]) for r in rows) + self.more

        def pad(values, fill):
            empty = [fill] * (L - len(values))
            return list(values) + empty if self.side == "right" else empty + list(values)

        batch = {"input_ids": [pad(r["input_ids"], 7) for r in rows],
                 "attention_mask": [pad([1] * len(r["input_ids"]), 0) for r in rows]}
        if "labels" in rows[0]:
            whole = isinstance(rows[0]["labels"], int)
            batch["labels"] = [(-100 if r["labels"] < 0 else r["labels"]) if whole else pad(r["labels"], -100)
                               for r in rows]
        batch = {k: torch.tensor(v) for k, v in batch.items()}
        if "teacher_logits" in rows[0]:
            batch["teacher_logits"] = torch.tensor([r["teacher_logits"] for r in rows])
        return batch


class Pairs(nn.Module):
    """A loss on hidden layers: the mean square between the first blocks, through a learnt bridge, a text at a time."""

    @staticmethod
    def initial(student, teacher):
        """The bridge's weights before training."""
        g = torch.Generator().manual_seed(5)
        return torch.randn(teacher.config.hidden_size, student.config.hidden_size, generator=g, dtype=torch.float64)

    def prepare(self, student, teacher):
        """Make the bridge."""
        self.bridge = nn.Linear(student.config.hidden_size, teacher.config.hidden_size, bias=False).double()
        self.bridge.weight.data = self.initial(student, teacher)

    @contextmanager
    def collect(self, model, side):
        """The first block of a side."""
        assert side in ("student", "teacher")
        stem = "model.layers.0" if isinstance(model, LlamaForCausalLM) else "bert.encoder.layer.0"
        with tap(model, stem) as layers:
            yield layers

    def forward(self, student_layers, teacher_layers, attention_mask):
        (s,), (t,) = student_layers.values(), teacher_layers.values()
        assert not t.requires_grad
        far = (self.bridge(s) - t).square().mean(-1) * attention_mask
        return far.sum(1) / attention_mask.sum(1)


def arguments(folder, size=2, accumulated=1, **options):
    """Plain gradient descent, in the order of the data, one epoch."""
    return TrainingArguments(str(folder), **{
        "per_device_train_batch_size": size, "gradient_accumulation_steps": accumulated, "num_train_epochs": 1,
        "per_device_eval_batch_size": 4, "optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "use_cpu": True, "train_sampling_strategy": "sequential"} | options)


def train(folder, student, rows, size, accumulated, side="right", more=0, own=None, **options):
    """The trainer after `train`; own: training arguments."""
    args = arguments(folder, size, accumulated, **own or {})
    trainer = DistillationTrainer(student, args, train_dataset=rows, data_collator=Collate(side, more), **options)
    trainer.train()
    return trainer


def weights(model):
    """{name: tensor}."""
    return {k: v.detach() for k, v in model.named_parameters()}


class Kill(TrainerCallback):
    """SIGKILL after a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        """Kill."""
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def long_run(folder, callbacks=None):
    """10 AdamW steps in random order with dropout and clipping, a checkpoint every 3, in the midst of an epoch."""
    args = arguments(folder, 2, 2, num_train_epochs=2, optim="adamw_torch", learning_rate=1e-2, max_grad_norm=0.5,
                     lr_scheduler_type="cosine", save_strategy="steps", save_steps=3, logging_steps=100,
                     train_sampling_strategy="random")
    return DistillationTrainer(bert(8, 1, dropout=0.3), args, teacher=bert(16, 2), hidden=Pairs(), callbacks=callbacks,
                               train_dataset=sentences(20), data_collator=Collate("right", 0))


CASES = {"fused": (llama, texts, TokenLoss(alpha=0.5), {"fused": True}),
         "hidden": (bert, sentences, KDLoss(), {"hidden": Pairs()}),
         "plain": (llama, texts, TokenLoss(alpha=0.5), {"hidden": Pairs()})}


def together(folder, size, accumulated):
    """Each case trained, and saved under its name: the same whatever the number of processes."""
    for name, (build, rows, objective, options) in CASES.items():
        trainer = train(folder / "runs", build(8, seed=1), rows(16, seed=3), size, accumulated, objective=objective,
                        teacher=build(16, seed=2), own={"learning_rate": 0.02}, **options)
        trainer.save_model(folder / name)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "killed":
        long_run(sys.argv[2], [Kill(5)]).train()
    else:
        together(Path(sys.argv[2]), 2, 2)
    sys.exit()


@pytest.fixture(autouse=True)
def one_thread():
    """As in the processes that the tests start: two threads sum in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    found = subprocess.run([sys.executable, __file__, "killed", tmp_path / "a"], capture_output=True, text=True)
    assert found.returncode == -signal.SIGKILL, found.stderr
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["checkpoint-3"]
    resumed = long_run(tmp_path / "a")
    resumed.train(resume_from_checkpoint=True)
    whole = long_run(tmp_path / "b")
    whole.train()
    assert resumed.state.global_step == whole.state.global_step == 10
    for a, b in [(resumed.model, whole.model), (resumed.hidden, whole.hidden)]:
        assert all(torch.equal(weights(a)[k], v) for k, v in weights(b).items())
    assert not torch.equal(whole.hidden.bridge.weight, Pairs.initial(whole.model, whole.teacher))
    files = {p.name for p in (tmp_path / "a" / "checkpoint-9").iterdir()}
    assert {"model.safetensors", "distillation.safetensors"} <= files and "pytorch_model.bin" not in files
    _, clean = BertForSequenceClassification.from_pretrained(tmp_path / "a" / "checkpoint-9", output_loading_info=True)
    assert not clean["unexpected_keys"] and not clean["missing_keys"]


def test_two_processes_equal_one(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr",
                            "127.0.0.1", "--master_port", str(port), __file__, "together", tmp_path / "two"],
                           capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr[-3000:]
    together(tmp_path / "one", 2, 4)
    for name, (build, *_) in CASES.items():
        kind = type(build(8))
        one, two = (weights(kind.from_pretrained(tmp_path / n / name)) for n in ("one", "two"))
        assert max((one[k] - two[k]).abs().max() for k in one) < 1e-9, name
        assert max((v - weights(build(8, seed=1))[k]).abs().max() for k, v in one.items()) > 1e-3
