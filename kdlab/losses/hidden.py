"""Hidden layers: collected by `tap`, and the loss of a student that learns from a teacher's."""

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from kdlab.base.arguments import instance, listed, number, one_of
from kdlab.base.origin import origin
from kdlab.base.wrapped import evaluating
from kdlab.losses import features
from kdlab.losses.kd import HardLabels
from kdlab.losses.protocol import Objective


@contextlib.contextmanager
def tap(model: nn.Module, names: str | Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect hidden layers: yields a dictionary {name: output} that each forward pass fills.

    Gradients stay attached.

    names: submodules, named as in `model.named_modules()`, or a single one. Of a submodule that
    returns a tuple the first tensor is kept; of one that runs twice, the last output. A layer that
    the next one overwrites, as ReLU(inplace=True) does, is seen overwritten. The hooks are gone
    when the block ends, also by an exception. With `vmap`, enter it in the mapped function and
    return a copy of the dictionary. ValueError for an unknown name.

    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> with tap(model, "1") as layers:
    ...     logits = model(torch.zeros(5, 3))
    >>> layers["1"].shape
    torch.Size([5, 4])
    """
    instance("tap", "model", model, nn.Module, "an nn.Module")
    names = (
        [names]
        if isinstance(names, str)
        else listed("tap", "names", names, "a name or a list of names")
    )
    modules = {name: m for name, m in model.named_modules(remove_duplicate=False) if name}
    if wrong := [name for name in names if not isinstance(name, str) or name not in modules]:
        raise ValueError(
            f"tap: names {wrong} are not in the model; expected names from {list(modules)}"
        )
    layers = {}

    def keep(name, module, args, output):
        parts = output if isinstance(output, (tuple, list)) else [output]
        first = next(
            filter(torch.is_tensor, output.values() if isinstance(output, dict) else parts), None
        )
        if first is None:
            raise TypeError(
                f"tap: {name!r} must give a tensor or a tuple with one, got {type(output).__name__}"
            )
        layers[name] = first

    handles = [modules[name].register_forward_hook(partial(keep, name)) for name in names]
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()


class HiddenLoss(Objective):
    """A loss on the logits, plus a distance between hidden layers of student and teacher.

        base(student_logits, teacher_logits, labels)
        + weight · Σ_(s, t) distance(student[s], teacher[t])

    distance: a function of kdlab.losses.features, such as `fitnets` or `attention_transfer`; or
    your own of two layers (B, …) → a scalar, the mean over the batch, written for one student and
    called for one after another. pairs: layer names, the student's first, as in [("1", "3")]
    (module names, as in dict(module.named_modules())). base: `HardLabels()`, or an instance that
    distils the logits too.
    project: bring the student's layers to the teacher's shape by a learnt `projector`, trained with
    the student and then thrown away; None does so for fitnets only. Trained by `distill` and
    `sweep`; teacher must be Runs or an nn.Module, which have hidden layers. Source: Romero et al.
    2015 (fitnets; here both stages at once); the papers of the distances.

    >>> loss = HiddenLoss(features.similarity, [("1", "3")], weight=100.0)
    >>> loss.layers
    ['3']
    """

    def __init__(
        self,
        distance: Callable,
        pairs: Sequence[tuple],
        weight: float = 1.0,
        base: Objective | None = None,
        project: bool | None = None,
    ) -> None:
        if not callable(distance):
            raise TypeError(
                "HiddenLoss: distance must be a function such as features.fitnets, "
                f"got {distance!r}"
            )
        expected = "layer names by twos, as in [('1', '3')]"
        pairs = [
            tuple(pair) if isinstance(pair, (tuple, list)) else pair
            for pair in listed("HiddenLoss", "pairs", pairs, expected)
        ]
        if not pairs or any(
            not isinstance(p, tuple) or [*map(type, p)] != [str, str] for p in pairs
        ):
            raise ValueError(f"HiddenLoss: pairs must be {expected}, got {pairs!r}")
        self.distance, self.pairs, self._by_row = distance, pairs, _by_row(distance)
        self.weight = number("HiddenLoss", "weight", weight, low=0)
        self.base = HardLabels() if base is None else base
        if not isinstance(self.base, Objective):
            raise TypeError(
                f"HiddenLoss: base must be an objective such as kd.KDLoss(), got {base!r}"
            )
        one_of("HiddenLoss", "project", project, [None, True, False])
        self.project = distance is features.fitnets if project is None else project
        self._layers = list(dict.fromkeys(t for _, t in pairs))
        name = getattr(distance, "__name__", type(distance).__name__)
        self.__name__ = (
            name if isinstance(self.base, HardLabels) else f"{name} + {type(self.base).__name__}"
        )

    @property
    def layers(self) -> list[str]:
        """The teacher's layers, each once."""
        return self._layers

    @property
    def swept(self) -> Sequence[str]:
        """The settings of its base."""
        return self.base.swept

    def setting(self, name: str) -> Any:
        """The value of a setting of its base."""
        return self.base.setting(name)

    def check_setting(self, name: str, value: float) -> None:
        """As its base says."""
        self.base.check_setting(name, value)

    def with_settings(self, **settings: Any) -> Objective:
        """A copy whose base has other settings."""
        other = copy.copy(self)
        other.base = self.base.with_settings(**settings)
        return other

    def settings(self) -> dict[str, Any]:
        """Distance, pairs, weight and base."""
        return {k: getattr(self, k) for k in ("distance", "pairs", "weight", "base")}

    def prepare(
        self, student: nn.Module, x: Tensor, teacher: Mapping[str, Tensor], seed: int
    ) -> nn.Module:
        """The student ready to be trained: it gives its layers, projected where asked → `Tapped`.

        x (1, …): one image; teacher: {layer: (1, …)}, what the teacher's layers answer to it.
        Raises ValueError where a pair's shapes don't fit."""
        with tap(student, [s for s, _ in self.pairs]) as hidden, evaluating(student):
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
                    mine, theirs = (z.repeat(2, *[1] * (z.ndim - 1)) for z in pair)
                    self._distances(mine, theirs, stacked=False)
                except (ValueError, RuntimeError) as error:  # torch's own of shapes is the latter
                    offer = "" if self.project else "; or HiddenLoss(..., project=True)"
                    raise ValueError(
                        f"HiddenLoss: pair {(s, t)} does not fit. {error}{offer}"
                    ) from error
        return Tapped(student, [s for s, _ in self.pairs], projectors)

    def rows(self, student: tuple, teacher: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """The terms a row: student (logits, [layer]), teacher {"logits", layer}; replicas too."""
        logits, hidden = student
        terms = self.base.rows(logits, teacher["logits"], labels)
        for layer, (_, t) in zip(hidden, self.pairs, strict=True):
            found = self._distances(layer, teacher[t], stacked=logits.ndim > 2)
            terms["hidden"] = terms.get("hidden", 0) + found
        return terms | {"loss": terms["loss"] + self.weight * terms["hidden"]}

    def _distances(self, student, teacher, stacked):
        """Each row's, (B,), or (R, B) of a stack."""
        if self._by_row:
            one = partial(self.distance, reduction="rows")
            return vmap(one)(student, teacher) if stacked else one(student, teacher)
        if not stacked:
            return self._own(student, teacher)
        return torch.stack([self._own(s, t) for s, t in zip(student, teacher, strict=True)])

    def _own(self, student, teacher):
        """The reader's one number for a batch, which each of its rows then holds."""
        value = self.distance(student, teacher)
        name = f"{getattr(self.distance, '__name__', self.distance)!s:.60}"
        if not torch.is_tensor(value) or value.numel() != 1:
            came = tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
            raise TypeError(
                f"HiddenLoss: distance must return a scalar tensor, the mean over the batch, got "
                f"{came} from {name}"
            )
        if torch.is_grad_enabled() and student.requires_grad and not value.requires_grad:
            raise ValueError(
                "HiddenLoss: distance must return a value whose gradient reaches the student's "
                f"layer, {name} gives one without; leave out detach and no_grad"
            )
        return value.reshape(()).expand(len(student))


def _by_row(distance):
    """Whether it is one of kdlab's that tells each row's part; others give one number a batch.

    >>> _by_row(features.similarity), _by_row(nn.functional.mse_loss)
    (True, False)
    """
    while isinstance(distance, partial):
        distance = distance.func
    return origin(distance) == "kdlab" and "reduction" in inspect.signature(distance).parameters


class Tapped(nn.Module):
    """A student that gives (logits, [its layers, projected]) in training, else its logits alone.

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
        return [
            self.projectors[str(i)](found[s]) if str(i) in self.projectors else found[s]
            for i, s in enumerate(self.layers)
        ]

    def forward(self, x):
        if not self.training:
            return self.student(x)
        with tap(self.student, self.layers) as found:
            logits = self.student(x)
        return logits, self.hidden(found)
