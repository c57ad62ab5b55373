"""What the loops may ask of an objective: the class that every objective derives from.

`sweep` and its kin stack replicas, so shapes have any leading axes: (B, C) or (R, B, C).
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


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


def _short(value: Any) -> str:
    if torch.is_tensor(value):
        return f"tensor of {tuple(value.shape)}"
    return str(getattr(value, "__name__", None) or repr(value))
