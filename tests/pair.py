"""How tests start processes, and what two train and evaluate together, once a test run."""

import functools
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import torch
from filelock import FileLock

# which the launcher takes for itself
NAMES = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]
TAKEN = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]  # Windows lacks two
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
SECONDS = 240  # two that wait for each other would wait for ever


@functools.cache
def of_two():
    """The folder with what two processes came to: `trained/` and `told.json`.

    All the processes of a test run share it: the first that asks makes it, the others wait.
    """
    folder = Path(os.environ["KDLAB_BUILT"]) / "pair"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            made = folder.with_suffix(".new")
            _launch(made)
            made.rename(folder)
    return folder


def _launch(folder):
    by_two(_train, folder)


def forked():
    """How the tests start processes: each a fork of one that has imported all, in no time,
    where the system forks."""
    several = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        several.set_forkserver_preload(["trainers", "kdlab.training.trainer"])
    return several


def by_two(work, *arguments):
    """work(*arguments) in two processes by torch's launcher, as torchrun starts a program. Raises
    ChildFailedError, which says who died, and of what."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    forked()
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    rendezvous = {"rdzv_backend": "static", "rdzv_endpoint": place, "rdzv_configs": {"rank": 0}}
    how = {"start_method": METHOD, "max_restarts": 0, "monitor_interval": 0.1}
    taken = {one: signal.getsignal(one) for one in TAKEN}
    end = threading.Timer(SECONDS, os.kill, (os.getpid(), signal.SIGTERM))  # it ends all three
    end.start()
    try:
        elastic_launch(LaunchConfig(1, 1, 2, **rendezvous, **how), work)(*arguments)
    finally:
        end.cancel()
        for one, before in taken.items():
            signal.signal(one, before)


def _train(folder):
    """One of the two processes."""
    sys.path.insert(0, str(Path(__file__).with_name("training")))
    from test_evaluation import evaluated
    from test_trainer_resume import together

    torch.set_num_threads(1)
    told = evaluated(folder / "evaluated")
    together(folder / "trained", 2, 2)
    (folder / "told.json").write_text(json.dumps(told))
