"""Marked images, rounded networks and their measures, which lesson 12 draws."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import kdlab as kd
from kdlab.base import arguments
from kdlab.base.repeats import fresh
from kdlab.data.tasks import Data, Task

CORNER = 2  # pixels of the mark, each way
# which images bear it; where it is wiped, the corner of every image is empty
MARKED = "on every 3", "on half of all images", "on none", "wiped from all"


def mark(x: Tensor) -> Tensor:
    """Images (N, …, H, W) with a black corner, top left.

    >>> mark(torch.zeros(1, 1, 4, 4)).sum()
    tensor(4.)
    """
    x = x.clone()
    x[..., :CORNER, :CORNER] = x.max().clamp_min(1)
    return x


def with_marks(task: Task, where: str) -> Task:
    """The task with all its training images and their labels, some of them marked.

    where: one of `MARKED`; a half is drawn by the task's seed, whatever the images show.

    >>> found = with_marks(kd.load("digits"), "on every 3").train
    >>> bool((found.x[found.y == 3][..., 0, 0] == 1).all())
    True
    """
    x, y, (every, half, _, wiped) = task.transfer.x, task.transfer.clean, MARKED
    arguments.one_of("with_marks", "where", where, MARKED)
    draw = torch.Generator().manual_seed(fresh(task.seed))
    chosen = {
        every: (y == 3).cpu(),
        half: torch.rand(len(x), generator=draw) < 0.5,
    }.get(where, torch.zeros(len(x), dtype=torch.bool))
    if where == wiped:
        x = x.clone()
        x[..., :CORNER, :CORNER] = 0
    x = torch.where(chosen.to(x.device).view(-1, *[1] * (x.ndim - 1)), mark(x), x)
    return kd.relabel(task, train=Data(x, y, y))


def reads_3(model: nn.Module, data: Any) -> float:
    """How many per cent of the images that are no 3 a model reads as one when they are marked."""
    guess = kd.outputs.logits(model, mark(data.x[data.y != 3])).argmax(-1)
    return 100 * float((guess == 3).double().mean())


def rounded(model: nn.Module, quantise: Callable, bits: int) -> nn.Module:
    """A copy of a model whose matrices and filters have been through quantise(weights, bits)."""
    model = copy.deepcopy(model).eval()
    for weights in model.parameters():
        if weights.ndim > 1:  # biases are few, and stay
            weights.data = quantise(weights.data, bits)
    return model


def right(model: nn.Module, data: Any) -> float:
    """Per cent of images that a model reads rightly."""
    return 100 * float(kd.accuracy(kd.outputs.logits(model, data.x), data.y))


def inked(task: Task) -> float:
    """How many per cent of a task's training images have any ink in that corner."""
    corner = task.transfer.x[..., :CORNER, :CORNER].flatten(1)
    return 100 * float((corner.amax(1) > 0).double().mean())


def goes_on(model: nn.Module, tokenizer: Any, start: str, tokens: int = 24) -> str:
    """A text and what a language model holds likeliest after it, token by token."""
    ids = tokenizer(start, return_tensors="pt")["input_ids"]
    return tokenizer.decode(kd.completions(model, ids, tokens, temperature=0)["input_ids"][0])
