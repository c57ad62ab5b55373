"""A student that learns from a teacher's hidden layers: pairs of layers, a distance, and the layers of both sides."""

import math
from functools import partial

import torch
from torch import nn
from torch.func import vmap

from . import features
from .arguments import listed, number, one_of
from .objectives import HardLabels
from .wrapped import evaluating


class HiddenLoss:
    """A loss on the logits, plus a distance between hidden layers of the student and of the teacher.

        base(student_logits, teacher_logits, labels) + weight · Σ_(s, t) distance(student[s], teacher[t])

    distance: a function of kdlab.features, such as `fitnets` or `attention_transfer`. pairs: layer names, the
    student's first, as in [("1", "3")] (module names, as in dict(module.named_modules())). base: `HardLabels()`,
    or an instance that distils the logits too. project: bring the student's layers to the teacher's shape by a
    learnt `projector`, trained with the student and then thrown away; None does so for fitnets only.
    Trained by `distill` and `sweep`; teacher must be Runs or an nn.Module, which have hidden layers.
    Source: Romero et al. 2015 (fitnets; here both stages at once); the papers of the distances.

    >>> loss = HiddenLoss(features.similarity, [("1", "3")], weight=100.0)
    >>> loss.layers
    ['3']
    """

    needs_teacher = True

    def __init__(self, distance, pairs, weight=1.0, base=None, project=None):
        if not callable(distance):
            raise TypeError(f"HiddenLoss: distance must be a function such as features.fitnets, got {distance!r}")
        expected = "layer names by twos, as in [('1', '3')]"
        pairs = [tuple(pair) if isinstance(pair, (tuple, list)) else pair
                 for pair in listed("HiddenLoss", "pairs", pairs, expected)]
        if not pairs or any(not isinstance(p, tuple) or [*map(type, p)] != [str, str] for p in pairs):
            raise ValueError(f"HiddenLoss: pairs must be {expected}, got {pairs!r}")
        self.distance, self.pairs = distance, pairs
        self.weight = number("HiddenLoss", "weight", weight, low=0)
        self.base = HardLabels() if base is None else base
        if isinstance(self.base, type) or not hasattr(self.base, "rows"):
            raise TypeError(f"HiddenLoss: base must be an objective such as kd.KDLoss(), got {base!r}")
        one_of("HiddenLoss", "project", project, [None, True, False])
        self.project = distance is features.fitnets if project is None else project
        self.layers = list(dict.fromkeys(t for _, t in pairs))
        self.temperature, self.alpha = (getattr(self.base, k, math.nan) for k in ("temperature", "alpha"))
        name = getattr(distance, "__name__", type(distance).__name__)
        self.__name__ = name if isinstance(self.base, HardLabels) else f"{name} + {type(self.base).__name__}"

    def prepare(self, student, x, teacher, seed):
        """The student ready to be trained: it gives its layers, projected where asked → `Tapped`.

        x (1, …): one image; teacher: {layer: (1, …)}, what the teacher's layers answer to it. Raises ValueError
        where a pair's shapes don't fit.
        """
        with features.tap(student, [s for s, _ in self.pairs]) as hidden, evaluating(student):
            student(x)
        projectors = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            for i, (s, t) in enumerate(self.pairs):
                pair = hidden[s], teacher[t]
                try:
                    if self.project:
                        bridge = features.projector(*(z.shape[1:] for z in pair)).to(x.device)
                        projectors[str(i)], pair = bridge, (bridge(hidden[s]), teacher[t])
                    self.distance(*(z.repeat(2, *[1] * (z.ndim - 1)) for z in pair))
                except ValueError as error:
                    offer = "" if self.project else "; or HiddenLoss(..., project=True)"
                    raise ValueError(f"HiddenLoss: pair {(s, t)} does not fit. {error}{offer}") from error
        return Tapped(student, [s for s, _ in self.pairs], projectors)

    def rows(self, student, teacher, labels):
        """The terms a row: student (logits, [layer]), teacher {"logits": …, layer: …}, any number of replica axes."""
        logits, hidden = student
        terms = self.base.rows(logits, teacher["logits"], labels)
        for layer, (_, t) in zip(hidden, self.pairs, strict=True):
            distance = partial(self.distance, reduction="rows")
            for _ in range(logits.ndim - 2):
                distance = vmap(distance)
            terms["hidden"] = terms.get("hidden", 0) + distance(layer, teacher[t])
        return terms | {"loss": terms["loss"] + self.weight * terms["hidden"]}


class Tapped(nn.Module):
    """A student that, while it trains, gives (logits, [its layers, projected]); in eval mode its logits alone.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> logits, (layer,) = Tapped(model, ["1"])(torch.zeros(5, 3))
    >>> logits.shape, layer.shape
    (torch.Size([5, 2]), torch.Size([5, 4]))
    """

    def __init__(self, student, layers, projectors=None):
        super().__init__()
        self.student, self.layers = student, layers
        self.projectors = nn.ModuleDict() if projectors is None else projectors

    def hidden(self, found):
        """The layers in the order of the pairs, projected: {name: (B, …)} → [(B, …)]."""
        return [self.projectors[str(i)](found[s]) if str(i) in self.projectors else found[s]
                for i, s in enumerate(self.layers)]

    def forward(self, x):
        if not self.training:
            return self.student(x)
        with features.tap(self.student, self.layers) as found:
            logits = self.student(x)
        return logits, self.hidden(found)
