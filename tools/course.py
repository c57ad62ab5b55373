"""Execute the lessons, each from a fresh kernel: python tools/course.py [--build DIR] [--jobs N]
[notebook ...]

Keeps the executed copies and HTML pages in build/, and stops at the first claim or cell that fails.
Most of a lesson keeps one core busy, so `make course` runs two at a time.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import lean  # isort: skip  # noqa: F401
from nbconvert import HTMLExporter
from runner import ROOT, CellError, lessons, read, run, write


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--jobs", type=int, default=1, help="lessons at a time (1)")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}")
    options.build.mkdir(parents=True, exist_ok=True)
    paths, started = lessons(options.notebooks), time.perf_counter()
    failed = one_by_one(paths, options) if options.jobs == 1 else at_once(paths, options)
    if failed:
        return failed
    print(
        f"{len(paths)} lessons in {time.perf_counter() - started:.0f} s; executed copies and HTML "
        f"in {options.build.name}/"
    )


def one_by_one(paths, options):
    """Every lesson in turn; what failed, or None."""
    for path in paths:
        notebook = read(path)
        try:
            seconds = run(path, notebook)
        except CellError as failure:
            sys.stdout.write("\n" * sys.stdout.isatty())
            return f"FAILED  {failure}\n  executed so far: {options.build.name}/{path.name}"
        finally:  # the copy that failed too: it shows where
            write(notebook, options.build / path.name)
        page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": path.stem}})
        (options.build / f"{path.stem}.html").write_text(page, encoding="utf-8")
        print(
            "\r" * sys.stdout.isatty()
            + f"{path.stem:<28} {len(notebook.cells):>3} cells  {seconds:7.1f} s  ok",
            flush=True,
        )


def at_once(paths, options):
    """Several lessons at a time, each in a process of its own; what failed first, or None."""
    running, stopped = {}, threading.Event()

    def alone(path):
        if stopped.is_set():
            return None
        command = [sys.executable, __file__, "--build", options.build, path]
        running[path] = subprocess.Popen(
            [os.fspath(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        said, failed = (part.decode("utf-8", "replace") for part in running[path].communicate())
        if running[path].returncode:
            stopped.set()
            return failed.strip() or f"FAILED  {path.stem}: stopped"
        print(said.splitlines()[0], flush=True)
        return None

    with ThreadPoolExecutor(options.jobs) as pool:
        waiting = [pool.submit(alone, path) for path in paths]
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    if failed := future.result():
                        return failed
        finally:  # the others', where one failed or Ctrl-C came
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running.values():
                if process.poll() is None:
                    process.terminate()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its kernel ends with it
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted.")
