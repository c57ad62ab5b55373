"""What a teacher says of the rows that students see: computed once, or made anew at each step."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from kdlab.base.lab import device
from kdlab.losses.divergences import FLOOR
from kdlab.teachers import outputs
from kdlab.training.runs import Runs


class Teacher(Protocol):
    """What the loop asks of a teacher: an answer for a batch, and what follows a step.

    `Kept` answers from a table; the teachers of kdlab.teachers.live learn while they teach. cohort:
    replicas that see one data order.
    """

    cohort: int

    def answer(self, rows: Tensor, x: Tensor, student_logits: Any) -> Any:
        """For rows (R, B), x (R, B, …): logits (R, B, C), or a dictionary with layers."""

    def after_step(self) -> None:
        """What follows the optimiser's step."""

    def state(self) -> dict[str, Tensor] | None:
        """{name: tensor} of all that its steps change; None where nobody knows."""


class Nobody:
    """No teacher: labels alone.

    >>> Nobody().answer(None, None, None) is None
    True
    """

    cohort = 1

    def answer(self, rows, x, student_logits):
        """None."""

    def after_step(self):
        """Nothing."""

    def state(self):
        """Nothing."""
        return {}


class Kept:
    """A teacher's answers to every row, computed once and looked up.

    answers: {"logits": (N, C), layer: (N, …)}; shift (R, 1): from a replica's row of the data to
    its row here. layers: whether they are wanted beside the logits.

    >>> kept = Kept({"logits": torch.tensor([[1.0], [2.0]])}, shift=torch.tensor([[1]]))
    >>> kept.answer(torch.tensor([[0]]), None, None)
    tensor([[[2.]]])
    """

    cohort = 1

    def __init__(self, answers: Mapping[str, Tensor], shift: Tensor, layers: bool = False):
        self.answers, self.shift, self.layers = answers, shift, layers

    def answer(self, rows, x, student_logits):
        """The answers to these rows (R, B)."""
        found = {name: take(table, rows + self.shift) for name, table in self.answers.items()}
        return found if self.layers else found["logits"]

    def after_step(self):
        """Nothing: it has learnt already."""

    def state(self):
        """Nothing."""
        return {}


def take(table: Tensor, rows: Tensor) -> Tensor:
    """Rows of a table, (N, …) and (R, B) → (R, B, …).

    >>> take(torch.tensor([5, 6, 7]), torch.tensor([[2, 0]]))
    tensor([[7, 5]])
    """
    return table.index_select(0, rows.flatten()).view(*rows.shape, *table.shape[1:])


def answers_of(teacher, tasks, on, seeds=1, layers=()):
    """What the teacher says of each task's rows.

    {"logits": (U, N, C), or (U, S, N, C) with one teacher a seed; layer: (U, N, …)}. The errors
    name the argument of `sweep`."""
    if not layers:
        check_kind(teacher)
    hidden = {}
    if has_layers(teacher):
        models = [
            teacher.module_of_unit(t) if isinstance(teacher, Runs) else teacher for t in tasks
        ]
        each = [
            outputs.hidden(m, getattr(t, on).x, layers) for m, t in zip(models, tasks, strict=True)
        ]
        found = [answer["logits"] for answer in each]
        _check_logits(found, tasks, on, seeds)
        hidden = {k: torch.stack([answer[k] for answer in each]) for k in layers}
    elif layers:
        raise TypeError(
            "sweep: teacher must be Runs or an nn.Module, which have hidden layers, "
            f"for an objective that asks for {list(layers)}, got {type(teacher).__name__}"
        )
    else:
        found = _given(teacher)
        _check_logits(found, tasks, on, seeds)
    return {"logits": torch.stack([_kept(z.detach()) for z in found])} | hidden


def _kept(z):
    """Logits as a table keeps them: in float32, or float64 where they came so, and finite."""
    return z.to(device(), torch.promote_types(z.dtype, torch.float32)).clamp_min(FLOOR)


def check_kind(teacher):
    """Raise the error for what can't teach: neither Runs nor a module, and no logits."""
    if torch.is_tensor(teacher) and not teacher.ndim:
        raise TypeError(
            "sweep: teacher must be Runs, an nn.Module or logits (N, C), got a tensor without axes"
        )
    if not has_layers(teacher):
        _given(teacher)


def has_layers(teacher):
    """True for a teacher whose hidden layers and answers to other rows can be asked for."""
    return isinstance(teacher, (Runs, torch.nn.Module))


def _given(teacher):
    """Logits as they were given: a list of them, one a task."""
    found = [teacher] if torch.is_tensor(teacher) and teacher.ndim == 2 else teacher
    listed = isinstance(found, (list, tuple, torch.Tensor))
    if not listed or not all(torch.is_tensor(z) for z in found):
        came = type(teacher).__name__
        raise TypeError(f"sweep: teacher must be Runs, an nn.Module or logits, got {came}")
    return found


def _check_logits(found, tasks, on, seeds):
    if len(found) != len(tasks):
        raise ValueError(
            f"sweep: teacher must give logits for each of the {len(tasks)} tasks, got {len(found)}"
        )
    for z, task in zip(found, tasks, strict=True):
        expected = (len(getattr(task, on)), len(task.classes))
        if tuple(z.shape) not in (expected, (seeds, *expected)):
            raise ValueError(
                f"sweep: teacher logits for {task.unit} must have shape {expected}, "
                f"one row for each row of task.{on}, or {(seeds, *expected)}, one teacher a seed, "
                f"got {tuple(z.shape)}"
            )
        if not torch.isfinite(z.amax(-1)).all():
            raise ValueError(
                f"sweep: teacher logits for {task.unit} hold NaN, +inf or a row of −inf; "
                "expected finite"
            )
    if len({z.ndim for z in found}) > 1:
        raise ValueError(
            "sweep: teacher must give each task one teacher, or each task one a seed, "
            f"got logits of shapes {[tuple(z.shape) for z in found]}"
        )
