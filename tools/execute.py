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
# for the README
MAP = (
    "04_soft_targets",
    "Where distillation helps",
    Path(__file__).parents[1] / "docs" / "map.png",
)
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
        if path.stem == MAP[0]:
            MAP[2].parent.mkdir(exist_ok=True)
            MAP[2].write_bytes(picture(notebook, MAP[1]))
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
