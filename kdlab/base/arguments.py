"""Arguments checked at the edge: each returns the value, or raises the error that says what came.

Every message reads `function: argument must be …, got …`. Public functions call these in their
first lines; the functions inside compute and don't check."""

import math
import numbers
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from kdlab.base.plain_arguments import instance as instance
from kdlab.base.plain_arguments import number as number
from kdlab.base.plain_arguments import one_of as one_of
from kdlab.base.plain_arguments import place as place
from kdlab.base.plain_arguments import share as share
from kdlab.base.plain_arguments import text as text
from kdlab.base.plain_arguments import whole as whole


def number_or_tensor(name, key, value, low=-math.inf, high=math.inf, above=-math.inf):
    """A number within the bounds of `number`, or a tensor or array (..., 1) of such; ValueError.

    The last axis, where there is one, stands for the classes: (R, 1, 1) holds a value for each of R
    replicas. Arrays come back as tensors.

    >>> number_or_tensor("KDLoss", "alpha", torch.ones(2, 1, 1), low=0, high=1).shape
    torch.Size([2, 1, 1])
    >>> number_or_tensor("KDLoss", "alpha", torch.ones(2), low=0, high=1)
    Traceback (most recent call last):
    ValueError: KDLoss: alpha must be a number or a tensor (..., 1), got the shape (2,)
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        value = torch.as_tensor(value)
    tensor = torch.is_tensor(value)
    if tensor:
        right = value.numel() > 0 and value.dtype != torch.bool and not value.is_complex()
        right = right and bool(
            (value.isfinite() & (value >= low) & (value <= high) & (value > above)).all()
        )
    else:
        right = isinstance(value, numbers.Real) and not isinstance(value, bool)
        right = right and abs(value) < math.inf and low <= value <= high and value > above
    if not right:
        room = f"be at least {low} and finite"
        room = f"be above {above} and finite" if above > -math.inf else room
        room = f"lie in [{low}, {high}]" if high < math.inf else room
        raise ValueError(f"{name}: {key} must {room}, got {value!r}")
    if tensor and value.ndim and value.shape[-1] != 1:
        raise ValueError(
            f"{name}: {key} must be a number or a tensor (..., 1), "
            f"got the shape {tuple(value.shape)}"
        )
    return value if tensor or isinstance(value, (int, float)) else float(value)


def fits(name, key, value, shape):
    """ValueError where a tensor doesn't broadcast to this shape; what is no tensor always fits.

    >>> fits("KDLoss", "alpha", torch.ones(2, 1, 1), (3, 4))
    Traceback (most recent call last):
    ValueError: KDLoss: alpha must broadcast to the logits (3, 4), got the shape (2, 1, 1)
    """
    if torch.is_tensor(value) and not broadcasts(value.shape, shape):
        raise ValueError(
            f"{name}: {key} must broadcast to the logits {tuple(shape)}, "
            f"got the shape {tuple(value.shape)}"
        )


def listed(name, key, value, words="a list"):
    """What something iterable holds, as a list; TypeError for anything else, text and tensors too.

    >>> listed("HiddenLoss", "pairs", zip("12", "34"))
    [('1', '3'), ('2', '4')]
    >>> listed("HiddenLoss", "pairs", 3)
    Traceback (most recent call last):
    TypeError: HiddenLoss: pairs must be a list, got int
    """
    one = isinstance(value, (str, bytes, torch.Tensor)) or not getattr(value, "shape", True)
    if one or not isinstance(value, Iterable):
        raise TypeError(f"{name}: {key} must be {words}, got {type(value).__name__}")
    return list(value)


def rows_of(name, key, value):
    """How many rows a model's inputs have, a tensor (N, …) or a dictionary of them; or the error.

    >>> rows_of("costs", "x", {"input_ids": torch.zeros(3, 8)})
    3
    """
    parts = list(value.values()) if isinstance(value, Mapping) else [value]
    if not parts or not all(torch.is_tensor(part) and part.ndim for part in parts):
        raise TypeError(
            f"{name}: {key} must be a tensor (N, …) or a dictionary of them, "
            f"got {type(value).__name__}"
        )
    counts = {len(part) for part in parts}
    if len(counts) > 1 or not max(counts):
        raise ValueError(f"{name}: {key} must hold at least one row, the same in all, got {counts}")
    return counts.pop()


def logits(name, key, value, axes="(..., C)", least=1):
    """A tensor of numbers with at least `least` axes and a class or more; no value is looked at.

    TypeError where it is no tensor of real numbers, ValueError for another shape; safe under
    `vmap`.

    >>> logits("accuracy", "logits", [1.0])
    Traceback (most recent call last):
    TypeError: accuracy: logits must be a tensor of numbers (..., C), got list
    """
    real = torch.is_tensor(value) and value.dtype != torch.bool and not value.is_complex()
    if not real:
        came = value.dtype if torch.is_tensor(value) else type(value).__name__
        raise TypeError(f"{name}: {key} must be a tensor of numbers {axes}, got {came}")
    if value.ndim < least or not value.shape[-1]:
        raise ValueError(f"{name}: {key} must have the shape {axes}, got {tuple(value.shape)}")
    return value


def labels(name, key, value, rows):
    """Integers that broadcast to the shape `rows`, one class a row; TypeError or ValueError.

    >>> labels("nll", "labels", torch.tensor([1, 2]), rows=(3, 2)).shape
    torch.Size([2])
    >>> labels("nll", "labels", torch.tensor([1, 2]), rows=(3,))
    Traceback (most recent call last):
    ValueError: nll: labels must have a label for each row (3,) of the logits, got the shape (2,)
    """
    if not torch.is_tensor(value) or value.dtype == torch.bool or not _counts(value):
        came = value.dtype if torch.is_tensor(value) else type(value).__name__
        raise TypeError(f"{name}: {key} must be a tensor of whole numbers (...), got {came}")
    if not broadcasts(value.shape, rows):
        raise ValueError(
            f"{name}: {key} must have a label for each row {tuple(rows)} of the logits, "
            f"got the shape {tuple(value.shape)}"
        )
    return value


def _counts(tensor):
    return not tensor.is_floating_point() and not tensor.is_complex()


def broadcasts(shape, whole_shape):
    """True where a tensor of this shape expands to whole_shape.

    >>> broadcasts((2,), (3, 2)), broadcasts((3,), (3, 2))
    (True, False)
    """
    shape, whole_shape = tuple(shape), tuple(whole_shape)
    if len(shape) > len(whole_shape):
        return False
    tail = whole_shape[len(whole_shape) - len(shape) :]
    return all(a in (1, b) for a, b in zip(shape, tail, strict=True))
