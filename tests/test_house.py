"""The house rules of the package: the order of its rooms, a docstring and an example for every
public name, its tests under its own, no long function."""

import ast
import functools
import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import kdlab as kd

HOME = Path(kd.__file__).parent
FILES = sorted(HOME.rglob("*.py"))
each_file = pytest.mark.parametrize(
    "path", FILES, ids=[path.relative_to(HOME).as_posix() for path in FILES]
)
# the functions and classes that `kd` offers, without its modules
EXPORTED = {
    name: value
    for name in sorted(kd.__all__)
    if inspect.isfunction(value := getattr(kd, name)) or inspect.isclass(value)
}
# the same of the modules that it offers: what is written there, or listed as theirs
OFFERED = {
    f"{module}.{name}": value
    for module in sorted(kd.__all__)
    if inspect.ismodule(here := getattr(kd, module))
    for name, value in sorted(vars(here).items())
    if (inspect.isfunction(value) or inspect.isclass(value)) and not name.startswith("_")
    if value.__module__ == here.__name__ or name in getattr(here, "__all__", ())
}


def test_a_room_imports_only_from_those_before_it(monkeypatch, capsys):
    """Their order stands in pyproject.toml."""
    monkeypatch.setattr(sys, "path", [*sys.path])  # the linter puts a directory there
    config = str(HOME.parent / "pyproject.toml")
    assert lint_imports(config, no_cache=True, no_logo=True) == 0, capsys.readouterr().out


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
    methods = [
        m for c in top if isinstance(c, ast.ClassDef) for m in public(c.body) if m.name != "forward"
    ]
    assert [node.name for node in top + methods if not ast.get_docstring(node)] == []


LONGEST = 40  # lines of code in a function, without its signature, docstring and comments
# longer ones, and why they may be
LONG = {
    "evidence/audit.py: audit": "most of it says which argument is wrong",
    "lessons/exercises/lesson11.py: _slips": "a table: a line or two for each wrong formula",
}


def lines_of_code(function, source):
    """How many lines the body of a function has."""
    told = ast.get_docstring(function, clean=False) is not None
    body = function.body[1:] if told else function.body
    first = body[0].lineno if body else function.end_lineno + 1
    lines = (line.strip() for line in source[first - 1 : function.end_lineno])
    return sum(bool(line) and not line.startswith("#") for line in lines)


def long_functions(source):
    """The names of those that are longer than `LONGEST`."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds))
    lines = source.splitlines()
    return {node.name for node in found if lines_of_code(node, lines) > LONGEST}


def test_no_function_is_long():
    """One that is has parts with names of their own; or it stands above, with its reason."""
    beside = [
        path
        for folder in ("benchmarks", "tools")
        for path in sorted((HOME.parent / folder).rglob("*.py"))
    ]
    assert {"benchmarks", "tools"} == {path.relative_to(HOME.parent).parts[0] for path in beside}
    found = {
        f"{path.relative_to(HOME if path in FILES else HOME.parent).as_posix()}: {name}"
        for path in [*FILES, *beside]
        for name in long_functions(path.read_text("utf-8"))
    }
    assert found == set(LONG)


def test_a_long_function_is_found_by_its_code_alone():
    body = "\n".join(f"    x = {i}" for i in range(LONGEST))
    told = f'def right(a,\n    b):\n    """One\n\n    two."""\n    # why\n\n{body}\n'
    assert long_functions(told) == set()
    assert long_functions(told + "    return x\n") == {"right"}
    assert long_functions('class A:\n    async def empty(self):\n        """Nothing."""') == set()


def annotated(function):
    """The parameters without a type, and "return"."""
    signature = inspect.signature(function)
    bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty]
    returns = [] if signature.return_annotation is not signature.empty else ["return"]
    return [name for name in bare if name not in ("self", "cls")] + returns


@pytest.mark.parametrize("name", EXPORTED | OFFERED)
def test_every_exported_name_has_types(name):
    """mypy then checks what stands in them."""
    value = (EXPORTED | OFFERED)[name]
    if inspect.isfunction(value):
        assert annotated(value) == []
    for key, method in (
        inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else ()
    ):
        ours = method.__module__.startswith("kdlab") and "__create_fn__" not in method.__qualname__
        public = not key.startswith("_") or key in ("__init__", "__call__")
        assert not (ours and public) or annotated(method) == [], key


@pytest.mark.parametrize("name", EXPORTED)
def test_every_exported_name_has_an_example(name):
    assert ">>> " in (inspect.getdoc(EXPORTED[name]) or ""), f"kdlab.{name} has no example"


TESTS = HOME.parent / "tests"
# what a lesson has of its own in a folder is tested as one
TOGETHER = {"lessons/exercises": "test_checks.py", "lessons/figures": "test_figures.py"}


def its_tests(module):
    """Where the tests of a module stand: under its name, in its room."""
    room = module.parent.as_posix()
    if room in TOGETHER:
        return TESTS / module.parts[0] / TOGETHER[room]
    return TESTS / module.with_name(f"test_{module.name}")


def test_each_module_s_tests_stand_under_its_name():
    modules = [path.relative_to(HOME) for path in FILES if not path.stem.startswith("__")]
    bare = [module.as_posix() for module in modules if not its_tests(module).is_file()]
    assert not bare, f"without a tests/<room>/test_<module>.py: {', '.join(bare)}"


# the code of this house that tests call: the package, tools, and the tests' own helpers
CALLED = [*FILES, *HOME.parent.glob("tools/*.py"), *TESTS.glob("homework/*.py")]


def private(name):
    return name.startswith("_") and not name.endswith("_")  # _repr_html_ is Jupyter's to ask


@functools.cache
def private_names():
    """Every private name that the house's code defines, of functions, classes and attributes."""
    found = set()
    for node in (node for path in CALLED for node in ast.walk(ast.parse(path.read_text("utf-8")))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return set(filter(private, found))


def taken(source):
    """The private names of the house that a test's code takes from elsewhere."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = [(alias.name, alias.name) for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names = [] if own else [(node.attr, ast.unparse(node))]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            given = [arg.value for arg in node.args[:2] if isinstance(arg, ast.Constant)]
            names = [(str(name).rpartition(".")[2], str(name)) for name in given]
        else:
            continue
        yield from (said for name, said in names if private(name) and name in private_names())


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("*.py")), ids=lambda p: p.relative_to(TESTS).as_posix()
)
def test_a_test_takes_no_private_name(path):
    """What a test needs has a public name, or is tested by what it does."""
    assert list(taken(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", CALLED, ids=lambda path: path.relative_to(HOME.parent).as_posix())
def test_a_module_imports_no_private_name_of_another(path):
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in imports for alias in node.names]
    assert list(filter(private, names)) == []


def test_private_names_are_found_however_they_are_taken():
    source = """
from kdlab.training.axes import _builder
from kdlab.training import axes as own
own._setting("alpha", 1)
self._own, module._forward_hooks, os._exit, own.grid
monkeypatch.setattr("kdlab.data.tasks._digits", None)
monkeypatch.setattr(axes, "_objective", None)
"""
    found = ["_builder", "_objective", "kdlab.data.tasks._digits", "own._setting"]
    assert sorted(taken(source)) == found


def test_what_is_listed_as_slow_is_there():
    """A test that was renamed would be run by `make check` unseen."""
    written = {}
    for path in [*(HOME.parent / "tests").rglob("test_*.py"), *FILES]:
        written[path.name] = written.get(path.name, "") + path.read_text(encoding="utf-8")
    listed = (HOME.parent / "tests" / "slow.txt").read_text(encoding="utf-8").splitlines()
    for line in (line for line in listed if not line.startswith("#")):
        file, _, name = line.partition("::")
        made = [f"{kind} {name.rpartition('.')[2]}" for kind in ("def", "class")]
        assert any(word in written.get(file, "") for word in made if name or file in written), line


STUB = re.findall(
    r"^from \.(\w+) import (\w+) as \w+$",
    (HOME / "__init__.pyi").read_text(encoding="utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize(("room", "name"), STUB)
def test_a_module_that_kd_offers_is_there_before_anything_else_has_loaded_it(room, name):
    """By its room's own list: in this process another test may have loaded it."""
    assert name in importlib.import_module(f"kdlab.{room}").__all__
