"""Everything that is tested, then one summary: python tools/check.py [--quick]

--quick: formatting, ruff, mypy, the rooms' imports and the quick tests. Without it: every test with
doctests, every lesson and demo compared with its committed outputs by nbval, and the losses of
other libraries beside ours."""

import argparse
import io
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = [sys.executable, "-m"]
OFFLINE = [sys.executable, "tools/offline.py"]
LINT = {
    "format": [*PYTHON, "ruff", "format", "--check", "."],
    "ruff": [*PYTHON, "ruff", "check", "."],
    "mypy": [*PYTHON, "mypy", "kdlab"],
    "rooms": [sys.executable, "-c", "from importlinter.cli import *; lint_imports_command()"],
}
# what lean.py does, before pytest loads nbval, and with it nbformat
LEAN = "import runpy, sys; sys.modules['rfc3987_syntax'] = None; "
LEAN += "runpy.run_module('pytest', run_name='__main__', alter_sys=True)"
# the sanitize file masks what differs between machines; everything else is compared strictly
NBVAL = [
    *OFFLINE,
    sys.executable,
    "-c",
    LEAN,
    "-p",
    "no:cacheprovider",
    "--nbval",
    "--nbval-current-env",
    "--color=no",
    "--nbval-cell-timeout=600",
    "--nbval-sanitize-with=tests/sanitize.cfg",
]
# the longest lessons, by what their names begin with: they start first, so that none is left alone
LONGEST = ["09", "11", "13", "10", "03", "05", "02", "12", "04", "07", "01", "00", "08", "06", "2_"]
# the closing lines of ruff, mypy, import-linter and pytest
RESULT = re.compile(
    r"\b(passed|failed|errors?|no tests ran|formatted|no issues found|kept|skipped:)\b"
)


def cores():
    """How many processes run at once: the processors this process may use, eight at most."""
    allowed = getattr(os, "sched_getaffinity", None)
    return min(8, len(allowed(0)) if allowed else os.cpu_count() or 1)


def environment(processes):
    """The processors shared out among processes, so that threads don't wait for one another."""
    threads = str(max(1, cores() // processes))
    return os.environ | {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}


def summary(name, passed, started, text):
    """A part's line in the summary."""
    seconds = time.perf_counter() - started
    return f"{name:<7} {'ok    ' if passed else 'FAILED'} {seconds:5.0f} s  {text}"


def closing(lines):
    """The last line that tells a result, and the network block if there was one."""
    told = [line.strip() for line in lines if RESULT.search(line)]
    block = [line.strip() for line in lines if line.startswith("network block:")]
    return "; ".join([told[-1] if told else "ended without a result", *block[-1:]])


def part(name, command, processes=1, out=None):
    """Run one part, passing its output on, or keeping it in `out`; (passed, a line for the
    summary)."""
    print(f"\n== {name}", file=out, flush=True)
    started, lines = time.perf_counter(), []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(processes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stdout:
            print(line, end="", file=out, flush=True)
            lines.append(line)
    passed = process.returncode == 0
    text = closing(lines)
    if not passed and not re.search(r"fail|error", text):
        text += f"; exit status {process.returncode}"  # it ended badly after a good last line
    return passed, summary(name, passed, started, text)


def notebooks():
    """Every lesson and demo, the longest first."""
    found = [
        path
        for place in ("[0-9][0-9]_*.ipynb", "demos/*.ipynb")
        for path in sorted((ROOT / "notebooks").glob(place))
    ]
    return sorted(found, key=lambda p: (LONGEST + [p.name[:2]]).index(p.name[:2]))


def compare(path, processes):
    """One notebook executed and compared; (passed, all that nbval said). Output only on failure."""
    started = time.perf_counter()
    done = subprocess.run(
        [*NBVAL, str(path.relative_to(ROOT))],
        cwd=ROOT,
        env=environment(processes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    passed = done.returncode == 0
    print(done.stdout if not passed else "", end="")
    print(f"  {summary(path.stem[:24], passed, started, closing(done.stdout.splitlines()))}")
    sys.stdout.flush()
    return passed, done.stdout


def nbval(then=None):
    """Every notebook, as many at once as there are processors; (passed, a line for the summary).

    then: run, too, as soon as no notebook waits."""
    print("\n== nbval", flush=True)
    started, paths, processes = time.perf_counter(), notebooks(), cores()
    with ThreadPoolExecutor(processes) as pool:
        waiting = pool.map(lambda path: compare(path, processes), paths)
        if then is not None:
            pool.submit(then)
        found = list(waiting)
        if not paths:
            return False, "nbval   FAILED  no lesson in notebooks/"
        failed = [path.stem for path, (ok, _) in zip(paths, found, strict=True) if not ok]
        block = re.search(r"^network block: .*", found[0][1], re.MULTILINE)
        text = f"failed: {', '.join(failed)}" if failed else f"{len(paths)} notebooks passed"
        text += f"; {block[0]}" if block else ""
        return not failed, summary("nbval", not failed, started, text)


def main(arguments=()):
    parser = argparse.ArgumentParser(prog="check.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the linters and the quick tests")
    quick = parser.parse_args(arguments).quick
    together = cores()
    # slow tests wait for browsers, servers and kernels an eighth of their time: one process more
    workers = str(together if quick else together + 1)
    # without nbval, which no test needs in its own process, each of them starts seconds sooner
    tests = [*PYTHON, "pytest", "-p", "no:nbval", "-n", workers, "--dist", "worksteal"]
    tests += ["-m", "not slow"] if quick else []
    results = {}

    def aside(name, command, processes=1):
        """Beside another part: what it says is printed whole, after what the other one says."""
        said = io.StringIO()
        results[name] = part(name, command, processes, said)
        return said.getvalue()

    with ThreadPoolExecutor(1) as pool:
        mypy = pool.submit(aside, "mypy", LINT["mypy"])
        results |= {name: part(name, LINT[name]) for name in LINT if name != "mypy"}
        results["pytest"] = part("pytest", tests, together)
        print(mypy.result(), end="", flush=True)
    order = [*LINT, "pytest"]
    if not quick:
        said = []
        peers = [sys.executable, "tools/peers.py"]
        results["nbval"] = nbval(lambda: said.append(aside("peers", peers, together)))
        print(*said, sep="", end="", flush=True)
        order += ["nbval", "peers"]
    passed = all(results[name][0] for name in order)
    lines = [results[name][1] for name in order]
    print("\n== summary", *lines, "all passed" if passed else "FAILED", sep="\n", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("\nInterrupted.")
