"""Everything that is tested: ruff, pytest with doctests, nbval on lessons and demos; all of it, then one summary."""

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = [sys.executable, "-m"]
OFFLINE = [sys.executable, "tools/offline.py"]
# the sanitize file masks what differs between machines; everything else is compared strictly
NBVAL = [*OFFLINE, *PYTHON, "pytest", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env",
         "--color=no", "--nbval-cell-timeout=600", "--nbval-sanitize-with=tests/sanitize.cfg"]
RESULT = re.compile(r"\b(passed|failed|errors?|no tests ran)\b")  # the closing lines of ruff and pytest


def part(name, command):
    """Run one part, passing its output on; (passed, a line for the summary)."""
    print(f"\n== {name}", flush=True)
    started, closing, block = time.perf_counter(), "ended without a result", ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          encoding="utf-8", errors="replace") as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            closing = line.strip() if RESULT.search(line) else closing
            block = f"; {line.strip()}" if line.startswith("network block:") else block
    passed = process.returncode == 0
    seconds = time.perf_counter() - started
    return passed, f"{name:<7} {'ok    ' if passed else 'FAILED'} {seconds:5.0f} s  {closing}{block}"


def main():
    lessons = [str(p.relative_to(ROOT)) for place in ("[0-9][0-9]_*.ipynb", "demos/*.ipynb")
               for p in sorted((ROOT / "notebooks").glob(place))]
    parts = {"ruff": [*PYTHON, "ruff", "check", "."], "pytest": [*PYTHON, "pytest"]}
    results = [part(name, command) for name, command in parts.items()]
    results.append(part("nbval", [*NBVAL, *lessons]) if lessons else (False, "nbval   FAILED  no lesson in notebooks/"))
    passed = all(ok for ok, _ in results)
    print("\n== summary", *[line for _, line in results], "all passed" if passed else "FAILED", sep="\n", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted.")
