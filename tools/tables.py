"""What is graded as tables: grades.csv, every question and remark, and gradebook.csv to import."""

import csv
import math
import re

from nbgrader.api import Gradebook
from submissions import safe_name


class GradingError(Exception):
    """The run cannot go on; the message says what to change."""


def gradebook(out):
    return Gradebook(f"sqlite:///{out / 'gradebook.db'}")


def table(out, remarks):
    """Write grades.csv from the gradebook and the remarks; nothing half-written is left."""
    rows, questions, most = {}, set(), {}
    with gradebook(out) as book:
        for assignment in book.assignments:
            most[assignment.name] = f"{assignment.max_score:g}"
            for submission in book.assignment_submissions(assignment.name):
                row = {"total": f"{submission.score:g}", "max": f"{submission.max_score:g}"}
                for grade in (g for notebook in submission.notebooks for g in notebook.grades):
                    number = int(re.search(r"-q(\d+)", grade.name)[1])
                    questions.add(number)
                    row[number] = row.get(number, 0) + grade.score
                    if grade.needs_manual_grade:
                        row.setdefault("waiting", []).append((number, grade.max_score))
                rows[submission.student.id, assignment.name] = row
    for student, said in remarks.items():
        for homework, lines in said.items():
            row = rows.setdefault(
                (student, homework), {"total": "0", "max": most.get(homework, "")}
            )
            row["remark"] = "; ".join(lines)
    for row in rows.values():
        for number, points in row.pop("waiting", []):
            told = f"q{number}: {points:g} points wait for a person"
            row["remark"] = "; ".join(filter(None, [row.get("remark"), told]))
    head = ["student", "homework", "total", "max", *(f"q{n}" for n in sorted(questions)), "remark"]
    lines = []
    for (student, homework), row in sorted(rows.items()):
        points = [f"{row[n]:g}" if n in row else "" for n in sorted(questions)]
        said = row.get("remark", "")
        lines.append([student, homework, row["total"], row["max"], *points, said])
    _write_csv(out / "grades.csv", [head, *lines])
    return rows


def wide(out, rows, people, late):
    """Write gradebook.csv to import: a row a student, a column a homework, days late beside it."""
    homework = sorted({name for _, name in rows if name})
    head = ["id", "student", "email"]
    for name in homework:
        head += [name, *([f"{name} days late"] if late is not None else [])]
    lines = []
    for student in sorted({student for student, _ in rows}):
        known = people.get(student, {})
        line = [known.get("id", ""), student, known.get("email", "")]
        for name in homework:
            line.append(rows.get((student, name), {}).get("total", ""))
            if late is not None:
                line.append(late.get((student, name), ""))
        lines.append(line)
    _write_csv(out / "gradebook.csv", [head, *lines])


def _write_csv(path, rows):
    """Marked as UTF-8, whole or not at all, and without formulas: a student chooses a file's name,
    and a spreadsheet runs what begins with =, +, - or @."""
    new = path.with_name(path.name + ".new")
    with new.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([_plain(value) for value in row] for row in rows)
    new.replace(path)


def _plain(value):
    return f"'{value}" if str(value)[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def read_people(path):
    """{student: {"id", "email"}} from a CSV with the columns student, id and email."""
    if path is None:
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            found = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise GradingError(f"PEOPLE: expected a CSV file, got {path} ({error})") from None
    if not found or not {"student", "id"} <= set(found[0]):
        columns = sorted(found[0]) if found else []
        raise GradingError(
            f"PEOPLE: expected a CSV with the columns student, id and email, got {columns}"
        )
    return {safe_name(row["student"]): row for row in found}


def days_late(found, deadline):
    """{(student, homework): days begun after the deadline, 0 where in time}; None without one."""
    if deadline is None:
        return None
    limit = deadline.timestamp()
    return {
        (one.student, one.homework): max(0, math.ceil((one.path.lstat().st_mtime - limit) / 86400))
        for one in found
    }
