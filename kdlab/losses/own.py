"""A loss that the reader wrote for one student, lifted over a stack of them."""

import inspect
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from kdlab.base.arguments import logits, number_or_tensor
from kdlab.base.origin import origin
from kdlab.losses.divergences import check_temperature
from kdlab.losses.kd import KDLoss
from kdlab.losses.pointwise import PointwiseKL
from kdlab.losses.protocol import Objective

# what a function may ask for by name, and the setting that it then is given
ASKED = {"labels": None, "T": "temperature", "temperature": "temperature", "alpha": "alpha"}
SLOW = 10  # times as long as KDLoss: worth a warning; a short loss through vmap takes two to five
# what stands in vmap's errors, and what the reader did
WHY = {
    "item()": "it asks for the value of a tensor, by .item(), float() or int()",
    "data pointer": "it asks for the values of a tensor, by .numpy() or .tolist()",
    "control flow": "an if or a while looks at the value of a tensor",
    "dynamic shape": "it picks rows by a condition",
    "random": "it draws random numbers",
    "out-of-place": "it changes a tensor in place",
    "broadcast shape": "it changes a tensor in place",
}


class OwnLoss(Objective):
    """A function of your own as what students minimise; you write it for one student.

        function(student_logits (B, C), teacher_logits (B, C)) → a scalar, the mean over the batch

    It may also ask, by these names, for labels (B,), −100 where a row has none; for T (or
    temperature), a number above 0; for alpha, a number in [0, 1]. temperature and alpha: their
    values, which `sweep` may set too; left out, the function's own defaults, else 4 and 0.9.

    A stack of students never reaches the function as such: torch.func.vmap maps it over them, and T
    is then a tensor without axes where they differ in it. What vmap cannot map is called for one
    student after another. A warning says so, once, and why; another where the loss takes more than
    ten times as long as `KDLoss`. It always runs as it is written: never recorded or compiled.

    The function sees logits of half precision in float32. Each row of a batch holds its value, so
    their mean is the loss. It sees every row of the batch; what it does with one labelled −100 is
    its own affair (torch's cross_entropy leaves it out of the mean, and gives NaN where a batch has
    no other). TypeError or ValueError, with the function's name, for one that takes other
    arguments, and at the first batch for a value that is no scalar, not finite, or has no gradient.

    >>> def squared(student_logits, teacher_logits, T):
    ...     return ((student_logits - teacher_logits) / T).square().sum(-1).mean()
    >>> loss = OwnLoss(squared, temperature=2.0)
    >>> loss
    OwnLoss(function=squared, temperature=2.0)
    >>> loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])).item()
    1.0
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        temperature: float | Tensor | None = None,
        alpha: float | Tensor | None = None,
    ) -> None:
        if isinstance(function, type) or not callable(function):
            raise TypeError(
                "OwnLoss: function must be a function (student_logits, teacher_logits, T) → a "
                f"scalar loss, got {function!r:.60}"
            )
        self.function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self._asked = _asked(function, self.__name__)
        # found at the first batch, and shared by all copies
        self._found: dict[str, bool] = {"mapped": True, "met": False, "kl_div": True}
        T = self._first("temperature", temperature, 4.0)
        if T is not None:
            self.temperature = check_temperature("OwnLoss", T)
        weight = self._first("alpha", alpha, 0.9)
        if weight is not None:
            self.alpha = number_or_tensor("OwnLoss", "alpha", weight, low=0, high=1)

    def _first(self, setting, given, usual):
        """The value that a setting begins with; None for one that the function doesn't ask for."""
        defaults = [value for name, value in self._asked.items() if ASKED[name] == setting]
        if given is not None and not defaults:
            raise ValueError(
                f"OwnLoss: {setting} must be left out for a function that doesn't ask for it, got "
                f"{given!r} for {self.__name__}{inspect.signature(self.function)}"
            )
        told = [value for value in (given, *defaults) if value is not None]
        return told[0] if told else usual if defaults else None

    @property
    def swept(self) -> Sequence[str]:
        """temperature and alpha, those that the function asks for."""
        return [name for name in ("temperature", "alpha") if name in vars(self)]

    @property
    def needs_labels(self) -> bool:
        """Whether the function asks for labels."""
        return "labels" in self._asked

    @property
    def may_be_recorded(self) -> bool:
        """Never: it runs as it is written."""
        return False

    @property
    def may_run_abreast(self) -> bool:
        """For an exercise's own solution, where the reader's code is not written yet."""
        return origin(self.function) == "kdlab"

    def with_settings(self, **settings: Any) -> Objective:
        """A copy with other values; replicas that share one have it as a plain number."""
        return super().with_settings(**{k: _one_number(v) for k, v in settings.items()})

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """The function's value, or of replicas (R, B, C) the mean of theirs."""
        logits("OwnLoss", "student_logits", student_logits, "(..., B, C)", least=2)
        logits("OwnLoss", "teacher_logits", teacher_logits, "(..., B, C)", least=2)
        if not student_logits.shape[-2]:
            raise ValueError(
                "OwnLoss: student_logits must hold at least one row, got the shape "
                f"{tuple(student_logits.shape)}"
            )
        if labels is None and self.needs_labels:
            raise TypeError(
                f"OwnLoss: labels must be given, {self.__name__} asks for them, got None"
            )
        return self.rows(student_logits, teacher_logits, labels)["loss"].mean()

    def rows(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None
    ) -> dict[str, Tensor]:
        """{"loss": (…, B)}, unchecked: each row holds the mean of its replica's batch."""
        if student_logits.ndim == 2:
            mean = self._of_one(_own(student_logits), _own(teacher_logits), labels)
        else:
            mean = self._of_many(student_logits, teacher_logits, labels)
        return {"loss": mean[..., None].expand(student_logits.shape[:-1])}

    # --- one student ---

    def _of_one(self, student, teacher, labels, replica=0):
        """The function's value for one student, (B, C) → ()."""
        given = {}
        for name in self._asked:
            value = labels if name == "labels" else getattr(self, ASKED[name])
            several = name != "labels" and torch.is_tensor(value)
            given[name] = value.flatten()[replica].item() if several else value
        value = self._scalar(self.function(student, teacher, **given))
        if torch.is_grad_enabled() and student.requires_grad and not value.requires_grad:
            raise ValueError(
                f"OwnLoss: function {self.__name__} must return a value whose gradient reaches "
                "student_logits, got one without: detach(), no_grad(), argmax or a new tensor cuts "
                "it off"
            )
        return value

    def _scalar(self, value):
        """What the function gave, or the error that says why it is no loss."""
        expected = f"function {self.__name__} must return a scalar tensor, the mean over the batch"
        if not torch.is_tensor(value):
            came = "None: it has no return" if value is None else type(value).__name__
            raise TypeError(f"OwnLoss: {expected}, got {came}")
        if value.ndim:
            raise ValueError(
                f"OwnLoss: {expected}, got the shape {tuple(value.shape)}; end it with .mean()"
            )
        return value

    # --- a stack of students ---

    def _of_many(self, student, teacher, labels):
        """The function's value for each student, (R, B, C) → (R,)."""
        if not self._found["met"] and torch.is_grad_enabled() and student.requires_grad:
            self._meet(student.detach().requires_grad_(), teacher, labels)
        if self._found["mapped"]:
            try:
                return self._mapped(_own(student), _own(teacher), labels)
            except Exception as error:
                self._no_longer_mapped(error, len(student))
        return self._one_by_one(student, teacher, labels)

    def _mapped(self, student, teacher, labels):
        """All at once, by `vmap`: in it, the function sees (B, C)."""
        values = {k: labels if k == "labels" else getattr(self, ASKED[k]) for k in self._asked}
        same = {k: v for k, v in values.items() if not torch.is_tensor(v)}
        each = {k: v if k == "labels" else v.flatten() for k, v in values.items() if k not in same}

        def one(student, teacher, each):
            return self._scalar(self.function(student, teacher, **same, **each))

        if not self._found["kl_div"]:  # a mode costs a tenth of the loss
            return vmap(one)(student, teacher, each)
        with PointwiseKL() as mode:
            values = vmap(one)(student, teacher, each)
        self._found["kl_div"] = mode.called
        return values

    def _one_by_one(self, student, teacher, labels):
        """Each student by a call of its own."""
        own = [None] * len(student) if labels is None else labels
        replicas = zip(_own(student), _own(teacher), own, strict=True)
        return torch.stack([self._of_one(*replica, r) for r, replica in enumerate(replicas)])

    def _no_longer_mapped(self, error, students):
        """From now on each student by itself; a warning says why."""
        self._found["mapped"] = False
        said = str(error).split("\n")[0]
        why = next((words for part, words in WHY.items() if part in said), said)
        warnings.warn(
            f"OwnLoss: {self.__name__} is called for each of {students} students in turn, because "
            f"{why}; the numbers are the same, but it takes longer",
            stacklevel=2,
        )

    # --- the first batch ---

    def _meet(self, student, teacher, labels):
        """Check what the function gives for the first student, and time it."""
        first = None if labels is None else labels[0]
        value = self._of_one(_own(student[0]), _own(teacher[0]), first)
        if student[0].isfinite().all() and not value.isfinite():
            none = self.needs_labels and bool((first < 0).all())
            raise ValueError(
                f"OwnLoss: function {self.__name__} must return a finite number for finite logits, "
                f"got {value.item()}" + " for a batch without a label, all −100" * none
            )
        self._found["met"] = True
        self._of_many(student, teacher, labels)  # where it cannot be mapped, this says so
        usual = KDLoss(getattr(self, "temperature", 4.0), getattr(self, "alpha", 1.0))
        if labels is None:
            labels = torch.zeros(student.shape[:-1], dtype=torch.long, device=student.device)
        slower, fast = (
            _seconds(loss, student, teacher, labels) for loss in (self.rows, usual.rows)
        )
        if slower > SLOW * fast:
            warnings.warn(
                f"OwnLoss: {self.__name__} takes {slower / fast:.0f} times as long as kd.KDLoss "
                f"for {len(student)} students; fewer seeds keep it short",
                stacklevel=2,
            )


def _asked(function, name):
    """What the function asks for after the two logits: {name: default, or None}."""
    parameters = inspect.signature(function).parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:2]
    any_place = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    more = [
        p
        for p in parameters
        if p not in places and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    unknown = [p for p in more if p.name not in ASKED and p.default is p.empty]
    if unknown or {p.name for p in places} & set(ASKED) or not (any_place or len(places) == 2):
        raise TypeError(
            "OwnLoss: function must take student_logits and teacher_logits, and after them any of "
            f"{', '.join(ASKED)}; got {name}{inspect.signature(function)}"
        )
    return {p.name: None if p.default is p.empty else p.default for p in more if p.name in ASKED}


def _own(logits):
    """A copy, which the function may change in place; of half precision in float32."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.clone() if wide == logits.dtype else logits.to(wide)


def _one_number(value):
    """A tensor of equal numbers as a number; any other as it is."""
    if torch.is_tensor(value) and bool((value == value.flatten()[0]).all()):
        return value.flatten()[0].item()
    return value


def _seconds(rows, student, teacher, labels):
    """Of the loss and its gradient, the best of four.

    On a CPU those of this thread alone: what else runs on the machine does not make a loss slow.
    """
    clock = time.perf_counter if student.is_cuda else time.thread_time
    best = float("inf")
    for _ in range(4):
        _wait(student)
        began = clock()
        torch.autograd.grad(rows(student, teacher, labels)["loss"].mean(-1).sum(), student)
        _wait(student)
        best = min(best, clock() - began)
    return best


def _wait(tensor):
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
