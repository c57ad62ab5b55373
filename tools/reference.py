"""The API's pages. kdlab's docstrings are plain text for people; Sphinx gets them without a word changed."""

import ast
import itertools
import re
import textwrap

from runner import ROOT

PRIVATE = {"__init__", "__main__"}  # what is in them has no page
ARGUMENT = re.compile(r"(\w+(?:, \w+)*)(: )(?=\S)")  # "mask: true where a row counts" begins a line of its own
ITEM = re.compile(r"- |\w+(?:, \w+)*: \S|Raises ")

INDEX = """API
===

What a notebook uses is one import away: ``import kdlab as kd``. The page of each file has the rest.

.. list-table::
   :header-rows: 1
   :widths: 28 16 56

   * - name
     - file
     - in a line
{table}
.. toctree::
   :maxdepth: 1
   :caption: By file

{listing}"""


def escaped(text):
    r"""Plain text for reStructuredText: `code` stays code, every other mark loses its meaning.

    >>> print(escaped("the rows of `x_1`, z* and p_T"))
    the rows of ``x_1``, z\* and p\_T
    """
    parts = re.split(r"`([^`]+)`", text)
    return "".join(f"``{part}``" if i % 2 else re.sub(r"([\\*_|`])", r"\\\1", part) for i, part in enumerate(parts))


def kind(block):
    """What a block of a docstring is: "pycon" for an example, "none" for an indented one, else "text"."""
    rows = block.splitlines()
    if rows[0].lstrip().startswith(">>> "):
        return "pycon"
    return "none" if all(row.startswith("    ") for row in rows if row.strip()) else "text"


def paragraphs(block):
    """Text as lines of reStructuredText: list items and named arguments begin on lines of their own."""
    for row in block.splitlines():
        name = ARGUMENT.match(row)
        if ITEM.match(row):
            yield ""
        if row.startswith("- "):
            yield f"- {escaped(row[2:])}"
        elif name:
            yield f"**{escaped(name[1])}**{name[2]}{escaped(row[name.end():])}"
        else:
            # rows that hang below an item of a list stay below it, others are one paragraph
            yield (row[:2] if row[:2].isspace() and row[2:3].strip() else "") + escaped(row.strip())


def restructured(lines):
    """The lines of a docstring as those of reStructuredText.

    Indented blocks (formulas, tables) and examples come out as they stand; the rest as paragraphs and lists.

    >>> print(*restructured(["Twice x.", "", "    2 · x_i", "", "x: a number", "", ">>> twice(1)", "2"]), sep="|")
    |Twice x.||.. code-block:: none||   2 · x_i|||**x**: a number||.. code-block:: pycon||   >>> twice(1)|   2|
    """
    blocks = [block for block in re.split(r"\n(?:[ \t]*\n)+", "\n".join(lines)) if block.strip()]
    found = [""]
    for shape, some in itertools.groupby(blocks, kind):
        if shape == "text":
            for block in some:
                found += [*paragraphs(block), ""]
        else:
            text = textwrap.dedent("\n\n".join(some))
            found += [f".. code-block:: {shape}", "", *textwrap.indent(text, "   ").splitlines(), ""]
    return found


def process(app, what, name, obj, options, lines):
    """Sphinx's event autodoc-process-docstring: the lines are changed in place."""
    lines[:] = restructured(lines)


def pages(folder):
    """Write the API's pages into `folder`, one for each file of the package, and the list of kd's short names."""
    folder.mkdir()
    package = ROOT / "kdlab"
    modules = [path.stem for path in sorted(package.glob("*.py")) if path.stem not in PRIVATE]
    for name in modules:
        title = f"kdlab.{name}"
        text = f"{title}\n{'=' * len(title)}\n\n.. automodule:: {title}\n   :members:\n"
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
    rows = []
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:  # from .distill import train; whole modules have no module
            body = {item.name: ast.get_docstring(item) for item in ast.parse(
                (package / f"{node.module}.py").read_text(encoding="utf-8")).body if hasattr(item, "name")}
            rows += [(alias.name, node.module, body[alias.name].splitlines()[0]) for alias in node.names]
    table = "".join(f"   * - :py:obj:`kd.{name} <kdlab.{module}.{name}>`\n     - ``{module}``\n     - {escaped(line)}\n"
                    for name, module, line in sorted(rows, key=lambda row: row[0].lower()))
    listing = "".join(f"   {name}\n" for name in modules)
    (folder / "index.rst").write_text(INDEX.format(table=table, listing=listing), encoding="utf-8")
