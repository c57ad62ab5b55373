"""Stacks side by side: a thread for each core of a CPU, where one stack would leave a core idle.

The operations of a small convolutional network are too short for two cores to share, so two stacks
at once take little longer than one. What a student learns does not depend on who trains beside it:
its numbers come from its own generators.
"""

import contextvars
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from kdlab.base.lab import device

MOST = 4  # threads; Python's own share of a step is not done side by side


def threads() -> int:
    """How many stacks to train at once here: 1 on a GPU, and inside a mode of torch's.

    A mode (autocast, counting operations, a default device) holds for the thread that set it, so
    there the work stays where it is.

    >>> 1 <= threads() <= MOST
    True
    """
    moded = (
        torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch.is_autocast_enabled("cpu")
        or torch.is_inference_mode_enabled()
    )
    return 1 if device().type != "cpu" or moded else min(MOST, torch.get_num_threads())


class Counted:
    """A progress bar that several threads count on; once stopped, it interrupts who reports."""

    def __init__(self, bar: Any) -> None:
        self.bar, self.stopped, self._lock = bar, threading.Event(), threading.Lock()

    def update(self, count: int) -> None:
        """Count on; raises KeyboardInterrupt once it was stopped."""
        if self.stopped.is_set():
            raise KeyboardInterrupt
        with self._lock:
            self.bar.update(count)


def abreast(work: Callable, parts: Sequence, bar: Any, at_once: int) -> list[BaseException | None]:
    """work(part, bar) for every part, `at_once` of them at a time, each on one core.

    Returns what each of them raised, or None, in order. An error and Ctrl-C interrupt all others
    at their next report to the bar.
    """
    counted, before = Counted(bar), torch.get_num_threads()
    gradients = torch.is_grad_enabled()

    def alone(part):
        torch.set_num_threads(1)
        try:
            counted.update(0)
            with torch.set_grad_enabled(gradients):
                work(part, counted)
        except BaseException:
            counted.stopped.set()
            raise

    with ThreadPoolExecutor(at_once) as pool:
        contexts = [contextvars.copy_context() for _ in parts]
        waiting = [pool.submit(c.run, alone, p) for c, p in zip(contexts, parts, strict=True)]
        try:
            for future in waiting:
                future.exception()  # waits for it
        except KeyboardInterrupt:
            counted.stopped.set()
        finally:
            pool.shutdown()
            torch.set_num_threads(before)
    return [future.exception() for future in waiting]
