"""The small cases of the trainer's tests: models, texts, their batches, and a run of it."""

import copy
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    TrainingArguments,
)

import kdlab as kd
from kdlab.losses.hidden import tap
from kdlab.training.trainer import DistillationTrainer

V = 32


def llama(width, seed=0, vocab=V, **options):
    """A language model in float64 and eval mode, with weights large enough to tell texts apart."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        **options,
    )
    return _built(LlamaForCausalLM, config, seed)


def bert(width, seed=0, dropout=0.0):
    """A classifier of 3 classes in float64 and eval mode."""
    config = BertConfig(
        vocab_size=V,
        hidden_size=width,
        intermediate_size=16,
        num_hidden_layers=2,
        num_labels=3,
        num_attention_heads=2,
        initializer_range=0.3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return _built(BertForSequenceClassification, config, seed)


def _built(kind, config, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(config).double().eval()


def _rows(n, seed):
    g = torch.Generator().manual_seed(seed)
    for _ in range(n):
        yield (
            torch.randint(
                1, V, (int(torch.randint(2, 9, (1,), generator=g)),), generator=g
            ).tolist(),
            g,
        )


def texts(n, seed=0):
    """Texts of 2 to 8 tokens, of which a prompt of some is not learnt."""
    rows = [(ids, int(torch.randint(0, 3, (1,), generator=g))) for ids, g in _rows(n, seed)]
    return [{"input_ids": ids, "labels": [-100] * k + ids[k:]} for ids, k in rows]


def sentences(n, seed=0):
    """Sentences of 3 classes, some without a label."""
    return [
        {"input_ids": ids, "labels": int(torch.randint(0, 4, (1,), generator=g)) % 4 - 1}
        for ids, g in _rows(n, seed)
    ]


class Collate:
    """A batch padded on one side, to `more` tokens beyond its longest row."""

    def __init__(self, side, more):
        self.side, self.more = side, more

    def __call__(self, rows):
        L = max(len(r["input_ids"]) for r in rows) + self.more

        def pad(values, fill):
            empty = [fill] * (L - len(values))
            return list(values) + empty if self.side == "right" else empty + list(values)

        batch = {
            "input_ids": [pad(r["input_ids"], 7) for r in rows],
            "attention_mask": [pad([1] * len(r["input_ids"]), 0) for r in rows],
        }
        if "labels" in rows[0]:
            whole = isinstance(rows[0]["labels"], int)
            batch["labels"] = [
                (-100 if r["labels"] < 0 else r["labels"]) if whole else pad(r["labels"], -100)
                for r in rows
            ]
        batch = {k: torch.tensor(v) for k, v in batch.items()}
        if "teacher_logits" in rows[0]:
            batch["teacher_logits"] = torch.tensor([r["teacher_logits"] for r in rows])
        return batch


class Pairs(nn.Module):
    """A loss on hidden layers: the mean square between the first blocks, through a learnt bridge, a
    text at a time."""

    @staticmethod
    def initial(student, teacher):
        """The bridge's weights before training."""
        g = torch.Generator().manual_seed(5)
        return torch.randn(
            teacher.config.hidden_size, student.config.hidden_size, generator=g, dtype=torch.float64
        )

    def prepare(self, student, teacher):
        """Make the bridge."""
        self.bridge = nn.Linear(
            student.config.hidden_size, teacher.config.hidden_size, bias=False
        ).double()
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
    return TrainingArguments(
        str(folder),
        **{
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulated,
            "num_train_epochs": 1,
            "per_device_eval_batch_size": 4,
            "optim": "sgd",
            "learning_rate": 0.5,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            "train_sampling_strategy": "sequential",
        }
        | options,
    )


def train(folder, student, rows, size, accumulated, side="right", more=0, own=None, **options):
    """The trainer after `train`; own: training arguments."""
    args = arguments(folder, size, accumulated, **own or {})
    trainer = DistillationTrainer(
        student, args, train_dataset=rows, data_collator=Collate(side, more), **options
    )
    trainer.train()
    return trainer


def weights(model):
    """{name: tensor}."""
    return {k: v.detach() for k, v in model.named_parameters()}


def trainer_of(tmp_path, student, teacher, own=None, **options):
    return DistillationTrainer(
        student, arguments(tmp_path, **own or {}), teacher=teacher, **options
    )


def trained(tmp_path, student, teacher, rows, own=None, **options):
    trainer = trainer_of(tmp_path, student, teacher, own, train_dataset=rows, **options)
    trainer.train()
    return trainer


def loss_of(trainer, rows, **layout):
    return trainer.compute_loss(trainer.model, kd.Collator(**layout)(copy.deepcopy(rows)))


def whole(rows):
    return [r | {"labels": r["input_ids"]} for r in rows]


def plain_terms(objective, z, p, y):
    """Σ of alpha T² KL and (1 − alpha) CE over the rows of one text."""
    T, a = objective.temperature, objective.alpha
    log_q, log_p = F.log_softmax(z / T, -1), F.log_softmax(p / T, -1)
    return a * T * T * (log_p.exp() * (log_p - log_q)).sum() + (1 - a) * F.cross_entropy(
        z, y, reduction="sum"
    )


def agree(model, reference, tolerance=1e-9):
    for name, value in weights(reference).items():
        assert (weights(model)[name] - value).abs().max() < tolerance, name


def padded_pair():
    """A student of 40 columns and a teacher of 36, of which 32 are tokens; the others say loud
    nonsense."""
    student, teacher = llama(8, seed=1, vocab=40), llama(16, seed=2, vocab=36)
    for model in (student, teacher):
        model.lm_head.weight.data[V:] *= 5
    return student, teacher
