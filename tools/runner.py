"""Run a lesson from a fresh kernel, cell by cell; shared by `make course` and `make execute`."""

import os
import sys
import time
from pathlib import Path

import lean  # isort: skip  # noqa: F401
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent


class CellError(Exception):
    """A cell raised; the message names the lesson, the cell and the error."""


def lessons(names=()):
    """The notebooks named, or every lesson in order."""
    paths = [Path(name).resolve() for name in names] or sorted(
        (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")
    )
    if not paths:
        sys.exit("no lesson found in notebooks/")
    for path in paths:
        if not path.is_file():
            sys.exit(f"{path.name}: no such notebook")
    return paths


def run(path, notebook):
    """Execute every cell of `notebook` in the directory of `path`; the seconds it took. Raises
    CellError."""
    started = time.perf_counter()
    notebook.metadata.pop("widgets", None)  # nothing of an earlier run may stay behind
    for cell in notebook.cells:
        cell.update({"outputs": [], "execution_count": None} if cell.cell_type == "code" else {})
    # progress bars would stay in the outputs, and the kernel chooses its own matplotlib backend
    env = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    env |= {"TQDM_DISABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
        shutdown_kernel="immediate",
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
    )
    client.reset_execution_trackers()
    # cell by cell, because client.execute() makes a traceback of Ctrl-C
    with client.setup_kernel(env=env):
        for i, cell in enumerate(notebook.cells):
            if sys.stdout.isatty():
                place = f"cell {i + 1:>3} of {len(notebook.cells)}"
                print(
                    f"\r{path.stem:<28} {place}  {time.perf_counter() - started:5.0f} s ",
                    end="",
                    flush=True,
                )
            try:
                client.execute_cell(cell, i, execution_count=client.code_cells_executed + 1)
            except CellExecutionError as error:
                raise CellError(_where(path, notebook, i) + _last_words(error)) from None
            except DeadKernelError:
                raise CellError(
                    _where(path, notebook, i) + "the kernel died (out of memory?)"
                ) from None
    for out in (out for cell in notebook.cells for out in cell.get("outputs", [])):
        # no widget views: without a kernel each shows an error where its picture could be, or asks
        # a CDN for a manager
        out.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return time.perf_counter() - started


def _where(path, notebook, i):
    first = next(iter(notebook.cells[i].source.strip().splitlines()), "")
    return f"{path.stem}: cell {i + 1} of {len(notebook.cells)} failed: {first}\n  "


def _last_words(error):
    """The error's first and last line: for a claim its sentence, and what was found instead."""
    lines = [line for line in f"{error.ename}: {error.evalue}".splitlines() if line.strip()]
    return "\n  ".join(dict.fromkeys([lines[0], lines[-1]]))


def read(path):
    return nbformat.read(path, as_version=4)


def write(notebook, path):
    """Write in one step: a reader never sees half a notebook."""
    new = path.with_name(path.name + ".new")
    new.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
    new.replace(path)
