"""What of a lesson is kept when it is saved: nothing that changes from one run to the next."""

from typing import Any

VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "pygments_lexer": "ipython3",
}
# clocks and editors
NOISE = ("execution", "ExecuteTime", "papermill", "vscode", "collapsed", "scrolled")


def tidy(notebook: dict[str, Any]) -> dict[str, Any]:
    """Drop, in place, what depends on the machine, the clock, the editor or a running kernel.

    A widget's view holds an id that is new in each run, and without its kernel shows an error where
    its picture could be; what stands beside it stays. A progress bar has nothing beside it and
    goes. Cells, tags and all other outputs stay.

    >>> view = {"output_type": "display_data", "data": {VIEW: {"model_id": "4f"}}, "metadata": {}}
    >>> cell = {"cell_type": "code", "metadata": {"scrolled": True, "tags": ["a"]}}
    >>> tidy({"cells": [cell | {"outputs": [view]}], "metadata": {}})["cells"][0]
    {'cell_type': 'code', 'metadata': {'tags': ['a']}, 'outputs': []}
    """
    for place in [notebook, *notebook["cells"]]:
        for key in NOISE:
            place["metadata"].pop(key, None)
    notebook["metadata"].pop("widgets", None)
    notebook["metadata"].update({"kernelspec": dict(KERNEL), "language_info": dict(LANGUAGE)})
    for cell in notebook["cells"]:
        if "outputs" in cell:
            cell["outputs"] = [out for out in cell["outputs"] if _stays(out)]
    return notebook


def _stays(output):
    """Whether an output is kept; its view is taken out."""
    shown = output.get("data", {})
    return shown.pop(VIEW, None) is None or bool(set(shown) - {"text/plain"})


def on_save(model: dict[str, Any], path: str = "", **_: Any) -> None:
    """Jupyter's pre_save_hook: a lesson or a demo is tidied, any other file stays as it is.

    >>> lesson = {"type": "notebook", "content": {"cells": [], "metadata": {"widgets": {}}}}
    >>> on_save(lesson, path="notebooks/02_dark_knowledge.ipynb")
    >>> sorted(lesson["content"]["metadata"])
    ['kernelspec', 'language_info']
    """
    place = path.strip("/").split("/")
    if model.get("type") == "notebook" and place[-2:-1] in (["notebooks"], ["demos"]):
        tidy(model["content"])
