"""What a distillation will cost, before it is begun: FLOPs, hours, money, disk, memory.

Counted, not measured: the operations of a model that has no weights yet, times tokens. What a
machine reaches of its speed is the reader's to say (`Machine`), from a minute of training.
"""

import functools
import json
import math
import numbers
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
import transformers

from kdlab.base.arguments import instance, number, whole
from kdlab.evidence.cost import HOUR, flops
from kdlab.teachers.signals import SHORT

HALF, FULL = 2, 4  # bytes of a number
TRAINED = 4 * FULL  # bytes a parameter that learns: itself, its gradient, the two means of Adam

# published shapes: layers, width, inner width, heads, heads of keys and values, vocabulary, tied
PUBLISHED = {
    "120M": (13, 768, 2176, 12, 12, 32_000, True),  # made up, with Llama 2's vocabulary
    "SmolLM2-135M": (30, 576, 1536, 9, 3, 49_152, True),
    "SmolLM2-360M": (32, 960, 2560, 15, 5, 49_152, True),
    "SmolLM2-1.7B": (24, 2048, 8192, 32, 32, 49_152, True),
    "Llama-2-7B": (32, 4096, 11_008, 32, 32, 32_000, False),
    "Llama-2-13B": (40, 5120, 13_824, 40, 40, 32_000, False),
}
WAYS = "labels alone", "teacher asked anew", "teacher on disk", "on-policy"


@dataclass(frozen=True)
class Size:
    """What a model's costs depend on.

    parameters: all of them. forward: FLOPs a token, of a text as long as it was counted on. kept:
    bytes a token of its keys and values in half precision, which writing holds. vocabulary: tokens.
    """

    name: str
    parameters: int
    forward: float
    kept: float
    vocabulary: int

    def __str__(self):
        return self.name


@dataclass(frozen=True)
class Machine:
    """What a machine reaches, and what it costs.

    rate: FLOPs a second in training, reached and not promised: for large models some 40 % of what
    is printed on the box. bandwidth: bytes a second from its memory, which bounds how fast a model
    writes. price: dollars an hour. reading: FLOPs a second of a teacher that reads, where they are
    others: a wide model reaches more of a machine than a thin one (None: as rate). start: seconds
    that every step of writing takes besides, of which small models have most. Several cards: the
    sum of each.

    >>> machine = Machine(rate=4e14, bandwidth=3e12, price=3.0)  # an H100, roughly
    >>> machine.reading is None, machine.start
    (True, 0.0)
    """

    rate: float
    bandwidth: float = math.inf
    price: float = math.nan
    reading: float | None = None
    start: float = 0.0

    def __post_init__(self):
        number("Machine", "rate", self.rate, above=0)
        if self.reading is not None:
            number("Machine", "reading", self.reading, above=0)
        number("Machine", "start", self.start, low=0)
        if not isinstance(self.bandwidth, numbers.Real) or not self.bandwidth > 0:
            raise ValueError(f"Machine: bandwidth must be above 0, got {self.bandwidth!r}")
        if not isinstance(self.price, numbers.Real) or self.price < 0:
            raise ValueError(f"Machine: price must be at least 0, got {self.price!r}")


def size_of(model: Any, length: int = 1024) -> Size:
    """A model's `Size`: of a name in `PUBLISHED`, a directory or hub id, a config or a model.

    length: tokens of a text, on which attention depends. Operations are torch's own count
    (`kdlab.evidence.cost.flops`) of a model without weights, so a large one takes a second and no
    memory. A hub id needs its config alone. Raises TypeError for anything else.

    >>> small = size_of("120M")
    >>> small.parameters, round(small.forward / (2 * small.parameters), 2)
    (120443136, 1.17)
    """
    whole("size_of", "length", length, least=1)
    if isinstance(model, str):
        config = published(model) if model in PUBLISHED else None
        config = config or _named(model)
        name = model.rstrip("/").rpartition("/")[2]
    else:
        config = getattr(model, "config", model)
        instance("size_of", "model", config, transformers.PreTrainedConfig, "a model or its config")
        given = config.name_or_path or config.model_type
        name = str(given).rstrip("/").rpartition("/")[2]
    config = config.get_text_config()  # of a model that sees images too
    if not hasattr(config, "num_attention_heads"):
        came = type(config).__name__
        raise TypeError(f"size_of: model must be one of attention, got {came}, which keeps no keys")
    told = json.dumps(config.to_dict(), sort_keys=True, default=str)
    kind: Any = type(config)
    parameters, forward = _counted(kind, told, length)
    return Size(name, parameters, forward, _kept(config), config.vocab_size)


def _named(name):
    """The config of a directory or hub id."""
    try:
        return transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"size_of: model must be one of {list(PUBLISHED)}, a directory or a hub id, got "
            f"{name!r}: {str(error).splitlines()[0]}"
        ) from error


def _kept(config):
    """Bytes a token of keys and values in half precision, over all blocks."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * HALF * config.num_hidden_layers * heads * width


def published(name: str) -> transformers.LlamaConfig:
    """The config of a name in `PUBLISHED`.

    >>> published("Llama-2-7B").num_hidden_layers
    32
    """
    layers, width, inner, heads, kv_heads, vocabulary, tied = PUBLISHED[name]
    return transformers.LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=32_768,
    )


@functools.lru_cache(maxsize=64)
def _counted(kind, told, length):
    """(parameters, FLOPs a token) of a config, from a model on torch's device without memory."""
    config = kind.from_dict(json.loads(told))
    with torch.device("meta"):
        try:
            model = transformers.AutoModelForCausalLM.from_config(config)
        except ValueError:
            raise TypeError(
                f"size_of: model must be a language model's config, got {kind.__name__}"
            ) from None
        tokens = torch.zeros(1, length, dtype=torch.long)
    try:
        found = flops(model, {"input_ids": tokens})
    except RuntimeError as error:  # what a mixture of experts does depends on its numbers
        raise TypeError(
            "size_of: model must be one whose operations can be counted without its weights, got "
            f"{kind.__name__}: {str(error).splitlines()[0]}"
        ) from error
    return model.num_parameters(), found / length


def bytes_a_token(k: int, vocabulary: int) -> int:
    """Bytes on disk of what `kdlab.signals` keeps of a token: ids and k + 1 log-probabilities.

    >>> bytes_a_token(20, 1024), bytes_a_token(128, 49_152)
    (86, 518)
    """
    whole("bytes_a_token", "vocabulary", vocabulary, least=1)
    whole("bytes_a_token", "k", k, least=1, most=vocabulary)
    return FULL + k * (HALF if vocabulary <= SHORT else FULL) + HALF * (k + 1)


def plan(
    teacher: Any,
    student: Any,
    tokens: float,
    epochs: int = 1,
    k: int = 128,
    machine: Machine | None = None,
    length: int = 1024,
    batch: int = 64,
) -> pd.DataFrame:
    """What four ways to train a student cost → a table, a row a way.

    teacher, student: as `size_of` takes them, or a `Size`. tokens: of all texts, read epochs times.
    k: tokens of a teacher's answer that are kept. machine: without one, hours and dollars are NaN.
    length: tokens of a text. batch: texts that are written at once. In the ways "labels alone",
    "teacher asked anew" (each epoch), "teacher on disk" (once) and "on-policy" (the student writes
    each text anew, the teacher reads it):

        teacher_flops  reading: a forward pass
        student_flops  training: three of them, as the backward pass takes two
        written_flops  writing, on-policy alone
        hours          FLOPs by the machine's rates; writing by its bandwidth where that is slower:
                       a token reads the weights once for all texts, and each text's keys and
                       values; and what a step of writing takes to start
        dollars        hours times the price
        disk           bytes of the kept answers
        memory         bytes: 16 a parameter of the student (weights, gradients, Adam, in float32),
                       2 of a teacher in half precision; on disk the larger of the two, since one
                       follows the other; activations and logits come on top

    Leaves out what recomputing activations adds (a third of the student's part), evaluation,
    loading, and waiting for one another. A forward pass
    counts attention whole, also what a causal mask hides. Kaplan and others (2020) count 2 FLOPs a
    parameter and token, without attention.

    >>> table = plan("Llama-2-13B", "120M", tokens=1e9, epochs=3)
    >>> asked, kept = table.loc["teacher asked anew"], table.loc["teacher on disk"]
    >>> round(asked.teacher_flops / kept.teacher_flops), round(kept.disk / 1e9)
    (3, 518)
    """
    number("plan", "tokens", tokens, above=0)
    whole("plan", "epochs", epochs, least=1)
    whole("plan", "batch", batch, least=1)
    if machine is not None:
        instance("plan", "machine", machine, Machine, "a Machine")
    t, s = (one if isinstance(one, Size) else size_of(one, length) for one in (teacher, student))
    read, trained = tokens * t.forward, 3 * epochs * tokens * s.forward
    live = HALF * t.parameters
    rows = {
        WAYS[0]: (0, trained, 0, 0, 0),
        WAYS[1]: (epochs * read, trained, 0, 0, live),
        WAYS[2]: (read, trained, 0, tokens * bytes_a_token(k, t.vocabulary), 0),
        WAYS[3]: (epochs * read, trained, epochs * tokens * s.forward, 0, live),
    }
    found = pd.DataFrame.from_dict(
        rows,
        orient="index",
        columns=["teacher_flops", "student_flops", "written_flops", "disk", "memory"],
        dtype=float,
    )
    found["memory"] += TRAINED * s.parameters
    # its two parts follow one another: asking the teacher, training the student
    found.loc[WAYS[2], "memory"] = max(live, TRAINED * s.parameters)
    found["hours"] = _hours(found, s, tokens * epochs, machine, length, batch)
    found["dollars"] = found["hours"] * (math.nan if machine is None else machine.price)
    order = ["teacher_flops", "student_flops", "written_flops", "hours", "dollars"]
    return found[[*order, "disk", "memory"]]


def _hours(found, student, tokens, machine, length, batch):
    """Hours of each way: what is computed by the rate, what is written by what is slower."""
    if machine is None:
        return math.nan
    reading = machine.reading or machine.rate
    computed = found["teacher_flops"] / reading + found["student_flops"] / machine.rate
    # a step writes a token of each text: the weights once, and what each has behind it, half a text
    moved = HALF * student.parameters + batch * student.kept * length / 2
    step = max(moved / machine.bandwidth, batch * student.forward / machine.rate) + machine.start
    writing = (found["written_flops"] > 0) * tokens / batch * step
    return (computed + writing) / HOUR
