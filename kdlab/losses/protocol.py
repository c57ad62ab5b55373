"""What the loops may ask of an objective: the class that every objective derives from.

And what the trainer may ask of a loss on hidden layers. `sweep` and its kin stack replicas, so
shapes have any leading axes: (B, C) or (R, B, C).
"""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kdlab.base.origin import origin


class Objective:
    """What a student minimises. An own one derives from it and writes `rows`.

        loss of a batch = mean over the rows that count of rows(student, teacher, labels)["loss"]

    The loops read the properties below; where another value is wanted, an own objective writes it
    as a class attribute: needs_teacher = False.

    >>> class Matching(Objective):
    ...     def rows(self, student_logits, teacher_logits, labels):
    ...         return {"loss": (student_logits - teacher_logits).square().mean(-1)}
    >>> Matching().rows(torch.ones(2, 3), torch.zeros(2, 3), None)["loss"]
    tensor([1., 1.])
    """

    @property
    def needs_teacher(self) -> bool:
        """Whether `rows` reads the teacher; if not, it may be None."""
        return True

    @property
    def needs_labels(self) -> bool:
        """Whether a row without a label (−100) has nothing to say."""
        return True

    @property
    def own_text(self) -> bool:
        """Whether it is right only on text that the student has just drawn."""
        return False

    @property
    def one_vocabulary(self) -> bool:
        """Whether student and teacher answer with the same classes in the same order."""
        return True

    @property
    def layers(self) -> Sequence[str]:
        """The teacher's layers that `rows` wants beside the logits.

        The teacher then comes as {"logits": (…, C), layer: (…)} and not as logits.
        """
        return ()

    @property
    def swept(self) -> Sequence[str]:
        """Settings that `sweep` may set, each by its name: attributes that hold a number.

        Students trained side by side have a value each, so there the attribute is a tensor
        (R, 1, 1) beside logits (R, B, C); beside rows (R, B), kdlab.losses.kd.per_row makes it
        (R, 1). A name is none of sweep's other arguments or columns.
        """
        return ()

    @property
    def may_be_recorded(self) -> bool:
        """Whether a step of it on a GPU may be recorded and replayed: no number is read or kept.

        By default where its class and the functions that it holds are kdlab's or torch's, and the
        objectives that it holds may be; other code may do anything.
        """
        held = vars(self).values()
        inner = [part for part in held if isinstance(part, Objective)]
        code = [type(self), *(f for f in held if callable(f) and not isinstance(f, Objective))]
        ours = all(origin(part) in ("kdlab", "torch") for part in code)
        return ours and all(objective.may_be_recorded for objective in inner)

    @property
    def may_run_abreast(self) -> bool:
        """Whether several stacks of it may be trained at once, each in a thread of its own."""
        return self.may_be_recorded

    def rows(self, student: Any, teacher: Any, labels: Any) -> dict[str, Tensor]:
        """The terms a row, unchecked: {"loss": (…), and its parts by name}."""
        raise NotImplementedError(
            f"{type(self).__name__} must define rows(student, teacher, labels)"
        )

    def prepare(
        self, student: nn.Module, x: Tensor, teacher: Mapping[str, Tensor], seed: int
    ) -> nn.Module:
        """The student as it is trained: one that gives its layers too, where `rows` wants them."""
        return student

    def setting(self, name: str) -> Any:
        """The value of a setting; NaN for one that it does not have.

        >>> from kdlab import HardLabels, KDLoss
        >>> KDLoss().setting("temperature"), HardLabels().setting("temperature")
        (4.0, nan)
        """
        return vars(self).get(name, math.nan)

    def check_setting(self, name: str, value: float) -> None:
        """Raise the error for a finite number that a setting of `swept` may not have.

        >>> from kdlab import DKDLoss
        >>> DKDLoss().check_setting("beta", -1.0)
        Traceback (most recent call last):
        ValueError: DKDLoss: beta must be at least 0 and finite, got -1.0
        """

    def with_settings(self, **settings: Any) -> "Objective":
        """A copy with other values for settings of `swept`.

        >>> from kdlab import KDLoss
        >>> KDLoss(temperature=4.0).with_settings(temperature=1.0)
        KDLoss(temperature=1.0, alpha=0.9)
        """
        other = copy.copy(self)
        vars(other).update(settings)
        return other

    def __repr__(self) -> str:
        told = ", ".join(f"{key}={_short(value)}" for key, value in self.settings().items())
        return f"{type(self).__name__}({told})"

    def settings(self) -> dict[str, Any]:
        """The settings by name, as the repr shows them."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}


@runtime_checkable
class LayersLoss(Protocol):
    """What `DistillationTrainer` asks of `hidden`, a module: a loss on the layers of two models.

    It is called with the layers of both that were collected, and the attention mask: one loss a
    row. LayerMap and Relations are two.
    """

    def prepare(self, student: nn.Module, teacher: nn.Module) -> None:
        """Look both models over, before the first step."""

    def collect(self, model: nn.Module, side: str) -> AbstractContextManager[dict[str, Tensor]]:
        """Within it, a forward pass of the "student" or the "teacher" fills the dictionary."""


def _short(value: Any) -> str:
    if torch.is_tensor(value):
        return f"tensor of {tuple(value.shape)}"
    return str(getattr(value, "__name__", None) or repr(value))
