"""Execute the lessons, each from a fresh kernel: python tools/course.py [--build DIR] [notebook
...]

Keeps the executed copies and HTML pages in build/, and stops at the first claim or cell that fails.
"""

import argparse
import sys
from pathlib import Path

from nbconvert import HTMLExporter
from runner import ROOT, CellError, lessons, read, run, write


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    options = parser.parse_args()
    options.build.mkdir(parents=True, exist_ok=True)
    paths, total = lessons(options.notebooks), 0.0
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
        total += seconds
        print(
            "\r" * sys.stdout.isatty()
            + f"{path.stem:<28} {len(notebook.cells):>3} cells  {seconds:7.1f} s  ok",
            flush=True,
        )
    print(
        f"{len(paths)} lessons in {total:.0f} s; executed copies and HTML in {options.build.name}/"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted.")
