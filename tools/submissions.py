"""What students handed in: find the notebooks, read them whatever their state, and put them back
into order."""

import ast
import copy
import hashlib
import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from homework import grade_id, is_id
from nbformat.v4 import new_code_cell, new_markdown_cell

from kdlab.lessons.my_split import LONGEST, as_known

LARGEST = 50 * 2**20  # bytes
SKIPPED = {"__MACOSX", "__pycache__"}
NAME, ID = "STUDENT", r"hw\d+-id"  # what holds a student's id, and the cell where it is written
SAME, OTHER = "the same id in", "PEOPLE knows another id,"  # for the grader's eyes alone
LONGEST_CELL = 10_000  # characters of such a cell


@dataclass
class Submission:
    """One student's notebook for one homework; cells is None where there is nothing that can be
    graded."""

    student: str
    homework: str
    path: Path
    cells: list | None
    remarks: list = field(default_factory=list)


class UnreadableError(Exception):
    """The file is no notebook; the message says why."""


def read_cells(path):
    """[(kind, grade id or "", cell id, source, metadata)] of a notebook file, however odd. Raises
    UnreadableError."""
    if path.is_symlink() or not path.is_file():
        raise UnreadableError("a link or a special file, not a notebook")
    if path.stat().st_size > LARGEST:
        raise UnreadableError(f"larger than {LARGEST // 2**20} MB")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError):
        raise UnreadableError("not a notebook: it cannot be read as one") from None
    cells = content.get("cells") if isinstance(content, dict) else None
    if isinstance(content, dict) and isinstance(content.get("worksheets"), list):  # nbformat 3
        sheets = [sheet for sheet in content["worksheets"] if isinstance(sheet, dict)]
        cells = [cell for sheet in sheets for cell in sheet.get("cells") or ()]
    if not isinstance(cells, list) or not any(isinstance(cell, dict) for cell in cells):
        raise UnreadableError("not a notebook: it holds no cells")
    return [cell_of(cell) for cell in cells if isinstance(cell, dict)]


def cell_of(cell):
    """(kind, grade id, id, source, marks) of a cell as the file holds it, whatever it holds."""
    source = cell.get("source", cell.get("input", ""))  # "input" in nbformat 3
    source = (
        "".join(map(str, source))
        if isinstance(source, list)
        else source
        if isinstance(source, str)
        else ""
    )
    metadata = cell.get("metadata") if isinstance(cell.get("metadata"), dict) else {}
    marks = metadata.get("nbgrader") if isinstance(metadata.get("nbgrader"), dict) else {}
    identity = marks.get("grade_id") if isinstance(marks.get("grade_id"), str) else ""
    source = source.encode("utf-8", "replace").decode()  # a lone surrogate could not be written
    source = source.replace("\r\n", "\n").replace("\r", "\n")  # as an editor of Windows left it
    return (
        "code" if cell.get("cell_type") == "code" else "markdown",
        identity,
        cell.get("id"),
        source,
        marks,
    )


def find(directory, known):
    """Every submission under `directory`, and lines about files that are none: (submissions,
    lines).

    directory/<student>/…/<any name>.ipynb; known: the names of the homework there is.
    """
    found, lines = [], []
    for place in sorted(directory.iterdir()):
        if place.name.startswith(".") or place.name in SKIPPED:
            continue
        if not place.is_dir() or place.is_symlink():
            lines.append(f"{place.name}: lies in no student's folder, not graded")
            continue
        student, here = safe_name(place.name), []
        if student != unicodedata.normalize("NFC", place.name):
            lines.append(f"{place.name}: called {student} in the gradebook")
        files = [path for path in sorted(place.rglob("*")) if _counts(path, place)]
        notebooks = [path for path in files if path.suffix.lower() == ".ipynb"]
        for path in notebooks:
            here.append(_identified(path, student, place, known))
        if not notebooks:
            names = ", ".join(path.name for path in files[:3]) or "an empty folder"
            guess = _named(files[0] if files else place, place, known)
            here.append(
                Submission(student, guess, place, None, [f"no notebook handed in: {names}"])
            )
        found += _one_each(here)
    for one in found:
        asked = f"{one.homework}.ipynb"
        if one.cells is not None and one.path.name != asked:
            one.remarks.insert(0, f"renamed: {one.path.name}")
            lines.append(f"{one.path.relative_to(directory)}: taken as {one.homework}")
    return found, lines


def _counts(path, place):
    inside = path.relative_to(place).parts
    return (path.is_symlink() or not path.is_dir()) and not any(
        p.startswith(".") or p in SKIPPED for p in inside
    )


def safe_name(name):
    """A student's name that is safe in paths, in nbgrader's patterns and in a spreadsheet."""
    name = unicodedata.normalize("NFC", name)  # macOS writes é as e and an accent
    cleaned = re.sub(r"[^\w.@ +-]", "_", name)
    cleaned = cleaned if re.match(r"\w", cleaned) else f"_{cleaned}"
    return (
        cleaned if cleaned == name else f"{cleaned}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"
    )


def _named(path, place, known):
    """The homework that a file's name or folder speaks of, "" where none does."""
    spoken = re.findall(r"hw\d+", "/".join(reversed(path.relative_to(place).parts)).lower())
    return next(
        (name for name in spoken if name in known), next(iter(known)) if len(known) == 1 else ""
    )


def _identified(path, student, place, known):
    try:
        cells = read_cells(path)
    except UnreadableError as error:
        return Submission(
            student, _named(path, place, known), path, None, [f"{path.name}: {error}"]
        )
    spoken = Counter(
        m[0] for _, identity, _, _, _ in cells if (m := re.match(r"hw\d+(?=-)", identity))
    )
    homework = next((name for name, _ in spoken.most_common() if name in known), "")
    if not homework and not (homework := _named(path, place, known)):
        return Submission(
            student, "", path, None, [f"{path.name}: no cell of it belongs to a homework"]
        )
    return Submission(student, homework, path, cells)


def _one_each(found):
    """One submission for each homework: the newest, of two as new the one with the expected name.

    Times a second apart are as new: a copy of a folder has them so. A remark says what counts.
    """
    chosen = []
    for homework in sorted({one.homework for one in found}):
        mine = [one for one in found if one.homework == homework]
        times = {one.path: one.path.lstat().st_mtime for one in mine}
        newest = max(times[one.path] for one in [o for o in mine if o.cells is not None] or mine)
        mine.sort(
            key=lambda one: (
                one.cells is None,
                newest - times[one.path] > 1.5,
                one.path.name != f"{homework}.ipynb",
                -times[one.path],
                str(one.path),
            )
        )
        first, *others = mine
        if others and first.cells is not None:
            first.remarks.append(
                f"{len(mine)} files for {homework}: the newest, {first.path.name}, counts, not "
                + ", ".join(one.path.name for one in others)
            )
        elif others:
            first.remarks = [remark for one in mine for remark in one.remarks]
        chosen.append(first)
    return chosen


def id_of(cells):
    """The id that a submission's own cell holds, "" where there is none or it is no short text.

    cells: as `read_cells` gives them. It is read, never run; of several the last counts."""
    sources = [
        source
        for _, identity, other, source, _ in cells
        if re.fullmatch(ID, identity or str(other))
    ]
    for source in reversed(sources):
        try:
            nodes = ast.parse(source[:LONGEST_CELL]).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in reversed(nodes):
            if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == [NAME]:
                value = getattr(node.value, "value", "")
                value = str(value) if type(value) in (str, int) else ""
                return value.strip() if len(value) <= LONGEST else ""
    return ""


def same_ids(found, people):
    """Remark on each submission whose id another student's holds too, or that isn't its student's.

    people: {student: {"id": …}}, of those whose ids are known."""
    users = {}
    for one in found:
        if one.cells is not None and (given := as_known(id_of(one.cells))):
            users.setdefault((one.homework, given), []).append(one)
    for (_, given), several in users.items():
        for one in several:
            if others := [other.student for other in several if other is not one]:
                one.remarks.append(f"{SAME} {_list(others)}")
            told = str(people.get(one.student, {}).get("id") or "")
            if told and as_known(told[:LONGEST]) != given:
                one.remarks.append(f"{OTHER} {told}")


def restored(reference, released, cells):
    """The submission in the reference's order, with the reference's checks and the student's
    answers.

    reference: the settled instructor notebook; released: what the student was given; cells: as
    `read_cells` gives them. Returns (notebook, remarks). A student's own cells stay, after the cell
    they stood behind."""
    marked = {grade_id(cell): cell for cell in released.cells if grade_id(cell)}
    answers, own = _told_apart(reference, released, marked, cells)
    student = id_of(cells)
    notebook = _in_order(reference, marked, answers, own, student)
    remarks = _remarks(reference, marked, answers)
    if any(is_id(cell) for cell in reference.cells):
        remarks.append(f"data of the id {student!r}" if student else "no id: the data of everybody")
    return notebook, remarks


def _told_apart(reference, released, marked, cells):
    """({grade id: [(source, marks)]}, {place: [cell]}): what stands where something was given out,
    and the student's own cells, by the cell of the reference that they stood behind, -1 for none.
    """
    prose = {cell.source.strip() for cell in released.cells if not grade_id(cell)}
    places = {grade_id(cell) or cell.get("id"): i for i, cell in enumerate(reference.cells)}
    # a cell keeps its id where its metadata were stripped
    by_id = {cell.get("id"): grade_id(cell) for cell in released.cells if grade_id(cell)}
    answers, own, place = {}, {}, -1
    for kind, identity, other, source, marks in cells:
        other = other if isinstance(other, str) else None
        key = identity if identity in marked else by_id.get(other)
        key = other if key is None and other in places else key
        if key in marked:
            place = places[key]
            answers.setdefault(key, []).append((source, marks))
        elif kind == "markdown" and source.strip() in prose or key is not None:
            place = places.get(key, place)
        elif source.strip():
            cell = new_code_cell(source) if kind == "code" else new_markdown_cell(source)
            own.setdefault(place, []).append(cell)
    return answers, own


def _in_order(reference, marked, answers, own, student):
    """The reference's notebook with the answers in it, and the student's own cells between."""
    notebook = reference.copy()
    notebook.cells = own.get(-1, [])
    for i, cell in enumerate(reference.cells):
        cell = cell.copy()
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if is_id(cell):
            cell.source = f"{NAME} = {student!r}"
        if grade_id(cell) and cell.metadata.nbgrader.get("solution"):
            _fill_in(cell, marked[grade_id(cell)], answers.get(grade_id(cell), []))
        notebook.cells += [cell, *own.get(i, [])]
    return notebook


def _fill_in(cell, stub, found):
    """Put what a student wrote into a cell; stub: the cell as it was handed out."""
    cell.source = _answer([source for source, _ in found], stub.source)
    if stub.cell_type == "markdown":
        # what a person reads: nbgrader gives 0 by itself where it is as it was handed out
        cell.metadata = copy.deepcopy(cell.metadata)
        cell.metadata.nbgrader["checksum"] = stub.metadata.nbgrader.get("checksum")


def _answer(sources, stub):
    """The last version of an answer that was changed."""
    changed = [source for source in sources if source.strip() not in ("", stub.strip())]
    return (changed or sources or [stub])[-1]


def _remarks(reference, marked, answers):
    given = {key: cell.source for key, cell in marked.items()}
    points = {key: cell.metadata.nbgrader.get("points") for key, cell in marked.items()}
    solutions = {
        grade_id(c) for c in reference.cells if grade_id(c) and c.metadata.nbgrader.get("solution")
    }
    missing = [key for key in given if key not in answers]
    twice = [key for key, found in answers.items() if len(found) > 1]
    whole = {grade_id(c): c.source.strip() for c in reference.cells}
    changed = [
        key
        for key, found in answers.items()
        if key not in solutions
        and not re.fullmatch(ID, key)
        and any(source.strip() not in (given[key].strip(), whole[key]) for source, _ in found)
    ]
    raised = [
        key
        for key, found in answers.items()
        if points[key] is not None
        and any(marks.get("points", points[key]) != points[key] for _, marks in found)
    ]
    remarks = []
    if not answers:
        remarks.append(
            "none of its cells carries a grade id: was the release edited outside Jupyter?"
        )
    elif missing:
        remarks.append(f"deleted and put back: {_list(missing)}")
    if len(changed) > max(3, len(given) // 3):
        remarks.append(
            "many changed checks: was it made from another release, or with another secret?"
        )
    for what, keys in (
        ("duplicated, the last changed one counts", twice),
        ("changed but locked, the original was run", changed),
        ("points changed, which does nothing", raised),
    ):
        remarks += [f"{what}: {_list(keys)}"] if keys else []
    return remarks


def _list(names):
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
