"""What two processes train and evaluate together, once a test run: each of them, and torch's
launcher, imports for seconds.

Run as a script, it is one of the two.
"""

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from filelock import FileLock


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
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    run = ["torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
    found = subprocess.run(
        [sys.executable, "-m", *run, "--master_port", port, __file__, str(folder)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.returncode == 0, found.stderr[-3000:]


def main(folder):
    """One of the two processes."""
    sys.path.insert(0, str(Path(__file__).with_name("training")))
    from test_evaluation import evaluated
    from test_trainer_resume import together

    torch.set_num_threads(1)
    told = evaluated(folder / "evaluated")
    together(folder / "trained", 2, 2)
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
