"""Every lesson executed from a fresh kernel: its wall time and the most memory that it took.

    python benchmarks/lessons.py [--scale quick|full|both] [lesson ...]

quick is what a laptop runs, full what a GPU runs (KDLAB_SCALE); by default the one that suits this
machine. Memory is the kernel's and its children's resident memory, and on a GPU also the device's,
read four times a second. Writes results/lessons.csv, a row a lesson, scale and hardware; others'
rows stay. A lesson that fails says where."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import argparse
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import torch
from table import hardware, write

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from runner import CellError, lessons, read, run

RESULTS = Path(__file__).parent / "results" / "lessons.csv"
MB = 2**20


class Watch(threading.Thread):
    """The most memory that this process's children took, and on a GPU how much of its memory."""

    def __init__(self):
        super().__init__(daemon=True)
        self.host, self.device, self.ended = 0, 0, threading.Event()

    def run(self):
        while not self.ended.wait(0.25):
            held = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    held += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.host = max(self.host, held)
            if torch.cuda.is_available():
                free, total = torch.cuda.mem_get_info()
                self.device = max(self.device, total - free)


def measure(path, scale):
    """A lesson's row: seconds, memory, and what failed."""
    os.environ["KDLAB_SCALE"] = scale
    notebook, watch, began, note = read(path), Watch(), time.perf_counter(), ""
    watch.start()
    try:
        run(path, notebook)
    except CellError as failure:
        note = str(failure).splitlines()[0]
    finally:
        watch.ended.set()
        watch.join()
    return {
        "seconds": f"{time.perf_counter() - began:.0f}",
        "peak_MB": f"{watch.host / MB:.0f}",
        "device_MB": f"{watch.device / MB:.0f}" if watch.device else "",
        "note": note,
    }


def main():
    lab = kd.setup(seed=0)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=["quick", "full", "both"], default=lab.scale)
    parser.add_argument("lessons", nargs="*")
    options = parser.parse_args()
    for scale in ["quick", "full"] if options.scale == "both" else [options.scale]:
        for path in lessons(options.lessons):
            row = hardware(lab) | {"lesson": path.stem, "scale": scale} | measure(path, scale)
            write(RESULTS, [row], ("hardware", "lesson", "scale"))


if __name__ == "__main__":
    main()
