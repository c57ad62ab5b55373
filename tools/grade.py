"""Grade a folder of submissions: python tools/grade.py DIR [--out DIR] [--limit S] [--total S]
[--jobs N] [--strict] [--people CSV] [--deadline TIME]

DIR/<student>/…/<any name>.ipynb, or a learning platform's zip → a gradebook (SQLite, nbgrader's),
grades.csv, gradebook.csv and HTML feedback in build/grading/. This runs the students' code: in
bubblewrap where the system has it; see docs/grading.md."""

import argparse
import hashlib
import html
import json
import logging
import os
import re
import signal
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import lean  # isort: skip  # noqa: F401
import assets
import nbformat
import sandbox
from homework import (
    HOMEWORK,
    HomeworkError,
    grade_id,
    instructors,
    is_id,
    release,
    the_secret,
    variant,
)
from lms import ArchiveError, gather
from marking import Limits, mark, stop
from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbformat.v4 import new_markdown_cell
from nbgrader.api import MissingEntry
from nbgrader.converters import Autograde, GenerateAssignment, GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import CheckCellMetadata, GetGrades, OverwriteKernelspec, SaveAutoGrades
from runner import ROOT, read, write
from sqlalchemy.exc import SAWarning
from submissions import OTHER, SAME, find, restored, same_ids
from tables import GradingError, days_late, gradebook, read_people, table, wide
from traitlets.config import Config

TAG = re.compile(r"<(?=[A-Za-z/!?])")
SCRIPT_LINK = re.compile(r'href="(?!https?:|mailto:|#)[^"]*:[^"]*"', re.IGNORECASE)
REMARKS = "remarks.json"
GRADED = "graded.json"  # student → homework → what was graded; only what was graded to its end
UNDER_WAY = "under_way.json"  # the submission that has no grade yet
# a CDN's
MATHJAX = re.compile(
    r"<!-- Loading mathjax macro -->.*?<!-- End of mathjax configuration -->", re.DOTALL
)


def course(out, student, homework):
    """nbgrader's view of one submission below `out`."""
    config = Config()
    config.CourseDirectory.update(root=str(out), student_id=student, assignment_id=homework)
    return {
        "coursedir": CourseDirectory(config=config),
        "config": config,
        "log": logging.getLogger("kdlab.grading"),
    }


def prepare(out, name, settled):
    """Put one homework into the gradebook, hidden tests and all."""
    source = out / "source" / name / f"{name}.ipynb"
    with gradebook(out) as book:
        try:
            earlier = book.find_notebook(name, name)
            before = {cell.name for cell in earlier.source_cells}, len(earlier.submissions)
        except MissingEntry:
            before = set(), 0
    # nbgrader keeps no cell that is neither locked nor an answer
    now = {grade_id(cell) for cell in settled.cells if grade_id(cell) and not is_id(cell)}
    if before[1] and before[0] != now:
        raise GradingError(
            f"{name} has other cells than when {before[1]} submissions were graded into"
            f" {_short(out)}/ (another secret?): use another OUT="
        )
    if before[1] and source.exists() and read(source) != settled:
        print(
            f"{name} has changed since it was graded into {_short(out)}/ (another secret?): earlier"
            " grades stay"
        )
    source.parent.mkdir(parents=True, exist_ok=True)
    write(settled, source)
    maker = GenerateAssignment(**course(out, ".", name))
    maker.force = True
    maker.start()


def marked(one, reference, released, limits):
    """Run one submission: (the notebook put back into order and executed, remarks)."""
    notebook, remarks = restored(reference, released, one.cells)
    return notebook, remarks + mark(notebook, reference, limits)


def grade(out, one, released, marked_when_asked):
    """Write the grades and the feedback of one submission; what came to light is added to its
    remarks.

    marked_when_asked: a function that returns what `marked` does."""
    known, under_way = _known(out, one), out / UNDER_WAY
    if not known:
        _write_json(under_way, [one.student, one.homework])
    try:
        notebook, remarks = marked_when_asked()
        one.remarks += remarks
        place = out / f"submitted/{one.student}/{one.homework}/{one.homework}.ipynb"
        place.parent.mkdir(parents=True, exist_ok=True)
        write(notebook, place)
        _into_gradebook(out, one, notebook)
    except BaseException:
        no_empty_grade(out)
        raise
    under_way.unlink(missing_ok=True)
    feedback(out, one, released)


def _into_gradebook(out, one, executed):
    def run(notebook, resources):
        for cell, done in zip(notebook.cells, executed.cells, strict=True):
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = done.outputs, done.execution_count
        return notebook, resources

    grader = Autograde(**course(out, one.student, one.homework))
    grader.force = True
    grader.sanitize_preprocessors = [OverwriteKernelspec, CheckCellMetadata]
    grader.autograde_preprocessors = [run, SaveAutoGrades, CheckCellMetadata]
    grader.start()


def no_empty_grade(out):
    """Take back a grade that was begun and not ended, by an error or because the run was killed."""
    under_way = out / UNDER_WAY
    if not under_way.exists():
        return
    student, homework = json.loads(under_way.read_text(encoding="utf-8"))
    with gradebook(out) as book:
        book.update_or_create_student(student)
        book.update_or_create_submission(homework, student)
        book.remove_submission(homework, student)
    under_way.unlink()


def _known(out, one):
    with gradebook(out) as book:
        try:
            return book.find_submission(one.homework, one.student)
        except MissingEntry:
            return None


def feedback(out, one, released):
    """nbgrader's HTML feedback, with the remarks on top, without hidden tests and without their
    tracebacks."""
    seen = {grade_id(cell): cell.source for cell in released.cells if grade_id(cell)}

    ours = {cell.source for cell in released.cells}

    def told(notebook, resources):
        for cell in notebook.cells:
            if cell.cell_type == "markdown" and cell.source not in ours:
                cell.source = TAG.sub("&lt;", cell.source)  # a student's words run no script
            if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
                cell.source = seen[grade_id(cell)]
                for output in cell.outputs:
                    if output.output_type == "error":
                        output.traceback = [f"{output.ename}: {output.evalue}"]
        theirs = [remark for remark in one.remarks if not remark.startswith((SAME, OTHER))]
        if theirs:
            lines = "".join(f"<li>{html.escape(remark)}</li>" for remark in theirs)
            notebook.cells.insert(0, new_markdown_cell(f"**Remarks**\n\n<ul>{lines}</ul>"))
        return notebook, resources

    maker = GenerateFeedback(**course(out, one.student, one.homework))
    maker.force = True
    maker.preprocessors = [GetGrades, told, CSSHTMLHeaderPreprocessor]
    maker.config.HTMLExporter.sanitize_html = True
    maker.start()
    page = out / f"feedback/{one.student}/{one.homework}/{one.homework}.html"
    text = SCRIPT_LINK.sub('href="#"', page.read_text(encoding="utf-8"))
    text = MATHJAX.sub(lambda _: _formulas(), text)
    page.write_text(text, encoding="utf-8")


def _formulas():
    """MathJax itself, to be written into a page: it shows formulas wherever it is opened."""
    try:
        folder = assets.folder(*assets.MATHJAX)
    except SystemExit:  # it is not installed: formulas stay as they were typed
        return ""
    script = (folder / "tex-svg.js").read_text(encoding="utf-8").replace("</script", r"<\/script")
    setting = "window.MathJax = {tex: {inlineMath: [['$', '$']], processEscapes: true}};"
    return f"<script>{setting}</script>\n<script>{script}</script>"


def _short(path):
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _quiet(out):
    """What nbgrader has to say goes to a file."""
    warnings.filterwarnings("ignore", category=SAWarning)
    log = logging.getLogger("kdlab.grading")
    log.propagate = False
    log.handlers[:] = [logging.FileHandler(out / "grading.log", mode="w", encoding="utf-8")]


def save(out, one, remarks):
    remarks.setdefault(one.student, {})[one.homework] = one.remarks
    _write_json(out / REMARKS, remarks)


def _write_json(path, content):
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    new.replace(path)


def _read_json(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def what_is_graded(one, reference, limits):
    """A hash of the submission, of the homework it answers, and of the limits."""
    parts = [one.path.read_bytes(), nbformat.writes(reference).encode(), repr(limits).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def run(
    submitted,
    out,
    limits,
    strict=False,
    instructor=HOMEWORK / "instructor",
    people=None,
    deadline=None,
    again=False,
    jobs=1,
):
    """Grade every submission of a folder or an archive into `out`. Raises GradingError and
    HomeworkError."""
    _check(submitted, out)
    # for alembic
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    )
    known, secret = instructors(instructor), the_secret()
    limits.inside = _sandboxed(strict)
    known_people = read_people(people)
    found = _found(submitted, out, known)
    same_ids(found, known_people)
    out.mkdir(parents=True, exist_ok=True)
    _quiet(out)
    _after_a_killed_run(out)
    names = sorted({one.homework for one in found if one.cells is not None})
    references = {name: variant(read(known[name]), name, secret) for name in names}
    for name, settled in references.items():
        prepare(out, name, settled)
    remarks = _read_json(out / REMARKS)
    try:
        _grade(out, found, remarks, references, limits, again, jobs)
    finally:
        wide(out, table(out, remarks), known_people, days_late(found, deadline))
    print(
        f"{len(found)} submissions: {_short(out)}/grades.csv, feedback in {_short(out)}/feedback/"
    )


def _check(submitted, out):
    """Raise GradingError for places that can't be read or written."""
    if not submitted.is_dir() and submitted.suffix.lower() != ".zip":
        raise GradingError(
            "SUBMITTED: expected a folder with a folder for each student, or a platform's .zip, "
            f"got {submitted}"
        )
    if re.search(r"[\[\]*?{}]", str(out)):
        raise GradingError(f"OUT: nbgrader takes none of []*?{{}} in a path, got {out}")


def _sandboxed(strict):
    """Say whether students' code runs in a sandbox; GradingError where it must and can't."""
    barred = sandbox.why_not()
    print(
        "Grading runs the students' code. "
        + (
            f"NO SANDBOX: {barred}."
            if barred
            else "Their kernels run in bubblewrap: no network, no sight of this folder."
        ),
        flush=True,
    )
    if barred and strict:
        raise GradingError("STRICT=1 and no sandbox: nothing was run")
    return not barred


def _found(submitted, out, known):
    """The submissions of a folder or an archive; what is odd about them is printed."""
    try:
        directory, odd = gather(submitted, out / "submitted")
    except ArchiveError as error:
        raise GradingError(f"SUBMITTED: {error}") from None
    found, lines = find(directory, known)
    lines = [*odd, *lines]
    print(*lines, sep="\n", end="\n" * bool(lines), flush=True)
    if not found:
        raise GradingError(f"SUBMITTED: no student's folder in {submitted}")
    return found


def _after_a_killed_run(out):
    """Say what was being graded when an earlier run was killed, and leave no empty grade of it."""
    if (out / UNDER_WAY).exists():
        student, homework = _read_json(out / UNDER_WAY)
        print(f"{student} {homework}: an earlier run was killed while it was graded", flush=True)
        no_empty_grade(out)


def _grade(out, found, remarks, references, limits, again, jobs):
    """Grade one submission after another and say how far it is; those graded before stay so."""
    graded, todo = _read_json(out / GRADED), []
    for one in found:
        now = one.cells and what_is_graded(one, references[one.homework], limits)
        before = graded.get(one.student, {}).get(one.homework)
        todo.append((one, now, bool(now) and now == before and not again))
    released = {name: release(settled) for name, settled in references.items()}
    run_them = [one for one, now, done in todo if now and not done]
    began = time.monotonic()
    with _ahead(run_them, references, released, limits, jobs) as ask:
        for number, (one, now, done) in enumerate(todo, start=1):
            graded.get(one.student, {}).pop(one.homework, None)
            if done:
                one.remarks = remarks[one.student][one.homework]
            else:
                now = now if _one(out, one, released, ask) else None
                save(out, one, remarks)
            if now:
                graded.setdefault(one.student, {})[one.homework] = now
            _write_json(out / GRADED, graded)
            left = (time.monotonic() - began) / number * (len(found) - number) / 60
            score = table(out, remarks)[one.student, one.homework]
            _say(f"{number} of {len(found)}, {left:.0f} min left", one, score, done)


def _say(progress, one, score, done):
    points = f"{score['total']} of {score['max']}" if score["max"] else "no points"
    print(
        f"{progress}  {one.student:<20} {one.homework:<5} {points:<12} {'; '.join(one.remarks)}"
        f"{'  (graded before)' if done else ''}",
        flush=True,
    )


@contextmanager
def _ahead(submissions, references, released, limits, jobs):
    """A function that runs a submission, or waits for it where several run at a time."""

    def run(one):
        return marked(one, references[one.homework], released[one.homework], limits)

    if jobs == 1:
        yield run
        return
    with ThreadPoolExecutor(jobs) as pool:
        running = {id(one): pool.submit(run, one) for one in submissions}
        try:
            yield lambda one: running[id(one)].result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def _one(out, one, released, ask):
    """Grade one submission; True where it was graded to its end."""
    if one.cells is None:
        if _known(out, one):
            one.remarks.append("the earlier grade stays")
        return False
    try:
        grade(out, one, released[one.homework], lambda: ask(one))
    except Exception as error:  # whatever it is, the others are graded
        logging.getLogger("kdlab.grading").exception(one.student)
        one.remarks.append(f"could not be graded ({type(error).__name__}; see grading.log)")
        return False
    return True


def _stop(*_):
    """A run that is asked to end (SIGTERM) ends as by Ctrl-C."""
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("submitted", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "grading")
    parser.add_argument("--limit", type=int, default=30, help="seconds a cell")
    parser.add_argument(
        "--total", type=int, help="seconds a submission; ten times --limit where not given"
    )
    # what `make grade JOBS=2` says is in the environment
    parser.add_argument(
        "--jobs", type=int, default=os.environ.get("JOBS") or 1, help="submissions at a time"
    )
    parser.add_argument("--strict", action="store_true", help="refuse to run without a sandbox")
    parser.add_argument("--people", type=Path, help="a CSV: student, id, email")
    parser.add_argument(
        "--deadline", type=datetime.fromisoformat, help="2026-11-30T23:59: days late are counted"
    )
    parser.add_argument("--again", action="store_true", help="also what was graded before")
    parser.add_argument(
        "--instructor", type=Path, default=HOMEWORK / "instructor", help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        limits = Limits(options.limit, options.total or 10 * options.limit)
        run(
            options.submitted.resolve(),
            options.out.resolve(),
            limits,
            options.strict,
            options.instructor.resolve(),
            options.people,
            options.deadline,
            options.again,
            max(1, options.jobs),
        )
    except (GradingError, HomeworkError) as error:
        return f"make grade: {error}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(
            "\nInterrupted: the submissions listed above are graded; run it again for the others."
        )
