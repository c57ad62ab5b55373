"""The house rules of the package: the import order, a docstring and an example for every public name."""

import ast
import inspect
from pathlib import Path

import pytest

import kdlab

# data flows one way: a file imports only from those before it
ORDER = ("arguments lab wrapped start multiview sums tasks rendered text rows models backprop "
         "divergences objectives tokens features hidden encoders relations exits signals "
         "sparse cache fused vocabulary conventions generate api server metrics plots "
         "intervals store runs replicas live grid distill trainer_checks trainer fit panel "
         "explorers races tradeoff widgets checks").split()
FILES = sorted(Path(kdlab.__file__).parent.glob("*.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])


def imported(source):
    """Names of the kdlab files that a source imports, anywhere in it, in whatever form."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names if alias.name.split(".")[0] == "kdlab"]
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "kdlab"):
            module = (node.module or "").removeprefix("kdlab").strip(".")
            found = [module] if module else [alias.name for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("kdlab.").split(".")[0] for name in found)


def test_imports_are_found_in_every_form():
    source = ("import kdlab.runs\nfrom kdlab import tasks\nfrom kdlab.lab import device\nimport torch\n"
              "def f():\n    from . import plots, metrics\n    from .distill import sweep\n")
    assert sorted(imported(source)) == ["distill", "lab", "metrics", "plots", "runs", "tasks"]


@each_file
def test_a_file_imports_only_from_earlier_ones(path):
    if path.stem in ("__init__", "__main__"):
        return
    assert path.stem in ORDER, f"{path.name} has no place in the order"
    later = [name for name in imported(path.read_text()) if name not in ORDER[: ORDER.index(path.stem)]]
    assert not later, f"{path.name} imports {later}, which stand later in the order"


@each_file
def test_a_file_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@each_file
def test_every_public_name_has_a_docstring(path):
    def public(body):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        return [node for node in body if isinstance(node, kinds) and not node.name.startswith("_")]

    top = public(ast.parse(path.read_text()).body)
    # a method called forward is torch's to describe
    methods = [m for c in top if isinstance(c, ast.ClassDef) for m in public(c.body) if m.name != "forward"]
    assert [node.name for node in top + methods if not ast.get_docstring(node)] == []


EXPORTED = {name: value for name, value in vars(kdlab).items()
            if not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value))}


@pytest.mark.parametrize("name", EXPORTED)
def test_every_exported_name_has_an_example(name):
    assert ">>> " in (inspect.getdoc(EXPORTED[name]) or ""), f"kdlab.{name} has no example"
