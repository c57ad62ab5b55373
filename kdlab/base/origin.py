"""Whose code something is: kdlab's own, torch's or a reader's."""

from typing import Any


def origin(thing: Any) -> str:
    """The package in which a class, a function or an object's class was written.

    >>> import torch
    >>> origin(torch.nn.Linear(2, 1)), origin(torch.nn.functional.mse_loss), origin(origin)
    ('torch', 'torch', 'kdlab')
    """
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return str(module).split(".")[0]
