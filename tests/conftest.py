"""Every test: offline, without a display or progress bars, with the same examples each time."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

# read when kdlab, tqdm and huggingface_hub are imported, so before them
os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
os.environ.pop("KDLAB_SCALE", None)

# a shell that starts the tests in the background has them ignore Ctrl-C, and all that they start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import matplotlib
import pytest
from hypothesis import settings

matplotlib.use("Agg")  # not by MPLBACKEND, which the kernels that some tests start would inherit

sys.modules.setdefault("rfc3987_syntax", None)  # three seconds, see tools/lean.py

# the programs that tests start see this checkout and the tests' helpers, whatever is installed
HERE = Path(__file__).parent
seen = [str(HERE.parent), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
os.environ["PYTHONPATH"] = os.pathsep.join(seen)

# no deadline: another busy process is no failure; the same examples on every run
settings.register_profile("kdlab", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("kdlab")


AT_FIRST = pytest.StashKey[set]()
LEFT = pytest.StashKey[list]()


def pytest_configure(config):
    """A folder for what is built once a run; the processes that pytest starts inherit its name."""
    if not hasattr(config, "workerinput"):
        os.environ["KDLAB_BUILT"] = tempfile.mkdtemp(prefix="kdlab-")
        config.stash[AT_FIRST] = untracked()


def pytest_collection_finish():
    """What is imported by now is never looked through for garbage again, which took most of a
    short training's time: transformers' trainer has all garbage collected whenever it begins."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session):
    """A test that writes where it stands leaves its file in the reader's checkout: that fails."""
    if hasattr(session.config, "workerinput"):
        return
    left = sorted(untracked() - session.config.stash[AT_FIRST])
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.stash[LEFT] = left


def untracked():
    """The files and folders here, empty ones too, that git neither has nor is told to pass over."""
    if shutil.which("git") is None:
        return set()
    asked = subprocess.run(
        ["git", "ls-files", "--others", "--directory", "--exclude-standard"],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
    )
    return set(asked.stdout.splitlines())  # none where this is no repository


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        if left := config.stash.get(LEFT, []):
            # the last line, which the summary of tools/check.py shows
            print(f"failed: tests left in the checkout: {left}")
        shutil.rmtree(os.environ["KDLAB_BUILT"], ignore_errors=True)


SLOW = set((Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").splitlines())


def pytest_collection_modifyitems(items):
    for item in items:
        name = f"{item.path.name}::{getattr(item, 'originalname', item.name)}"
        if {name, item.path.name} & SLOW or "browser" in item.path.parts:
            item.add_marker("slow")
    items.sort(
        key=lambda item: "browser" in item.path.parts
    )  # last: Playwright keeps an event loop in this thread
