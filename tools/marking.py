"""Run one submission, cell by cell, and say which checks passed: a check counts only when it ran to
its end.

Whatever a submission does to its kernel costs at most the time limits and the questions where it
does it."""

import ast
import base64
import builtins
import math
import re
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import sandbox
from homework import grade_id
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat.v4 import new_code_cell, new_notebook, new_output

GUARD = Path(__file__).with_name("guard.py").read_text(encoding="utf-8")
CONTEXT_SECONDS = 300  # for the instructor's own cells, on however busy a machine
GUARD_SECONDS = 10  # restoring takes a fraction of one
LARGEST_OUTPUT = 200_000  # characters of one cell
LOSSES = 2  # how often one question, or the student's own cells, may cost the kernel


@dataclass
class Limits:
    """Seconds a cell, seconds a submission, and whether its kernel runs in bubblewrap."""

    cell: int = 30
    total: int = 300
    inside: bool = False


class Client(NotebookClient):
    """nbclient, with an end to what one cell may print."""

    printed = 0

    def output(self, outs, msg, display_id, cell_index):
        self.printed += len(str(msg["content"]))
        return (
            super().output(outs, msg, display_id, cell_index)
            if self.printed < LARGEST_OUTPUT
            else None
        )


class Session:
    """One kernel in a scratch directory of its own, with the reference's setup and the guard."""

    def __init__(self, setup, names, limits):
        self.token, self.stack = f"_{secrets.token_hex(8)}", ExitStack()
        try:
            scratch = self.stack.enter_context(sandbox.scratch_directory())
            manager = sandbox.kernel_manager(scratch, limits.inside)
            self.client = Client(
                new_notebook(),
                km=manager,
                startup_timeout=120,
                record_timing=False,
                resources={"metadata": {"path": str(scratch / "work")}},
                shutdown_kernel="immediate",
                extra_arguments=[
                    "--IPKernelApp.log_level=CRITICAL",
                    "--HistoryManager.hist_file=:memory:",
                ],
            )
            self.stack.callback(sandbox.kill, manager)
            self.stack.enter_context(
                self.client.setup_kernel(env=sandbox.environment(scratch), cleanup_kc=True)
            )
            for cell in setup:
                self.run(cell, CONTEXT_SECONDS)
            self.run_quietly(f"exec({GUARD!r}, {{'token': {self.token!r}}})", CONTEXT_SECONDS)
            self.keep(names)
        except BaseException:
            self.stack.close()
            raise

    def run(self, cell, seconds):
        """ "ok", "error", "time" or "lost"; the outputs are in the cell."""
        self.client.timeout, self.client.printed, self.client.nb.cells = (
            max(1, math.ceil(seconds)),
            0,
            [cell],
        )
        try:
            self.client.execute_cell(cell, 0, execution_count=None)
        except CellExecutionError:
            return "error"
        except CellTimeoutError:
            return "time"
        except Exception:  # a dead kernel, or one that no longer speaks the protocol
            return "lost"
        return "ok"

    def run_quietly(self, source, seconds=GUARD_SECONDS):
        return self.run(new_code_cell(source), seconds)

    def keep(self, names):
        self.run_quietly(f"__import__('sys').modules[{self.token!r}].keep({sorted(names)!r})")

    def restore(self, names, dropped):
        call = (
            f"__import__('sys').modules[{self.token!r}].restore({sorted(names)!r},"
            f" {sorted(dropped)!r})"
        )
        return self.run_quietly(call)

    def close(self):
        self.stack.close()


def bound(source):
    """The names that a cell's top level defines."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        else:
            found |= {
                name.id
                for name in ast.walk(node)
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            }
    return found


def question(cell):
    """ "hw1-q2" for a cell of question 2, "" for any other."""
    found = re.match(r"hw\d+-q\d+(?=-|$)", grade_id(cell))
    return found[0] if found else ""


def kind(cell):
    marks = cell.metadata.get("nbgrader", {})
    return (
        "own"
        if not grade_id(cell)
        else "answer"
        if marks.get("solution")
        else "check"
        if marks.get("grade")
        else "context"
    )


def mark(notebook, reference, limits):
    """Execute a restored submission in place; every check cell then holds an error unless it
    passed. → remarks.

    reference: the settled instructor notebook, which says what names the checks may rely on.
    """
    code = [cell for cell in reference.cells if cell.cell_type == "code" and grade_id(cell)]
    free = set().union(*(bound(cell.source) for cell in code if kind(cell) == "answer"))
    context = {
        grade_id(cell): bound(cell.source) - free for cell in code if kind(cell) == "context"
    }
    setup = [cell for cell in notebook.cells if kind(cell) == "context" and not question(cell)]
    session, spent, losses, barred, replay, remarks = None, 0.0, {}, set(), [], []
    names = set().union(*(context[grade_id(cell)] for cell in setup))
    cells, place = (
        [cell for cell in notebook.cells if cell.cell_type == "code" and cell not in setup],
        "",
    )
    for cell in cells:
        if kind(cell) == "check":
            _refuse(cell, "NotRun", "this check was not run")
    try:
        for cell in cells:
            place = question(cell) or place
            where = "own" if kind(cell) == "own" else place
            if where in barred or spent >= limits.total:
                continue
            if session is None:
                session = Session([_fresh(c) for c in setup], names, limits)
                for earlier in [c for c, its in replay if its in ("own", place)]:
                    session.run(
                        _fresh(earlier),
                        limits.cell if kind(earlier) != "context" else CONTEXT_SECONDS,
                    )
                    if kind(earlier) == "context":
                        session.keep(context[grade_id(earlier)])
            outcome, seconds = _run(session, cell, names, context, place, limits, spent)
            spent += seconds
            remarks += _said(cell, outcome, limits)
            if outcome in ("time", "lost"):
                session = session.close()
                losses[where] = losses.get(where, 0) + 1
                if kind(cell) == "answer" or losses[where] >= LOSSES:
                    barred.add(where)
            elif kind(cell) != "check":
                replay.append((cell, where))
        if spent >= limits.total:
            remarks.append(f"stopped after {limits.total} s in all: what came after was not run")
    finally:
        if session is not None:
            session.close()
    for cell in notebook.cells:
        _tidy(cell)
    return remarks


def _fresh(cell):
    return new_code_cell(cell.source, metadata=cell.metadata)


def _run(session, cell, names, context, place, limits, spent):
    """Run one cell, with the guard around what the grader relies on: (outcome, the student's
    seconds)."""
    started = time.monotonic()
    if kind(cell) == "context":
        outcome = session.run(cell, CONTEXT_SECONDS)
        session.keep(context[grade_id(cell)])
        return outcome, 0.0 if outcome == "ok" else time.monotonic() - started
    if kind(cell) == "check":
        mine = names | set().union(
            *(kept for key, kept in context.items() if key.startswith(f"{place}-"))
        )
        used = {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
        if session.restore(mine, {name for name in used if hasattr(builtins, name)}) != "ok":
            _failed(cell, "lost", limits)  # its kernel does as it is told no more
            return "lost", time.monotonic() - started
        cell.outputs, started = [], time.monotonic()
    outcome = session.run(cell, min(limits.cell, limits.total - spent))
    if kind(cell) == "check" and outcome != "ok":
        _failed(cell, outcome, limits)
    return outcome, time.monotonic() - started


def _failed(cell, outcome, limits):
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if outcome == "error" and errors:
        cell.outputs = errors[-1:] + [
            output for output in cell.outputs if output.output_type != "error"
        ]
    elif outcome == "error":
        _refuse(cell, "Failed", "this check did not run to its end")
    elif outcome == "time":
        _refuse(cell, "TimeLimit", f"this check ran over its {limits.cell} s")
    else:
        _refuse(cell, "KernelLost", "the kernel ended while this check ran")


def _refuse(cell, name, reason):
    cell.outputs = [new_output("error", ename=name, evalue=reason, traceback=[f"{name}: {reason}"])]


def _said(cell, outcome, limits):
    """A remark about a cell that a person should hear of; a check that merely fails is in the
    points."""
    what = grade_id(cell) or "a cell of the student's own"
    error = next(
        (output.ename for output in cell.get("outputs", []) if output.output_type == "error"), ""
    )
    if outcome == "time":
        return [f"{what} ran over its {limits.cell} s"]
    if outcome == "lost":
        return [f"{what} ended its kernel"]
    if outcome == "error" and error == "SystemExit":
        return [f"{what} calls exit"]
    return [f"{what} stops with {error}"] if outcome == "error" and kind(cell) == "answer" else []


def _tidy(cell):
    """Keep of the outputs what is safe to show and cannot be taken for a grade: text, PNG,
    errors."""
    if cell.cell_type != "code":
        return
    kept = []
    for output in cell.outputs:
        if output.output_type == "stream":
            kept.append(new_output("stream", name="stdout", text=str(output.text)[:LARGEST_OUTPUT]))
        elif output.output_type == "error":
            kept.append(
                new_output(
                    "error",
                    ename=str(output.ename),
                    evalue=str(output.evalue)[:2000],
                    traceback=[str(line)[:20_000] for line in output.traceback][-100:],
                )
            )
        else:
            data = {
                key: str(value)
                for key, value in output.get("data", {}).items()
                if key == "text/plain" or key == "image/png" and _is_png(value)
            }
            kept += [new_output("display_data", data=data)] if data else []
    cell.outputs, cell.execution_count = kept, None


def _is_png(value):
    try:
        return base64.b64decode(value, validate=False)[:4] == b"\x89PNG" and re.fullmatch(
            r"[\w+/=\s]*", value
        )
    except (ValueError, TypeError):
        return False
