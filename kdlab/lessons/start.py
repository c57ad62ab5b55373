"""python -m kdlab start DIR: the notebooks in a folder of the reader's, and JupyterLab there."""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from kdlab.base.extras import install_line
from kdlab.base.places import course_files

PARTS = [
    "notebooks/*.ipynb",
    "notebooks/homework/student/**/*.ipynb",
    "notebooks/demos/*.ipynb",
    "benchmarks/results/*.csv",
]
TO_DOCS = re.compile(rb"\[([^\]\n]+)\]\((?:\.\./)+docs/[^)\s]+\)")
KEPT = ".kdlab.json"  # what was copied, by its hash: a file that still has it has not been changed


def digest(content):
    """The sha256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def as_copied(path):
    """A file's bytes as the reader gets them: links to docs/, which is not copied, are words."""
    content = path.read_bytes()
    if path.suffix != ".ipynb":
        return content
    return TO_DOCS.sub(rb"\1 (on the course's site)", content)


def copy(folder):
    """Copy the course into a folder: (copied, changed), two lists of names.

    The course is its lessons, student homework, demos and measured tables. A file that the reader
    has changed since it was copied, or that was there before, stays as it is and is in the second
    list; an unchanged one is renewed. Raises NotADirectoryError where folder is a file, and
    FileNotFoundError where the installation brings no notebooks.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     copied, changed = copy(folder)
    ...     (Path(folder) / copied[0]).is_file(), copy(folder)
    (True, ([], []))
    """
    folder, source = Path(folder), course_files()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"copy: folder must be a directory, got the file {folder}")
    found = sorted(
        {
            path
            for part in PARTS
            for path in source.glob(part)
            if ".ipynb_checkpoints" not in path.parts
        }
    )
    if not found:
        raise FileNotFoundError(f"copy: {source} holds no notebooks; install kdlab again")
    folder.mkdir(parents=True, exist_ok=True)
    before = json.loads((folder / KEPT).read_text()) if (folder / KEPT).is_file() else {}
    copied, changed = [], []
    for path in found:
        name, content = path.relative_to(source).as_posix(), as_copied(path)
        target, fresh = folder / name, digest(content)
        there = digest(target.read_bytes()) if target.is_file() else None
        if there == fresh:
            before[name] = fresh
        elif there is None or there == before.get(name):
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(target.name + ".part")  # whole, or not at all
            part.write_bytes(content)
            os.replace(part, target)
            before[name] = fresh
            copied.append(name)
        else:
            changed.append(name)
    (folder / f"{KEPT}.part").write_text(json.dumps(before, indent=1))
    os.replace(folder / f"{KEPT}.part", folder / KEPT)
    return copied, changed


def served_already():
    """What shows notebooks here already, or None: JupyterHub and Colab run servers of their own."""
    places = {"JUPYTERHUB_USER": "this JupyterHub", "COLAB_RELEASE_TAG": "Colab"}
    return next((place for variable, place in places.items() if variable in os.environ), None)


def start(folder, show=True):
    """Copy the course into folder, say what was kept, open JupyterLab there; the exit status."""
    copied, changed = copy(folder)
    print(
        f"{len(copied)} files copied to {Path(folder).resolve()}"
        if copied
        else f"{folder} is up to date"
    )
    for name in changed:
        print(f"  kept as you changed it: {name}  (move it away to get the course's own)")
    first, server = "notebooks/00_start_here.ipynb", served_already()
    if not show or server:
        print(f"Open {first}" + (f" in {server}." if server else "."))
        return 0
    if importlib.util.find_spec("jupyterlab") is None:
        raise ImportError(f"JupyterLab is missing: {install_line('course')}")
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.root_dir=.",
        f"--LabApp.default_url=/lab/tree/{first}",
        "--LabApp.news_url=None",
        "--ContentsManager.pre_save_hook=kdlab.lessons.saving.on_save",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # in a container
        command.append("--allow-root")
    return subprocess.run(
        command, cwd=folder, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    ).returncode
