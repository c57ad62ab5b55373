"""Make the student homework from the instructor's: python tools/homework.py [hw1 ...]

Without a secret the committed student notebooks are written. With SECRET in the environment (make
homework SECRET=…) an instructor's own variant goes to build/homework/: other constants and other
items, its hidden tests only there."""

import ast
import hashlib
import hmac
import os
import re
import sys

import lean  # isort: skip  # noqa: F401
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)
from runner import ROOT, read, write

HOMEWORK = ROOT / "notebooks" / "homework"
# nbgrader's own order: checksums again after the hidden tests are gone
STEPS = (
    LockCells,
    ClearSolutions,
    ClearOutput,
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ComputeChecksums,
    CheckCellMetadata,
)
LINE = re.compile(r"^(\s*)([A-Za-z_]\w*) = (.+?)\s*# secret:(.*)$")
SHORTEST = 12  # characters: a shorter secret could be found by trying all


class HomeworkError(Exception):
    """An instructor notebook that cannot be released; the message names the notebook, the cell and
    the fault."""


def grade_id(cell):
    """A cell's grade id, or ""."""
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def is_id(cell):
    """Whether it is the cell where a student writes an id, which draws their own data."""
    return re.fullmatch(r"hw\d+-id", grade_id(cell)) is not None


def draw(secret, name):
    """A large number that only the secret's owner can foretell, the same each time for the same
    name."""
    return int.from_bytes(hmac.new(secret.encode(), name.encode(), hashlib.sha256).digest(), "big")


def short(secret):
    """Eight characters that tell one secret's files from another's."""
    return f"{draw(secret, 'folder') % 16**8:08x}"


def variant(notebook, name, secret=None):
    """The instructor's notebook with its secret lines and pools settled: what is released and
    graded.

    notebook: the instructor's, left as it was. name: "hw1". Raises HomeworkError.
    """
    notebook = notebook.copy()
    notebook.cells = [cell.copy() for cell in notebook.cells]
    for cell in notebook.cells:
        if "# secret" in cell.source:
            lines = cell.source.split("\n")
            cell.source = "\n".join(
                _settled(line, name, f"{name}, {grade_id(cell)}", secret) for line in lines
            )
    notebook.cells = _drawn(notebook.cells, name, secret)
    return notebook


def _settled(line, name, where, secret):
    if "# secret" not in line:
        return line
    found = LINE.match(line)
    try:
        indent, target, literal, rule = found.groups()
        value, choices = ast.literal_eval(literal), _choices(rule)
    except (AttributeError, ValueError, SyntaxError):
        raise HomeworkError(
            f"{where}: expected 'NAME = literal  # secret: 1..99' or '# secret: 2.0, 3.0', "
            f"got {line.strip()!r}"
        ) from None
    if value not in choices:
        raise HomeworkError(f"{where}: {target} = {literal} is none of its own choices,{rule}")
    if secret:
        others = (
            [choice for choice in choices if choice != value] if len(choices) < 1000 else choices
        )
        value = others[draw(secret, f"{name}/{target}") % len(others)]
        literal = repr(value)
    return f"{indent}{target} = {literal}"


def _choices(rule):
    """A range or a list with at least two different values. Raises ValueError or SyntaxError."""
    span = re.fullmatch(r"\s*(-?\d+)\.\.(-?\d+)\s*", rule)
    found = (
        range(int(span[1]), int(span[2]) + 1)
        if span
        else list(ast.literal_eval(f"[{rule.strip()}]"))
    )
    if len(found) < 2 or not span and len({repr(choice) for choice in found}) != len(found):
        raise ValueError(rule)
    return found


def _drawn(cells, name, secret):
    """The cells with each pool cut down to the items it keeps; the i-th item stands where the i-th
    one stood."""
    items, keeps = {}, {}  # pool → item → the places of its cells
    for i, cell in enumerate(cells):
        mark = cell.metadata.get("kdlab", {})
        if "pool" in mark:
            items.setdefault(mark["pool"], {}).setdefault(mark.get("item"), []).append(i)
            keeps.setdefault(mark["pool"], set()).add(mark.get("keep"))
    groups, inside = {}, {i for pool in items.values() for places in pool.values() for i in places}
    for pool, found in items.items():
        keep = _keep(name, pool, found, keeps[pool], cells)
        chosen = list(found)
        if secret:
            chosen.sort(key=lambda item, pool=pool: draw(secret, f"{name}/{pool}/{item}"))
        slots = [places[0] for places in found.values()]
        groups |= {slot: found[item] for slot, item in zip(slots, chosen[:keep], strict=False)}
    order = [j for i in range(len(cells)) for j in groups.get(i, [] if i in inside else [i])]
    return [cells[i] for i in order]


def _keep(name, pool, items, keeps, cells):
    keep = next(iter(keeps))
    if len(keeps) != 1 or not isinstance(keep, int) or not 1 <= keep <= len(items):
        raise HomeworkError(
            f"{name}: pool {pool!r} has {len(items)} items and keeps {sorted(map(str, keeps))}; "
            f"expected one whole number from 1 to {len(items)}"
        )
    points = {
        item: sum(cells[i].metadata.nbgrader.get("points", 0) for i in places if grade_id(cells[i]))
        for item, places in items.items()
    }
    if len(set(points.values())) != 1:
        raise HomeworkError(
            f"{name}: the items of pool {pool!r} must carry equal points, got {points}"
        )
    for item, places in items.items():
        if places != list(range(places[0], places[0] + len(places))):
            raise HomeworkError(
                f"{name}: the cells of item {item!r} of pool {pool!r} must stand together"
            )
    return keep


def release(notebook):
    """What a student gets of a settled instructor notebook: no solutions, no hidden tests,
    checksums."""
    notebook, resources = notebook.copy(), {}
    notebook.cells = [cell.copy() for cell in notebook.cells]
    for cell in notebook.cells:
        cell.metadata = cell.metadata.copy()
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader = cell.metadata.nbgrader.copy()
        cell.metadata.pop("kdlab", None)
    for step in STEPS:
        try:
            notebook, resources = step().preprocess(notebook, resources)
        except Exception as error:
            raise HomeworkError(f"{step.__name__}: {error}") from error
    return notebook


def instructors(directory=HOMEWORK / "instructor"):
    """{"hw1": the path of its instructor notebook, …} in order. Raises HomeworkError where there
    are none."""
    found = {
        path.stem: path
        for path in sorted(directory.glob("hw*/hw*.ipynb"))
        if path.parent.name == path.stem
    }
    if not found:
        raise HomeworkError(f"no hwN/hwN.ipynb in {directory}")
    return found


def the_secret():
    """SECRET of the environment, None where there is none. Raises HomeworkError where it is too
    short."""
    secret = os.environ.get("SECRET", "").strip()
    if secret and len(secret) < SHORTEST:
        raise HomeworkError(
            f"SECRET: expected at least {SHORTEST} characters, got {len(secret)}; for example\n  "
            'python -c "import secrets; print(secrets.token_hex(16))"'
        )
    return secret or None


def main(names):
    try:
        secret, known = the_secret(), instructors()
        if unknown := set(names) - set(known):
            raise HomeworkError(
                f"no such homework: {', '.join(sorted(unknown))}; there are {', '.join(known)}"
            )
        settled = {name: variant(read(known[name]), name, secret) for name in names or known}
        released = {name: release(notebook) for name, notebook in settled.items()}
    except HomeworkError as error:
        return f"make homework: {error}"
    target = ROOT / "build" / "homework" / short(secret) if secret else HOMEWORK
    kinds = {"instructor": settled, "student": released} if secret else {"student": released}
    for kind, notebooks in kinds.items():  # all of them could be made: now they are written
        for name, notebook in notebooks.items():
            (target / kind / name).mkdir(parents=True, exist_ok=True)
            write(notebook, target / kind / name / f"{name}.ipynb")
    print(f"{len(released)} homework in {(target / 'student').relative_to(ROOT)}/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
