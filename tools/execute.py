"""Execute the committed lessons again, in place: python tools/execute.py [notebook ...]

A lesson is written only when all its cells ran, in one step, with the same metadata on every
machine. `make execute` runs this inside tools/offline.py, as nbval does, so that both see the same
surroundings."""

import base64
import sys
from pathlib import Path

from runner import CellError, lessons, read, run, write

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}
DOCS = Path(__file__).parents[1] / "docs"
# for the README: the lesson's number, how the figure's caption begins, where it goes
PICTURES = (("02", "A student that is never shown a 3", DOCS / "first.png"),)
# clocks and editors
NOISE = (
    "execution",
    "ExecuteTime",
    "papermill",
    "vscode",
    "collapsed",
    "scrolled",
)


def normalise(notebook):
    """Drop what depends on the machine, the clock or the editor; widget states and tags stay."""
    for place in [notebook, *notebook.cells]:
        for key in NOISE:
            place.metadata.pop(key, None)
    notebook.metadata |= {"kernelspec": KERNEL, "language_info": LANGUAGE}
    return notebook


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
        write(normalise(notebook), path)
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
