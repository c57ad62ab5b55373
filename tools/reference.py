"""The API's pages. kdlab's docstrings are plain text for people; Sphinx gets them without a word
changed."""

import ast
import itertools
import re
import textwrap

from runner import ROOT

PRIVATE = {"__init__", "__main__"}  # what is in them has no page
# "mask: true where a row counts" begins a line of its own
ARGUMENT = re.compile(r"(\w+(?:, \w+)*)(: )(?=\S)")
ITEM = re.compile(r"- |\w+(?:, \w+)*: \S|Raises ")

INDEX = """API
===

What a notebook uses is one import away: ``import kdlab as kd``. A room holds what belongs together;
the page of each of its files has the rest.
"""
TABLE = """
.. list-table::
   :header-rows: 1
   :widths: 28 18 54

   * - name
     - file
     - in a line
"""


def escaped(text):
    r"""Plain text for reStructuredText: `code` stays code, every other mark loses its meaning.

    >>> print(escaped("the rows of `x_1`, z* and p_T"))
    the rows of ``x_1``, z\* and p\_T
    """
    parts = re.split(r"`([^`]+)`", text)
    return "".join(
        f"``{part}``" if i % 2 else re.sub(r"([\\*_|`])", r"\\\1", part)
        for i, part in enumerate(parts)
    )


def kind(block):
    """What a block of a docstring is: "pycon" for an example, "none" for an indented one, else
    "text"."""
    rows = block.splitlines()
    if rows[0].lstrip().startswith(">>> "):
        return "pycon"
    return "none" if all(row.startswith("    ") for row in rows if row.strip()) else "text"


def paragraphs(block):
    """Text as lines of reStructuredText: list items and named arguments begin on lines of their
    own."""
    for row in block.splitlines():
        name = ARGUMENT.match(row)
        if ITEM.match(row):
            yield ""
        if row.startswith("- "):
            yield f"- {escaped(row[2:])}"
        elif name:
            yield f"**{escaped(name[1])}**{name[2]}{escaped(row[name.end() :])}"
        else:
            # rows that hang below an item of a list stay below it, others are one paragraph
            yield (row[:2] if row[:2].isspace() and row[2:3].strip() else "") + escaped(row.strip())


def restructured(lines):
    """The lines of a docstring as those of reStructuredText.

    Indented blocks (formulas, tables) and examples come out as they stand; the rest as paragraphs
    and lists.

    >>> print(*restructured(["Twice x.", "", "    2 · x_i", "", "x: a number"]), sep="|")
    |Twice x.||.. code-block:: none||   2 · x_i|||**x**: a number|
    >>> print(*restructured([">>> twice(1)", "2"]), sep="|")
    |.. code-block:: pycon||   >>> twice(1)|   2|
    """
    blocks = [block for block in re.split(r"\n(?:[ \t]*\n)+", "\n".join(lines)) if block.strip()]
    found = [""]
    for shape, some in itertools.groupby(blocks, kind):
        if shape == "text":
            for block in some:
                found += [*paragraphs(block), ""]
        else:
            text = textwrap.dedent("\n\n".join(some))
            found += [
                f".. code-block:: {shape}",
                "",
                *textwrap.indent(text, "   ").splitlines(),
                "",
            ]
    return found


def process(app, what, name, obj, options, lines):
    """Sphinx's event autodoc-process-docstring: the lines are changed in place."""
    lines[:] = restructured(lines)


def shorten(app, what, name, obj, options, signature, returns):
    """Sphinx's event autodoc-process-signature: what a configuration inherits is not listed."""
    long = signature is not None and signature.count(",") > 60
    return ("(output_dir, **settings)", returns) if long else None


def files(room):
    """The names of a room's files that have a page, in order."""
    return [path.stem for path in sorted(room.glob("*.py")) if path.stem not in PRIVATE]


def texts(path):
    """{name: the first line of its docstring} of a file; "" stands for the file itself."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    found = {item.name: ast.get_docstring(item) for item in module.body if hasattr(item, "name")}
    for item, after in itertools.pairwise(module.body):  # a constant's words stand below it
        words = after.value if isinstance(after, ast.Expr) else None
        if isinstance(item, ast.AnnAssign) and isinstance(words, ast.Constant):
            found[item.target.id] = str(words.value)
    found[""] = ast.get_docstring(module)
    return {name: text.splitlines()[0] for name, text in found.items() if text}


def public(package):
    """{room: [(name, file, whether it is within, line)]} of kd's names, as `__init__.pyi` has them.

    A whole module, as kd.metrics, is not within its file but the file itself.
    """
    rooms = {}
    for node in ast.parse((package / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            room, _, file = node.module.partition(".")
            for alias in node.names:
                within = file or alias.name
                line = texts(package / room / f"{within}.py")[alias.name if file else ""]
                rooms.setdefault(room, []).append((alias.name, within, bool(file), line))
    return rooms


def section(package, room, names):
    """A room on the list's page: what it is, a table of its short names, the pages of its files."""
    words = texts(package / room / "__init__.py")[""]
    text = f"\n{room}\n{'-' * len(room)}\n\n{escaped(words)}\n"
    if names:
        text += TABLE
    for name, file, within, line in sorted(names, key=lambda row: row[0].lower()):
        module = f"kdlab.{room}.{file}"
        role, address = ("obj", f"{module}.{name}") if within else ("mod", module)
        text += (
            f"   * - :py:{role}:`kd.{name} <{address}>`\n"
            f"     - ``{room}/{file}``\n"
            f"     - {escaped(line)}\n"
        )
    listing = "".join(f"   {room}.{file}\n" for file in files(package / room))
    return f"{text}\n.. toctree::\n   :maxdepth: 1\n\n{listing}"


def pages(folder):
    """Write the API's pages into `folder`: one for each file of the package, and the list by room.

    A file's page is named after its place, as losses.kd; the list has kd's short names.
    """
    folder.mkdir()
    package = ROOT / "kdlab"
    names = public(package)
    rooms = sorted(path.parent.name for path in package.glob("*/__init__.py"))
    for room in rooms:
        for file in files(package / room):
            title = f"kdlab.{room}.{file}"
            text = f"{title}\n{'=' * len(title)}\n\n.. automodule:: {title}\n   :members:\n"
            (folder / f"{room}.{file}.rst").write_text(text, encoding="utf-8")
    sections = "".join(section(package, room, names.get(room, [])) for room in rooms)
    (folder / "index.rst").write_text(INDEX + sections, encoding="utf-8")
