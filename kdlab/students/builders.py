"""Who learns: builders of small models. A builder is any function task → nn.Module.

A builder, not a model, is what `train` and `distill` take: each replica is built afresh from its
own seed."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kdlab.base.arguments import number, whole

Builder = Callable[[Any], nn.Module]  # of a task


class Dropout(nn.Module):
    """Dropout whose randomness can be handed in, so that each replica draws from its own generator.

    x: (B, ...) → the same shape; in training each value is zeroed with probability p and the rest
    scaled by 1 / (1 − p). `noise`, set by `replicas.py`, holds uniform numbers of x's shape; empty,
    it is drawn here. Source: Srivastava et al. 2014.

    >>> Dropout(0.5).eval()(torch.ones(1, 3))
    tensor([[1., 1., 1.]])
    """

    def __init__(self, p=0.5):
        super().__init__()
        self.p = number("Dropout", "p", p, low=0, below=1)
        self.register_buffer("noise", torch.empty(0), persistent=False)

    def forward(self, x):
        self.shape = tuple(x.shape)  # replicas.py reads the shape once to know what to draw
        if not self.training:
            return x
        noise = self.noise if self.noise.numel() else torch.rand_like(x)
        return torch.where(noise < self.p, 0.0, x / (1 - self.p))


def mlp(*hidden: int, dropout: float = 0.0) -> Builder:
    """A multi-layer perceptron: flatten, then `hidden` ReLU layers, then one logit a class.

    Built for a task, it maps x (B, ...) → logits (B, C). `mlp()` without widths is a linear
    classifier.

    >>> from kdlab.data.tasks import load
    >>> mlp(64)(load("digits"))
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=64, out_features=64, bias=True)
      (2): ReLU()
      (3): Linear(in_features=64, out_features=10, bias=True)
    )
    """
    hidden = [whole("mlp", "hidden", width, least=1) for width in hidden]
    number("mlp", "dropout", dropout, low=0, below=1)

    def build(task):
        widths = [math.prod(task.shape), *hidden]
        layers = [nn.Flatten(1)]
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(a, b), nn.ReLU()] + ([Dropout(dropout)] if dropout else [])
        return nn.Sequential(*layers, nn.Linear(widths[-1], len(task.classes)))

    build.__name__ = (
        "mlp " + "-".join(map(str, hidden)) + (f" dropout {dropout}" if dropout else "")
    )
    return build


def convnet(*channels: int, dropout: float = 0.0) -> Builder:
    """A small convolutional network: 3×3 with ReLU, the image halved after each but the first.

    Built for a task, it maps x (B, c, height, width) → logits (B, C). dropout: on the last hidden
    layer.

    >>> from kdlab.data.tasks import load
    >>> convnet(8, 16)(load("digits"))(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    if not channels:
        raise ValueError("convnet: channels must be whole numbers of at least 1, got none")
    channels = [whole("convnet", "channels", c, least=1) for c in channels]
    number("convnet", "dropout", dropout, low=0, below=1)

    def build(task):
        depth, height, width = task.shape
        layers, before = [], depth
        for i, c in enumerate(channels):
            stride = 1 if i == 0 else 2
            height, width = math.ceil(height / stride), math.ceil(width / stride)
            layers += [nn.Conv2d(before, c, 3, stride=stride, padding=1), nn.ReLU()]
            before = c
        layers += [nn.Flatten(1)] + ([Dropout(dropout)] if dropout else [])
        return nn.Sequential(*layers, nn.Linear(before * height * width, len(task.classes)))

    build.__name__ = (
        "convnet " + "-".join(map(str, channels)) + (f" dropout {dropout}" if dropout else "")
    )
    return build
