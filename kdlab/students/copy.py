"""A small encoder out of a large one: its blocks copied, as DistilBERT starts."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from kdlab.base.arguments import whole


def student_from(
    teacher: nn.Module, layers: Sequence[int] | None = None, every: int | None = None
) -> nn.Module:
    """A student made of the teacher's own blocks, embeddings and head: DistilBERT's start.

    teacher: a model of `transformers` with one stack of blocks and any head (BERT, RoBERTa,
    DistilBERT, also Llama). layers: the blocks to keep, from 0, as [0, 2, 4]; or every: 2 keeps
    each second one, the first included. The student is a fresh model of the teacher's class, in
    eval mode, ready to be read: whoever trains it puts it into train mode. It has the teacher's
    dtypes and devices and shares no memory with it. The global random generator is left as it was.
    TypeError for another model, ValueError for blocks that the teacher doesn't have. Source: Sanh
    et al. 2019, section 3, "Student initialization" (there without the pooler and the token types,
    which stay here).

    >>> from transformers import BertConfig, BertModel
    >>> sizes = dict(hidden_size=8, num_attention_heads=2, intermediate_size=8)
    >>> teacher = BertModel(BertConfig(vocab_size=9, num_hidden_layers=4, **sizes))
    >>> student = student_from(teacher, every=2)
    >>> student.config.num_hidden_layers
    2
    >>> torch.equal(student.encoder.layer[1].output.dense.weight,
    ...             teacher.encoder.layer[2].output.dense.weight)
    True
    """
    config: Any = copy.deepcopy(getattr(teacher, "config", None))
    if not isinstance(depth := getattr(config, "num_hidden_layers", None), int):
        raise TypeError(
            "student_from: teacher must be a model of transformers whose config says "
            f"num_hidden_layers, got {type(teacher).__name__}"
        )
    kept = _kept(layers, every, depth)
    stack = _stack(teacher, depth)
    for key, value in vars(config).items():
        # such as layer_types: one a block
        if "layer" in key and isinstance(value, list) and len(value) == depth:
            setattr(config, key, [value[i] for i in kept])
    config.num_hidden_layers = len(kept)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        student = type(teacher)(config)
    _copy(teacher, student, stack + ".", kept)
    if getattr(teacher, "generation_config", None) is not None:
        student.generation_config = copy.deepcopy(teacher.generation_config)
    return student.eval()  # a new model is in train mode, and would be read with dropout


def _kept(layers, every, depth):
    """The blocks to keep, as a list of numbers."""
    if (layers is None) == (every is None):
        raise ValueError(
            "student_from: expected either layers or every, "
            f"got layers={layers!r} and every={every!r}"
        )
    if layers is None:
        layers = range(0, depth, whole("student_from", "every", every, least=1))
    if not isinstance(layers, (list, tuple, range)) or not layers:
        raise ValueError(
            f"student_from: layers must be a list of blocks from 0 to {depth - 1}, got {layers!r}"
        )
    layers = [whole("student_from", "layers", block, most=depth - 1) for block in layers]
    if len(set(layers)) < len(layers):
        raise ValueError(f"student_from: layers must be different blocks, got {layers}")
    return layers


def _stack(teacher, depth):
    """The name of the one list of blocks."""
    lists = [
        name
        for name, module in teacher.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    stacks = [name for name in lists if not any(name.startswith(outer + ".") for outer in lists)]
    if len(stacks) != 1:
        raise ValueError(
            f"student_from: teacher must have one stack of {depth} blocks, got {stacks}"
        )
    return stacks[0]


def _copy(teacher, student, stack, kept):
    """The teacher's weights and buffers into the student, block i from the teacher's kept[i]."""
    theirs = {
        **dict(teacher.named_parameters(remove_duplicate=False)),
        **dict(teacher.named_buffers()),
    }
    for name, tensor in [*student.named_parameters(), *student.named_buffers()]:
        if name.startswith(stack):
            block, dot, rest = name.removeprefix(stack).partition(".")
            name = f"{stack}{kept[int(block)]}{dot}{rest}"
        tensor.data = theirs[name].detach().clone()  # in place, so that tied weights stay tied
