"""Where we run: the device, the threads, the scale and the seed."""

import contextlib
import os
import random
from dataclasses import dataclass

import numpy as np
import torch

from kdlab.base.arguments import whole
from kdlab.base.places import HALF
from kdlab.base.repeats import fresh


@dataclass(frozen=True)
class Lab:
    """What `setup` chose: device, dtype, threads, scale ("quick" or "full") and seed."""

    device: torch.device
    dtype: torch.dtype
    threads: int
    scale: str
    seed: int

    def __str__(self):
        name = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else self.device.type
        )
        kind = str(self.dtype).removeprefix("torch.")
        return (
            f"kdlab on {name} · {self.threads} threads · {kind} "
            f"weights · scale {self.scale} · seed {self.seed}"
        )


chosen: Lab | None = None  # by `setup`, once it was called
named: str | None = None  # what `setup` put into KDLAB_STUDENT
OWN_TEACHERS = {"docs_lm", "docs_base"}  # docs_base reads as they do
FOUND = torch.get_num_threads()  # as kdlab found it; a notebook may lower torch's own afterwards


def best_device() -> str:
    """The device that `setup` chooses here: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def setup(seed: int = 0) -> Lab:
    """Choose where to run, make it repeatable, and say so in one line.

    CUDA before MPS before CPU; the scale is "full" on a GPU and "quick" on a CPU, unless the
    environment variable KDLAB_SCALE says otherwise. Seeds Python, NumPy and torch and asks torch
    for deterministic algorithms, so that a second run gives the same numbers. On CUDA two
    operations have no such form, the gradient of adaptive average pooling and memory-efficient
    attention: models with them agree to rounding there. Where KDLAB_LM names a teacher for the
    lessons on language and KDLAB_STUDENT no student, that becomes "half of " the teacher (see
    `language_model`): the course's own students read the tokens of its own teachers alone. Returns
    a `Lab`.

    >>> setup(seed=1).seed
    kdlab on ... seed 1
    1
    """
    global chosen
    seed = whole("setup", "seed", seed, most=2**32 - 1)  # the most that NumPy takes
    device = torch.device(best_device())
    scale = os.environ.get("KDLAB_SCALE") or ("quick" if device.type == "cpu" else "full")
    if scale not in ("quick", "full"):
        raise ValueError(f"setup: KDLAB_SCALE must be 'quick' or 'full', got {scale!r}")
    # cuBLAS is deterministic only with this
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # a debugging aid that costs a tenth of each step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    random.seed(fresh(seed))
    np.random.seed(fresh(seed) % 2**32)
    torch.manual_seed(fresh(seed))
    _name_student()
    chosen = Lab(device, torch.float32, torch.get_num_threads(), scale, seed)
    print(chosen)
    return chosen


def _name_student():
    """KDLAB_STUDENT for KDLAB_LM, also where that has changed since; a reader's own name stays."""
    global named
    told, teacher = os.environ.get("KDLAB_STUDENT"), os.environ.get("KDLAB_LM")
    if told and told != named:
        return
    os.environ.pop("KDLAB_STUDENT", None)
    named = HALF + teacher if teacher and teacher not in OWN_TEACHERS else None
    if named:
        os.environ["KDLAB_STUDENT"] = named


def device():
    """The device that `setup` chose; the CPU before it was called.

    >>> isinstance(device(), torch.device)
    True
    """
    return chosen.device if chosen else torch.device("cpu")


@contextlib.contextmanager
def threads_for(model):
    """On a CPU, one thread while a small model works: waking a second one costs more than it saves.

    Small is under two million parameters: a transformer of half a million trains 1.4 times as fast,
    writes twice so.

    >>> with threads_for(torch.nn.Linear(2, 2)):
    ...     torch.get_num_threads()
    1
    """
    before, parameters = torch.get_num_threads(), list(model.parameters())
    small = (
        all(p.device.type == "cpu" for p in parameters)
        and sum(p.numel() for p in parameters) < 2_000_000
    )
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
