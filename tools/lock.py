"""Renew constraints.txt: install kdlab with its extras into a temporary environment and note every
version."""

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"  # the version the committed outputs were made with
HEADER = (
    "# The exact versions the committed outputs were made with; `make lock` renews this file.\n"
)


def constraints(freeze):
    """The text of constraints.txt from `pip freeze`: local versions (+cpu) dropped, so that any
    build fits."""
    lines = [
        re.sub(r"\+\S+$", "", line) for line in freeze.split("\n") if re.match(r"[\w.-]+==", line)
    ]
    return HEADER + "\n".join(lines) + "\n"


def main():
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python = Path(place) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        pip = [str(python), "-m", "pip"]
        subprocess.run(
            [*pip, "install", "-q", TORCH, "-e", ".[test,teach,site]"], cwd=ROOT, check=True
        )
        freeze = subprocess.run(
            [*pip, "freeze", "--exclude-editable"], check=True, capture_output=True, text=True
        )
    new = ROOT / "constraints.txt.new"
    new.write_text(constraints(freeze.stdout), encoding="utf-8")
    new.replace(ROOT / "constraints.txt")
    print(f"constraints.txt: {freeze.stdout.count('==')} versions")


if __name__ == "__main__":
    sys.exit(main())
