"""Students of several sizes that start from nothing, which lesson 13 and its benchmark share."""

import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import kdlab as kd
from kdlab.base.lab import device
from kdlab.base.repeats import fresh
from kdlab.lessons import language
from kdlab.teachers.cache import Cache

LENGTH, BATCH, K = 64, 8, 20  # tokens of a text, texts a step, kept of an answer
BLOCKS = {16: 2, 32: 2, 64: 3, 96: 4, 160: 5}  # width: blocks; the teacher has 96 and 4


def texts(tokenizer: Any, data: str = "docstrings") -> dict[str, Tensor]:
    """{"train", "validation": (128, 64), "test": at most (256, 64)}, ids of all fields, mixed."""
    found = kd.plain_text(data)
    train, test = (kd.text.windows(tokenizer, list(found[p]), LENGTH) for p in ("train", "test"))
    train = train[torch.randperm(len(train), generator=torch.manual_seed(fresh(0)))]
    return {"train": train[128:], "validation": train[:128], "test": test[:256]}


def narrower(config: Any, width: int, seed: int = 0) -> nn.Module:
    """A language model with a config's shape but for width and blocks, and weights of its own.

    width: one of `BLOCKS`.

    >>> config = kd.language_model("docs_lm")[0].config
    >>> narrower(config, 16).num_parameters(), narrower(config, 96).num_parameters()
    (22544, 541536)
    """
    torch.manual_seed(fresh(seed))
    own = config.to_dict() | {
        "hidden_size": width,
        "intermediate_size": width * config.intermediate_size // config.hidden_size,
        "num_hidden_layers": BLOCKS[width],
        "head_dim": width // config.num_attention_heads,
    }
    return transformers.AutoModelForCausalLM.from_config(type(config).from_dict(own)).to(device())


def order(rows: Tensor, step: int, seed: int) -> list[int]:
    """The numbers of a step's texts; another order for each seed."""
    return language.batch(torch.arange(len(rows)), step + 10_000 * seed, BATCH).tolist()


def by_labels(rows: Tensor, seed: int) -> Callable[[nn.Module, int], Tensor]:
    """loss(student, step): cross-entropy of the texts' own tokens."""

    def loss(student, step):
        ids = rows[order(rows, step, seed)].to(device())
        logits, wanted = kd.next_token(student(ids).logits, ids)
        return nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())

    return loss


def by_signals(signals: Cache, rows: Tensor, seed: int) -> Callable[[nn.Module, int], Tensor]:
    """loss(student, step): the divergence from what `ask` has kept, for the same texts."""
    collate, soft = kd.SignalCollator(signals), kd.TopKLoss(alpha=1.0)

    def loss(student, step):
        some = [{"id": i, "input_ids": rows[i].tolist()} for i in order(rows, step, seed)]
        batch = collate(some)
        ids, its = (batch[name].to(device()) for name in ("input_ids", "teacher_logits"))
        logits, wanted = kd.next_token(student(ids).logits, ids)
        return soft(logits, kd.signals.unpacked(its[:, :-1]), wanted)

    return loss


def ask(folder: Any, teacher: nn.Module, rows: Tensor, which: Iterable[int]) -> Cache:
    """A teacher's top 20 for some of the rows, by their numbers."""
    known = [{"id": i, "input_ids": rows[i].tolist()} for i in which]
    return kd.signals.from_teacher(folder, teacher, known, k=K, batch=64)


def from_nothing(teacher: nn.Module, tokenizer: Any, width: int, steps: int, rate: float) -> dict:
    """One student of the benchmark, its seed 1, taught here → {"parameters", "nats"} on test."""
    parts, seed = texts(tokenizer), 1
    rows, student = parts["train"], narrower(teacher.config, width, seed)
    seen = sorted({i for step in range(steps) for i in order(rows, step, seed)})
    with tempfile.TemporaryDirectory() as folder:
        loss = by_signals(ask(folder, teacher, rows, seen), rows, seed)
        found = language.teach(
            student, loss, rate, [steps], lambda one: language.nats(one, parts["test"])
        )
    return {"parameters": kd.parameters(student), "nats": found[steps]}
