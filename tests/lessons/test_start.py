"""The course in a folder of one's own: what is copied, what is kept, and from a wheel outside the
repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import packages
import pytest

from kdlab.__main__ import main
from kdlab.lessons import start

ROOT = Path(__file__).parents[2]
FIRST = "notebooks/00_start_here.ipynb"


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A small course to copy from."""
    course = tmp_path / "installed"
    for name in [
        FIRST,
        "notebooks/demos/a.ipynb",
        "notebooks/homework/student/hw1/hw1.ipynb",
        "notebooks/homework/instructor/hw1/hw1.ipynb",
        "benchmarks/results/table.csv",
        "data/x.bin",
        "notebooks/.ipynb_checkpoints/00-checkpoint.ipynb",
    ]:
        (course / name).parent.mkdir(parents=True, exist_ok=True)
        (course / name).write_text(f"first {name}")
    monkeypatch.setattr(start, "course_files", lambda: course)
    return course


def test_lessons_homework_demos_and_tables_are_copied_and_no_solution(source, tmp_path):
    copied, changed = start.copy(tmp_path / "mine")
    assert (
        copied
        == [
            "benchmarks/results/table.csv",
            FIRST,
            "notebooks/demos/a.ipynb",
            "notebooks/homework/student/hw1/hw1.ipynb",
        ]
        and changed == []
    )
    assert (tmp_path / "mine" / FIRST).read_text() == f"first {FIRST}"
    assert start.copy(tmp_path / "mine") == ([], [])


def test_a_changed_file_is_kept_and_named_and_an_unchanged_one_renewed(source, tmp_path):
    mine = tmp_path / "mine"
    start.copy(mine)
    (mine / FIRST).write_text("my notes")
    for path in source.rglob("*.ipynb"):
        path.write_text("second")
    copied, changed = start.copy(mine)
    assert changed == [FIRST] and (mine / FIRST).read_text() == "my notes"
    assert (
        "notebooks/demos/a.ipynb" in copied
        and (mine / "notebooks/demos/a.ipynb").read_text() == "second"
    )
    assert start.copy(mine) == ([], [FIRST])  # and it stays so
    (mine / FIRST).unlink()
    assert start.copy(mine) == ([FIRST], [])


def test_what_was_there_before_is_not_overwritten(source, tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / FIRST).write_text("another course")
    assert start.copy(tmp_path)[1] == [FIRST] and (tmp_path / FIRST).read_text() == "another course"


def test_an_interrupted_copy_leaves_whole_files(source, tmp_path, monkeypatch):
    replace = os.replace

    def stop(part, target):
        if Path(target).name == "00_start_here.ipynb":
            raise KeyboardInterrupt
        replace(part, target)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        start.copy(tmp_path / "mine")
    monkeypatch.undo()
    monkeypatch.setattr(start, "course_files", lambda: source)
    assert not (tmp_path / "mine" / FIRST).exists()
    start.copy(tmp_path / "mine")
    assert (tmp_path / "mine" / FIRST).read_text() == f"first {FIRST}" and not list(
        (tmp_path / "mine").rglob("*.part")
    )


def test_the_command(source, tmp_path, capsys, monkeypatch):
    assert main(["start", str(tmp_path / "mine"), "--no-open"]) == 0
    said = capsys.readouterr().out
    assert "4 files copied to" in said and f"Open {FIRST}" in said
    (tmp_path / "mine" / FIRST).write_text("mine")
    monkeypatch.setenv("JUPYTERHUB_USER", "ada")
    assert main(["start", str(tmp_path / "mine")]) == 0  # the hub's own server shows it
    said = capsys.readouterr().out
    assert (
        "is up to date" in said
        and f"kept as you changed it: {FIRST}" in said
        and "in this JupyterHub" in said
    )
    (tmp_path / "file").write_text("")
    assert main(["start", str(tmp_path / "file")]) == 1
    assert "must be a directory" in capsys.readouterr().err
    shutil.rmtree(source)
    assert main(["start", str(tmp_path / "other"), "--no-open"]) == 1
    assert "holds no notebooks" in capsys.readouterr().err and not (tmp_path / "other").exists()
    for wrong in (["start"], ["start", "--no-open"], ["start", "a", "b"]):
        assert main(wrong) == 2


def test_jupyterlab_opens_there(source, tmp_path, monkeypatch):
    seen = {}

    def run(command, cwd, env):
        seen.update(command=command, cwd=Path(cwd), env=env)
        return subprocess.CompletedProcess(command, 0)

    for variable in ("JUPYTERHUB_USER", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(subprocess, "run", run)
    assert main(["start", str(tmp_path / "mine")]) == 0
    assert seen["cwd"] == tmp_path / "mine" and seen["env"]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert "--ServerApp.ip=127.0.0.1" in seen["command"]
    assert not any("token=" in word for word in seen["command"])  # JupyterLab makes one


def test_from_a_wheel_outside_the_repository(tmp_path):
    def run(*command, **options):
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, **options
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    wheel = packages.built()[0]
    run(sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    here = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        here,
        wheel,
    )
    # this test's own environment lends its packages, from behind
    paths = os.pathsep.join([here, *(p for p in sys.path if "site-packages" in p)])
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": paths}
    said = run(python, "-m", "kdlab", "start", "course", "--no-open", cwd=tmp_path, env=env)
    assert "files copied to" in said
    names = {
        p.relative_to(tmp_path / "course").as_posix()
        for p in (tmp_path / "course").rglob("*.ipynb")
    }
    committed = {p.relative_to(ROOT).as_posix() for p in (ROOT / "notebooks").rglob("*.ipynb")}
    assert names == {
        n for n in committed if "/instructor/" not in n and "/.ipynb_checkpoints/" not in n
    }
    where = (
        "import kdlab as kd; "
        "print(kd.__file__, *(kd.course_files() / 'data/teachers/docs_lm').iterdir())"
    )
    found = run(python, "-c", where, cwd=tmp_path, env=env)
    assert found.startswith(here) and "model.safetensors" in found
    packed = run(sys.executable, "-m", "zipfile", "-l", wheel).split()
    assert not [name for name in packed if "instructor" in name]
    for needed in ("py.typed", "__init__.pyi", "show/explorer.js", "show/explorer.css"):
        assert f"kdlab/{needed}" in packed
    (points,) = (tmp_path / "env").rglob("kdlab-*.dist-info/entry_points.txt")
    assert "kdlab = kdlab.__main__:command" in points.read_text()
    load = "import kdlab as kd; kd.language_model('docs_base'); print(kd.load('digits'))"
    assert "digits" in run(python, "-c", load, cwd=tmp_path / "course" / "notebooks", env=env)


def test_no_link_of_a_copied_lesson_leads_nowhere(tmp_path):
    start.copy(tmp_path)
    for path in sorted(tmp_path.rglob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        links = [a for a in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:|#", a)]
        dead = [a for a in links if not (path.parent / a.partition("#")[0]).exists()]
        assert dead == [], path.name
    first = nbformat.read(tmp_path / FIRST, as_version=4).cells
    assert any("in a browser (on the course's site)" in cell.source for cell in first)
