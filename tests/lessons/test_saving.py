"""What JupyterLab writes when a lesson is saved, by the setting that `make lab` gives it."""

import asyncio
import json
import re
from pathlib import Path

import nbformat
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from nbformat.v4 import new_code_cell, new_notebook, new_output
from traitlets.config import Config

from kdlab.lessons.saving import VIEW

ROOT = Path(__file__).parents[2]
HOOK = re.search(r"--ContentsManager.pre_save_hook=(\S+)", (ROOT / "Makefile").read_text())[1]


def saved(path, folder):
    """The file that a notebook of one run becomes; a view, a progress bar, an editor's marks."""
    data = {VIEW: {"model_id": "4f2a"}, "text/plain": "Predict(…)", "text/html": "<p>?</p>"}
    bar = {VIEW: {"model_id": "9c1b"}, "text/plain": "students: 0%|"}
    outputs = [
        new_output("display_data", data),
        new_output("display_data", bar),
        new_output("stream", text="0.5\n"),
    ]
    marks = {"scrolled": True, "tags": ["hide-input"], "execution": {"iopub.status.idle": "now"}}
    cell = new_code_cell("x", execution_count=1, outputs=outputs, metadata=marks)
    notebook = new_notebook(
        cells=[cell],
        metadata={"language_info": {"name": "python", "version": "3.11.7"}, "widgets": {}},
    )
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    config = Config({"ContentsManager": {"pre_save_hook": HOOK}})
    manager = AsyncLargeFileManager(root_dir=str(folder), config=config)
    model = {"type": "notebook", "format": "json", "content": json.loads(nbformat.writes(notebook))}
    asyncio.run(manager.save(model, path))
    return nbformat.read(folder / path, as_version=4)


def test_a_lesson_keeps_nothing_that_changes_from_run_to_run(tmp_path):
    for path in ("notebooks/02_a.ipynb", "notebooks/demos/1_b.ipynb"):
        notebook = saved(path, tmp_path)
        (cell,) = notebook.cells
        assert cell.metadata == {"tags": ["hide-input"]} and cell.execution_count == 1
        assert [out.output_type for out in cell.outputs] == ["display_data", "stream"]
        assert cell.outputs[0].data == {"text/plain": "Predict(…)", "text/html": "<p>?</p>"}
        assert set(notebook.metadata) == {"kernelspec", "language_info"}
        assert "version" not in notebook.metadata.language_info


def test_other_notebooks_are_saved_as_they_are(tmp_path):
    for path in ("mine.ipynb", "notebooks/homework/student/hw1/hw1.ipynb"):
        notebook = saved(path, tmp_path)
        assert notebook.metadata.language_info.version == "3.11.7"
        assert len(notebook.cells[0].outputs) == 3 and notebook.cells[0].metadata["scrolled"]
