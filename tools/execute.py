"""Execute the committed lessons again, in place: python tools/execute.py [notebook ...]

A lesson is written only when all its cells ran, in one step, with the same metadata on every
machine. `make execute` runs this inside tools/offline.py, as nbval does, so that both see the same
surroundings."""

import base64
import sys
from pathlib import Path

from runner import CellError, lessons, read, run, write

from kdlab.lessons.saving import tidy

DOCS = Path(__file__).parents[1] / "docs"
# for the README: the lesson's number, how the figure's caption begins, where it goes
PICTURES = (("02", "A student that is never shown a 3", DOCS / "first.png"),)


def picture(notebook, words):
    """The PNG of the figure whose caption begins with `words`, or None."""
    for output in (out for cell in notebook.cells for out in cell.get("outputs", [])):
        data = output.get("data", {})
        if data.get("text/plain", "").startswith(f"Figure: {words}"):
            return base64.b64decode(data["image/png"])


def main():
    for path in lessons(sys.argv[1:]):
        notebook = read(path)
        try:
            seconds = run(path, notebook)
        except CellError as failure:
            return f"FAILED  {failure}\n  {path.name} stays as it was"
        write(tidy(notebook), path)
        for number, words, place in PICTURES:
            found = path.stem.startswith(f"{number}_") and picture(notebook, words)
            if found:
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(found)
        print(
            "\r" * sys.stdout.isatty()
            + f"{path.stem:<28} {len(notebook.cells):>3} cells  {seconds:7.1f} s  written",
            flush=True,
        )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the lesson that was running stays as it was.")
