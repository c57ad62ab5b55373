"""The commands behind the Makefile: course, execute, the network block, set-up, doctor."""

import errno
import importlib.metadata
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from packaging.specifiers import SpecifierSet

import kdlab
from kdlab.__main__ import main as kdlab_command

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / "tools"


def run(*command, env=None, cwd=None):
    """(exit status, everything it printed) of `python command ...`."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | (env or {}),
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    return done.returncode, done.stdout


def write(path, *sources):
    """A notebook with these code cells after a heading; its path."""
    cells = [new_markdown_cell("# A lesson"), *map(new_code_cell, sources)]
    kernel = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


CLAIM = """import pandas as pd, kdlab as kd
kd.claim("rain helps", kd.Estimate(pd.Series([1.0, -1.0, 2.0, 0.0]), "gain") > 0)"""


def test_course_stops_at_the_first_claim_that_fails_and_names_it(tmp_path):
    fine = write(tmp_path / "00_fine.ipynb", "import os\nprint(os.path.basename(os.getcwd()))")
    fails = write(tmp_path / "01_fails.ipynb", "x = 1", CLAIM, "print('after')")
    never = write(tmp_path / "02_never.ipynb", "print('never')")
    earlier = nbformat.read(fails, as_version=4)
    earlier.cells[3].execution_count = 3  # as committed: executed once
    nbformat.write(earlier, fails)
    status, said = run(TOOLS / "course.py", "--build", tmp_path / "build", fine, fails, never)
    assert status == 1
    assert re.search(r"00_fine +2 cells +\d+\.\d s  ok", said)
    assert "01_fails: cell 3 of 4 failed: import pandas" in said
    assert "AssertionError: Claim does not hold: rain helps" in said
    assert "gain 0.50 ± 2.05 (> 0); 95 % interval over 4 splits" in said  # the error's last line
    built = {path.name for path in (tmp_path / "build").iterdir()}
    assert built == {"00_fine.ipynb", "00_fine.html", "01_fails.ipynb"}
    copy = nbformat.read(tmp_path / "build" / "00_fine.ipynb", as_version=4)
    assert (
        copy.cells[1].outputs[0].text == f"{tmp_path.name}\n"
    )  # the kernel runs where the notebook lies
    stopped = nbformat.read(tmp_path / "build" / "01_fails.ipynb", as_version=4)
    assert [cell.get("execution_count") for cell in stopped.cells] == [None, 1, 2, None]


def test_course_runs_two_lessons_at_a_time_and_ends_both_where_one_fails(tmp_path):
    build = tmp_path / "build"
    seen = "import os, pathlib, time\nhere = pathlib.Path('.')\nmine, other = {0!r}, {1!r}\n"
    meet = (
        seen + "(here / mine).touch()\n"
        "end = time.time() + 60\n"
        "while not (here / other).exists():\n    assert time.time() < end\n    time.sleep(0.1)"
    )
    one = write(tmp_path / "00_one.ipynb", meet.format("a", "b"))
    two = write(tmp_path / "01_two.ipynb", meet.format("b", "a"))
    status, said = run(TOOLS / "course.py", "--jobs", 2, "--build", build, one, two)
    assert status == 0, said
    assert "00_one" in said and "01_two" in said and "2 lessons in" in said
    assert {path.suffix for path in build.iterdir()} == {".ipynb", ".html"}
    fails = write(tmp_path / "02_fails.ipynb", "1 / 0")
    waits = write(tmp_path / "03_waits.ipynb", "import time\ntime.sleep(200)")
    never = write(tmp_path / "04_never.ipynb", "open('never', 'w')")
    began = time.perf_counter()
    status, said = run(TOOLS / "course.py", "--jobs", 2, "--build", build, fails, waits, never)
    assert status == 1 and "ZeroDivisionError" in said and "02_fails" in said
    assert time.perf_counter() - began < 100
    assert not (tmp_path / "never").exists()


BAR = """import kdlab as kd, kdlab.training.sweep as loop
bar = loop.tqdm
loop.tqdm = lambda **options: bar(**options | {"delay": 0})  # shown at once, not after two seconds
_ = kd.train(kd.mlp(8), kd.load("digits"), epochs=1)"""


def test_execute_writes_normalised_or_not_at_all(tmp_path):
    lines = "for _ in range(9): print('a', flush=True)"
    fine = write(tmp_path / "00_fine.ipynb", lines, "x = 1")
    trains = write(tmp_path / "00_trains.ipynb", BAR)
    fails = write(tmp_path / "01_fails.ipynb", "2 + 2", "1 / 0")
    before = fails.read_bytes()
    status, said = run(TOOLS / "execute.py", fine, trains, fails, env={"TQDM_DISABLE": ""})
    assert (
        status == 1
        and "01_fails: cell 3 of 3 failed: 1 / 0\n  ZeroDivisionError: division by zero" in said
    )
    assert fails.read_bytes() == before
    kept = {"00_fine.ipynb", "00_trains.ipynb", "01_fails.ipynb"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    notebook = nbformat.read(fine, as_version=4)
    assert [cell.get("execution_count") for cell in notebook.cells] == [None, 1, 2]
    assert [(out.name, out.text) for out in notebook.cells[1].outputs] == [("stdout", "a\n" * 9)]
    trained = nbformat.read(trains, as_version=4).cells[1]
    assert trained.execution_count == 1 and trained.outputs == []  # no progress bar
    assert (
        notebook.metadata.kernelspec.name == "python3"
        and "version" not in notebook.metadata.language_info
    )
    assert all(cell.metadata == {} for cell in notebook.cells)
    first = fine.read_bytes()
    assert (
        run(TOOLS / "execute.py", fine)[0] == 0 and fine.read_bytes() == first
    )  # nothing of the clock or the run


REACH = """import errno, socket
def reach(host):
    try:
        socket.create_connection((host, 9), timeout=2)
    except OSError as error:
        return errno.errorcode[error.errno]
print(reach("127.0.0.1"), reach("192.0.2.1"))"""


@pytest.mark.parametrize("flags", [[], ["--patch"]], ids=["best", "patch"])
def test_network_block(flags):
    status, said = run(
        TOOLS / "offline.py", *flags, sys.executable, "-c", REACH, env={"KDLAB_DATA": "/nowhere"}
    )
    assert status == 0
    assert (
        said.splitlines()[-1] == "ECONNREFUSED ENETUNREACH"
    )  # the loopback answers, the world does not
    assert re.match(
        r"network block: (kernel namespace|Python sockets patched), loopback only\n", said
    )
    assert run(TOOLS / "offline.py", *flags, sys.executable, "-c", "raise SystemExit(7)")[0] == 7


def test_what_a_reader_named_for_the_lessons_changes_no_output():
    asks = set()
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        asks |= set(re.findall(r"\bKDLAB_[A-Z]+", path.read_text(encoding="utf-8")))
    assert {"KDLAB_LM", "KDLAB_TEXT", "KDLAB_TASK"} <= asks
    asks.add("KDLAB_STUDENT")  # which kd.setup names too
    code = "import os; print(sorted(name for name in os.environ if name.startswith('KDLAB_')))"
    said = run(TOOLS / "offline.py", sys.executable, "-c", code, env=dict.fromkeys(asks, "mine"))[1]
    assert "KDLAB_SCALE" in said and not asks & set(re.findall(r"KDLAB_\w+", said))


def test_network_block_is_the_kernels_where_it_can_be():
    by_hand = [
        ["unshare", "-rn", "sh", "-c", "ip link set lo up"],
        ["unshare", "-n", "sh", "-c", "ip link set lo up"],
    ]
    if shutil.which("unshare") and any(
        subprocess.run(way, capture_output=True).returncode == 0 for way in by_hand
    ):
        assert "kernel namespace" in run(TOOLS / "offline.py", sys.executable, "-c", "pass")[1]
    else:
        pytest.skip("this system allows no network namespace")


def test_network_block_says_where_it_can_not():
    code = f"""import runpy, sys
main = runpy.run_path({str(TOOLS / "offline.py")!r})["main"]
main.__globals__["WAYS"] = [("no such way", ["no-such-program"])]
sys.exit(main([sys.executable, "-c", "print('ran')"]))"""
    status, said = run("-c", code)
    assert status == 0 and re.fullmatch(r"network block: NONE, .* with the network\nran\n", said)


@pytest.mark.parametrize(
    "outcome, verdict", [(errno.ENETUNREACH, True), (errno.ETIMEDOUT, False), (None, False)]
)
def test_a_block_that_does_not_hold_is_noticed(monkeypatch, outcome, verdict):
    connect = socket.create_connection

    def outside(address, timeout):
        if address[0].startswith("127."):
            return connect(address, timeout)
        if outcome:
            raise OSError(outcome, "made up")
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", outside)
    assert runpy.run_path(TOOLS / "offline.py")["blocked"]() is verdict


def test_doctor_is_well_here_and_says_what_is_missing(tmp_path):
    empty = {"KDLAB_DATA": str(tmp_path), "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)}
    status, said = run("-m", "kdlab", "doctor", env=empty)
    assert status == 0 and "The course can run." in said
    assert re.search(r"^ok +torch +\d", said, re.MULTILINE)
    assert re.search(r"^missing +mnist .*set KDLAB_DATA", said, re.MULTILINE)


def test_doctor_fails_where_a_package_is_missing(monkeypatch, capsys):
    version = importlib.metadata.version

    def without_jupyterlab(package):
        if package == "jupyterlab":
            raise importlib.metadata.PackageNotFoundError
        return version(package)

    monkeypatch.setattr(importlib.metadata, "version", without_jupyterlab)
    assert kdlab_command(["doctor"]) == 1
    assert re.search(
        r"^missing +jupyterlab +pip install 'kdlab\[course\]'",
        capsys.readouterr().out,
        re.MULTILINE,
    )


@pytest.mark.parametrize("arguments", [[], ["docter"], ["doctor", "now"], ["serve"]])
def test_unknown_command(arguments, capsys):
    assert kdlab_command(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: kdlab ")


def test_help_and_version(capsys):
    assert kdlab_command(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(command in said for command in ("doctor", "start", "serve"))
    assert kdlab_command(["--version"]) == 0
    assert capsys.readouterr().out == f"kdlab {kdlab.__version__}\n"


def test_serve_starts_the_server_and_says_what_is_missing(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("kdlab.teachers.server.main", asked.append)
    assert kdlab_command(["serve", "docs_lm", "--port", "8123"]) == 0
    assert asked == [["docs_lm", "--port", "8123"]]
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "kdlab.teachers.server", None)
    assert kdlab_command(["serve", "docs_lm"]) == 1
    assert capsys.readouterr().err.startswith("kdlab serve: ")


def test_unknown_command_from_the_shell():
    assert run("-m", "kdlab", "nonsense")[0] == 2


def test_environment_says_what_the_interpreter_lacks(monkeypatch):
    check = runpy.run_path(TOOLS / "environment.py")["check_interpreter"]
    check()
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit, match="venv or ensurepip is missing.\n.*python3-venv"):
        check()
    monkeypatch.setattr(sys, "version_info", (3, 9))
    with pytest.raises(SystemExit, match="needs Python 3.11 or newer"):
        check()


def test_lock_drops_local_versions_and_what_is_not_a_version():
    lock = runpy.run_path(TOOLS / "lock.py")
    text = lock["constraints"]("torch==2.13.0+cpu\nNumPy==2.4.6\n-e git+x\nkdlab @ file:///x\n")
    assert text == lock["HEADER"] + "torch==2.13.0\nNumPy==2.4.6\n"


def test_constraints_are_exact_and_name_no_place():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert "torch==2.13.0" in lines
    assert all(re.fullmatch(r"[\w.-]+==[\w.!-]+", line) for line in lines), lines


def test_constraints_fit_the_oldest_python():
    """A pin that wants a newer 3.11 stops the installation where the system has an older one."""
    oldest, wanting = "3.11.0", []
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    for name, version in (line.split("==") for line in pins if not line.startswith("#")):
        try:
            found = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here
        needs = found["Requires-Python"] if found["Version"] == version else None
        if needs and not SpecifierSet(needs).contains(oldest):
            wanting.append(f"{name}=={version} needs Python {needs}")
    assert wanting == []


def test_the_summary_tells_every_part_and_fails_when_one_did(monkeypatch, capsys, tmp_path):
    check = runpy.run_path(TOOLS / "check.py")
    said = "print('network block: x'); print('3 passed in 1 s\\n[*] advice')"
    ok, line = check["part"]("ruff", [sys.executable, "-c", said])
    assert ok and re.fullmatch(r"ruff +ok +\d+ s  3 passed in 1 s; network block: x", line)
    ok, line = check["part"](
        "pytest", [sys.executable, "-c", "print('1 failed'); raise SystemExit(3)"]
    )
    assert not ok and re.fullmatch(r"pytest +FAILED +\d+ s  1 failed", line)
    ok, line = check["part"](
        "pytest", [sys.executable, "-c", "print('3 passed in 1 s'); raise SystemExit(7)"]
    )
    assert not ok and re.fullmatch(r"pytest +FAILED +\d+ s  3 passed in 1 s; exit status 7", line)
    done, scope = {}, check["main"].__globals__

    def part(name, command, processes=1, out=None):
        done[name] = command
        print(f"said by {name}", file=out)
        return name != "ruff", name

    monkeypatch.setitem(scope, "part", part)
    monkeypatch.setitem(scope, "ROOT", tmp_path)  # no lessons there
    capsys.readouterr()
    assert check["main"]() == 1
    assert set(done) == {"format", "ruff", "mypy", "rooms", "pytest", "peers"}
    said = capsys.readouterr().out
    assert said.endswith(
        "ruff\nmypy\nrooms\npytest\nnbval   FAILED  no lesson in notebooks/\npeers\nFAILED\n"
    )
    # what runs beside another part is told after it
    told = [line.split()[-1] for line in said.splitlines() if line.startswith(("said by", "=="))]
    assert told == ["format", "ruff", "rooms", "pytest", "mypy", "nbval", "peers", "summary"]
    done.clear()
    assert check["main"](["--quick"]) == 1
    assert set(done) == {"format", "ruff", "mypy", "rooms", "pytest"}
    assert done["pytest"][-2:] == ["-m", "not slow"]


def test_a_test_that_leaves_a_file_in_the_checkout_fails_the_run(tmp_path):
    (tmp_path / "tests").mkdir()
    for name in ("conftest.py", "slow.txt"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    (tmp_path / ".gitignore").write_text("__pycache__/\n.pytest_cache/\n.hypothesis/\n*.log\n")
    (tmp_path / "there_before.txt").touch()
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    written = tmp_path / "tests" / "test_writes.py"
    for name, status in (("x.log", 0), ("left", 1)):
        written.write_text(f"import os\ndef test_it():\n    os.mkdir({name!r})\n")
        code, said = run("-m", "pytest", "-q", "-p", "no:nbval", "-n", "1", "tests", cwd=tmp_path)
        assert code == status, said
        assert "1 passed" in said
    assert said.splitlines()[-1] == "failed: tests left in the checkout: ['left/']"


def test_the_linters_that_check_runs_are_there():
    for name, command in runpy.run_path(TOOLS / "check.py")["LINT"].items():
        if name != "rooms":
            assert run(*command[1:3], "--version")[0] == 0, name
    assert importlib.metadata.version("import-linter")


def test_notebooks_are_compared_at_once_and_only_a_failure_prints(monkeypatch, capsys, tmp_path):
    check = runpy.run_path(TOOLS / "check.py")
    names = ["00_a.ipynb", "07_b.ipynb", "demos/1_c.ipynb"]
    for name in names:
        (tmp_path / "notebooks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "notebooks" / name).touch()
    scope = check["main"].__globals__
    monkeypatch.setitem(scope, "ROOT", tmp_path)
    say = "import sys; print('network block: x'); print('chatter of', sys.argv[-1]);"
    fail = "bad = '07' in sys.argv[-1]; print('1 failed' if bad else '9 passed'); sys.exit(bad)"
    monkeypatch.setitem(scope, "NBVAL", [sys.executable, "-c", say + fail])
    assert [path.name[:2] for path in check["notebooks"]()] == ["07", "00", "1_"]
    ok, line = check["nbval"]()
    said = capsys.readouterr().out
    assert not ok and re.fullmatch(r"nbval +FAILED +\d+ s  failed: 07_b; network block: x", line)
    assert "chatter of notebooks/07_b.ipynb" in said.replace("\\", "/") and "00_a.ipynb" not in said
    assert re.search(r"00_a +ok +\d+ s  9 passed", said)


def test_processors_are_shared_out(monkeypatch):
    check = runpy.run_path(TOOLS / "check.py")
    monkeypatch.setitem(check["environment"].__globals__, "cores", lambda: 4)
    threads = [check["environment"](n)["OMP_NUM_THREADS"] for n in (1, 2, 4, 8)]
    assert threads == ["4", "2", "1", "1"]


@pytest.mark.parametrize("uv", [None, "/bin/uv"])
def test_uv_is_used_where_it_is_and_pip_where_not_or_where_uv_fails(monkeypatch, tmp_path, uv):
    scope = runpy.run_path(TOOLS / "environment.py")
    ran = []

    def run(command, **options):
        ran.append(command)
        return subprocess.CompletedProcess(command, int(command[:2] == ["/bin/uv", "pip"]))

    names = scope["main"].__globals__
    for name, value in {"VENV": tmp_path / "env", "PYTHON": tmp_path / "python"}.items():
        monkeypatch.setitem(names, name, value)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: uv)
    scope["main"]("course,api,serve")
    assert ran[0][1] == ("venv" if uv else "-m")
    assert [command[1] for command in ran[1:]] == (["pip", "-m"] if uv else ["-m"])
    assert all("constraints.txt" in command for command in ran[1:])
    assert ran[-1][-1] == ".[course,api,serve]"
    assert (tmp_path / "env" / ".lab").exists() and not (tmp_path / "env" / ".ready").exists()
    scope["main"]()
    assert (tmp_path / "env" / ".ready").exists()
    assert not (tmp_path / "env" / ".unfinished").exists()


@pytest.mark.parametrize(
    "said, status, words",
    [
        ("connection broken by 'NewConnectionError'", 0, "skipped: no network"),
        ("ResolutionImpossible", 1, "could not install"),
    ],
)
def test_peers_are_skipped_only_without_a_network(
    monkeypatch, tmp_path, capsys, said, status, words
):
    peers = runpy.run_path(TOOLS / "peers.py")
    scope = peers["main"].__globals__
    monkeypatch.setitem(scope, "PLACE", tmp_path)
    monkeypatch.setitem(scope, "make", lambda: None)
    monkeypatch.setitem(scope, "install", lambda: (1, said))
    assert peers["main"]() == status and words in capsys.readouterr().out
    assert not (tmp_path / ".ready").exists()


def workflow(name):
    """The jobs of a workflow, after it was parsed."""
    text = (ROOT / ".github/workflows" / name).read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    assert found["permissions"] == {"contents": "read"}
    return found["jobs"]


def test_the_workflows_cover_versions_systems_and_peers():
    jobs = workflow("test.yml")
    everything, elsewhere = jobs["everything"], jobs["elsewhere"]
    assert everything["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert everything["steps"][-1]["run"] == ".ci/run"
    assert elsewhere["strategy"]["matrix"]["system"] == ["windows-latest", "macos-latest"]
    ran = [step["run"] for step in elsewhere["steps"] if "run" in step]
    assert "python tools/check.py --quick" in ran and not any("make" in line for line in ran)
    peers = [step.get("run", "") for step in workflow("peers.yml")["peers"]["steps"]]
    assert any("-U trl liger-kernel transformers" in line for line in peers)
    assert any("tests/test_peers.py" in line for line in peers)


def test_hooks_before_a_commit_fetch_nothing():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["ruff-format", "ruff-check", "mypy"]
    assert all(hook["language"] == "system" for hook in hooks)


def test_jupyterlab_is_told_not_to_ask_for_news_in_words_it_knows(tmp_path):
    runpy.run_path(TOOLS / "environment.py")["quieten"](tmp_path)
    ((name, chosen),) = json.loads(
        (tmp_path / "share/jupyter/lab/settings/overrides.json").read_text()
    ).items()
    plugin, schema = name.split(":")
    known = json.loads(
        (Path(sys.prefix) / "share/jupyter/lab/schemas" / plugin / f"{schema}.json").read_text()
    )
    allowed = [kind["const"] for kind in known["properties"]["fetchNews"]["oneOf"]]
    assert chosen == {"fetchNews": "false", "checkForUpdates": False} and "false" in allowed
    assert known["properties"]["checkForUpdates"]["type"] == "boolean"
