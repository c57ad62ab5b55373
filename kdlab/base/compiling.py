"""Whether a formula is compiled: on a GPU with Triton, where one kernel takes the place of many."""

import os
from collections.abc import Callable

import torch


def compiles(device: torch.device) -> bool:
    """True where a compiled formula gains: CUDA with Triton. KDLAB_COMPILE=1 or 0 decides instead.

    On a CPU the first call would wait for a C++ compiler longer than most lessons run.

    >>> compiles(torch.device("cpu"))
    False
    """
    asked = os.environ.get("KDLAB_COMPILE")
    if asked in ("0", "1"):
        return asked == "1"
    return device.type == "cuda" and torch.utils._triton.has_triton()


def compiled(function: Callable) -> Callable:
    """torch.compile of a function of tensors, for one set of shapes.

    >>> callable(compiled(torch.exp))
    True
    """
    return torch.compile(function, dynamic=False)
