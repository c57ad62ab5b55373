"""A deep network that teaches its own shallow exits: a classifier after every stage, the last one the teacher."""

from collections.abc import Callable

import torch
from torch import nn

from .arguments import instance, text
from .features import tap
from .objectives import HardLabels, KDLoss


class Exits(nn.Module):
    """A network with a small classifier on some of its layers: exit i answers without running the rest.

    body: an nn.Sequential. layers: names of the layers that get an exit. example (1, …): one input. While it trains
    it gives (logits, [exit's logits]); in eval mode the logits of the body alone.
    Source: Zhang, Song, Gao, Chen, Bao, Ma 2019 (BYOT), without its bottlenecks.

    >>> body = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> model = Exits(body, ["1"], torch.zeros(1, 3))
    >>> [logits.shape for logits in model.all(torch.zeros(5, 3))]
    [torch.Size([5, 2]), torch.Size([5, 2])]
    """

    def __init__(self, body, layers, example):
        super().__init__()
        self.body, self.layers = body, list(layers)
        parts = list(body._modules) if isinstance(body, nn.Sequential) else []
        if wrong := [k for k in self.layers if k not in parts]:
            raise ValueError(f"with_exits: layers {wrong} must be parts of an nn.Sequential, got {type(body).__name__} "
                             f"with the parts {parts}")
        with tap(body, self.layers) as found, torch.no_grad():
            classes = body.eval()(example).shape[-1]
        self.heads = nn.ModuleList(self._head(found[k][0], classes) for k in self.layers)
        self.train()

    @staticmethod
    def _head(layer, classes):
        """Cheap on purpose: maps are pooled to 2×2 pixels."""
        pool, width = ([nn.AdaptiveAvgPool2d(2)], 4 * len(layer)) if layer.ndim == 3 else ([], layer.numel())
        return nn.Sequential(*pool, nn.Flatten(1), nn.Linear(width, classes))

    def all(self, x):
        """The logits of every exit, then of the whole network, in this order."""
        with tap(self.body, self.layers) as found:
            logits = self.body(x)
        return [head(found[k]) for head, k in zip(self.heads, self.layers, strict=True)] + [logits]

    def forward(self, x):
        if not self.training:
            return self.body(x)
        *exits, logits = self.all(x)
        return logits, exits

    def shallow(self, i):
        """Exit i as a model of its own, which runs no layer behind it."""
        names = list(self.body._modules)
        until = names.index(self.layers[i]) + 1
        return nn.Sequential(*(self.body._modules[k] for k in names[:until]), self.heads[i])


def with_exits(builder, *layers):
    """A builder of `Exits`: with_exits(convnet(8, 16, 32), "1", "3") puts an exit on the layers named 1 and 3.

    >>> from kdlab import convnet, load
    >>> model = with_exits(convnet(4, 8), "1")(load("digits"))
    >>> len(model.heads)
    1
    """
    instance("with_exits", "builder", builder, Callable, "a builder such as kd.mlp(64)")
    for layer in layers:
        text("with_exits", "layers", layer)

    def build(task):
        return Exits(builder(task), layers, torch.zeros(1, *task.shape))

    build.__name__ = f"{getattr(builder, '__name__', type(builder).__name__)} with exits " + " ".join(layers)
    return build


class DeepToShallow:
    """The loss of a network with exits: labels everywhere, and the deepest classifier teaches the others.

        CE(labels, q_deep) + Σ_exits [(1 − alpha) · CE(labels, q_exit) + alpha · T² · KL(p_deep ‖ q_exit)]

    No gradient flows from an exit into the deepest classifier as teacher. alpha 0 is the control: exits on labels
    alone. Source: Zhang et al. 2019, eq. 5, without its third term, hints between feature maps.

    >>> DeepToShallow(temperature=3, alpha=0.5).alpha
    0.5
    """

    needs_teacher = False

    def __init__(self, temperature=3.0, alpha=0.5):
        self.exit_loss = KDLoss(temperature, alpha)  # raises for T ≤ 0 and alpha outside [0, 1]
        self.temperature, self.alpha = temperature, alpha

    def rows(self, student, teacher, labels):
        """The terms a row: student (logits, [exit's logits]), each (..., C), labels (...)."""
        logits, exits = student
        deep = HardLabels().rows(logits, None, labels)
        shallow = [self.exit_loss.rows(z, logits.detach(), labels) for z in exits]
        return {"loss": deep["loss"] + sum(s["loss"] for s in shallow), "hard": deep["hard"],
                "soft": sum(s["soft"] for s in shallow)}
