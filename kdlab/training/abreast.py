"""Stacks side by side: a thread for each core of a CPU, where one stack would leave a core idle.

The operations of a small convolutional network are too short for two cores to share, so two stacks
at once take little longer than one. What a student learns does not depend on who trains beside it:
its numbers come from its own generators.
"""

import contextvars
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import torch

from kdlab.base import lab

MOST = 4  # threads; Python's own share of a step is not done side by side
GLANCE = 0.1  # seconds: a thread that waits for others may sleep through a signal


def threads() -> int:
    """How many stacks to train at once here: 1 on a GPU, and inside a mode of torch's.

    A mode (autocast, counting operations, a default device) holds for the thread that set it, so
    there the work stays where it is. On a CPU as many as torch had when kdlab was imported: a
    torch.set_num_threads(1) for code of one's own leaves the cores to the stacks.

    >>> 1 <= threads() <= MOST
    True
    """
    moded = (
        torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch.is_autocast_enabled("cpu")
        or torch.is_inference_mode_enabled()
    )
    return 1 if lab.device().type != "cpu" or moded else min(MOST, lab.FOUND)


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

    Returns what each of them raised, or None, in order; after Ctrl-C one KeyboardInterrupt more,
    also where all were done before they heard of it. An error and Ctrl-C interrupt all others at
    their next report to the bar.
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

    with _heard(counted.stopped) as pressed, ThreadPoolExecutor(at_once) as pool:
        contexts = [contextvars.copy_context() for _ in parts]
        waiting = [pool.submit(c.run, alone, p) for c, p in zip(contexts, parts, strict=True)]
        try:
            while wait(waiting, timeout=GLANCE).not_done:
                pass
        except KeyboardInterrupt:  # by another handler than Python's own
            counted.stopped.set()
            pressed.set()
        finally:
            pool.shutdown()
            torch.set_num_threads(before)
    raised = [future.exception() for future in waiting]
    return [*raised, KeyboardInterrupt()] if pressed.is_set() else raised


@contextmanager
def _heard(stopped: threading.Event) -> Iterator[threading.Event]:
    """Meanwhile Ctrl-C sets `stopped`, and the event that is yielded; it raises nothing.

    An exception in the thread that waits could come where threads begin or end, and lose what the
    others have reached.
    """
    pressed = threading.Event()

    def note(*_: object) -> None:
        stopped.set()
        pressed.set()

    usual = signal.default_int_handler
    here = threading.current_thread() is threading.main_thread()  # where signals are handled
    if not here or signal.getsignal(signal.SIGINT) is not usual:
        yield pressed
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, usual)
