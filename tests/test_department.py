"""What a department needs: syllabus, rubrics, the refuter's form, citation, licences, machines
elsewhere, the release. What they name exists, and what they count is right."""

import ast
import doctest
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import packages
import pytest
import yaml
from packaging.requirements import Requirement
from pages import ROOT

from kdlab.lessons.checks import lessons

sys.path.insert(0, str(ROOT / "tools"))
import badges
import gallery
import release
import repeat

LESSONS = {p.stem[:2]: p for p in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
HOMEWORK = {
    p.stem[2:]: p for p in sorted((ROOT / "notebooks/homework/student").glob("*/hw*.ipynb"))
}
INSTRUCTOR = sorted((ROOT / "notebooks/homework/instructor").glob("*/hw*.ipynb"))
DEMOS = {p.stem[0]: p for p in (ROOT / "notebooks/demos").glob("*.ipynb")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def cells(path, kind):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == kind]


def words(path):
    return "\n".join(cell.source for cell in cells(path, "markdown"))


def tables(page):
    """The tables of a page: lists of rows, each a list of cells, without the heads."""
    found = re.findall(r"(?:^\|.*\n)+", text(page), re.MULTILINE)
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        for table in found
    ]


def links(cell):
    """The files that a cell of a table links to."""
    return [(ROOT / "docs" / to).resolve() for to in re.findall(r"\]\(([^)]+)\)", cell)]


# --- the syllabus ---


def minutes(path):
    """What a notebook says it takes: "**Time**: 10 minutes, …; 10 more …" is 20."""
    line = re.search(r"\*\*Time\*\*: (.*?)(?:\*\*|$)", words(path), re.MULTILINE)[1]
    return sum(map(int, re.findall(r"(\d+) (?:minutes|more)", line)))


SYLLABUS = "docs/syllabus.md"
WEEKS, DAYS, OUTCOMES = tables(SYLLABUS)


def test_minutes_are_read_as_the_notebooks_say_them():
    assert minutes(LESSONS["00"]) == 20 and minutes(LESSONS["01"]) == 45
    assert all(20 <= minutes(path) <= 60 for path in [*LESSONS.values(), *HOMEWORK.values()])


@pytest.mark.parametrize("plan", [WEEKS, DAYS], ids=["weeks", "days"])
def test_a_plan_names_what_there_is_and_adds_up(plan):
    *rows, together = plan
    of_lessons, of_homework = [], []
    for _, taught, lasts, shown, handed, takes in rows:
        assert links(taught) and set(links(taught)) <= set(LESSONS.values())
        assert set(links(shown)) <= set(DEMOS.values())
        assert set(links(handed)) <= set(HOMEWORK.values())
        assert int(lasts) == sum(map(minutes, links(taught)))
        assert int(takes.replace("–", "0")) == sum(map(minutes, links(handed)))
        for path, number in zip(links(taught), re.findall(r"\[(\d\d) ", taught), strict=True):
            assert path == LESSONS[number]
        of_lessons += links(taught)
        for path in links(handed):
            before = re.search(r"\*\*Before(?: it)?\*\*: lessons? (.*?)[.\n]", words(path))[1]
            first = re.findall(r"\d\d", before)
            assert {LESSONS[number] for number in first} <= set(of_lessons), path.stem
        of_homework += links(handed)
    assert len(set(of_lessons)) == len(of_lessons) and len(set(of_homework)) == len(of_homework)
    assert together[1] == f"{len(of_lessons)} lessons"
    assert together[4] == f"{len(of_homework)} homeworks"
    assert int(together[2]) == sum(map(minutes, of_lessons))
    assert int(together[5]) == sum(map(minutes, of_homework))


def test_the_weeks_leave_nothing_out_and_the_days_say_what():
    taught = [path for row in WEEKS[:-1] for path in links(row[1])]
    assert len(WEEKS) == 11 and taught == list(LESSONS.values())
    assert {p for row in WEEKS[:-1] for p in links(row[4])} == set(HOMEWORK.values())
    assert {p for row in WEEKS[:-1] for p in links(row[3])} == set(DEMOS.values())
    later = re.search(r"Left for later: lessons (.*?), homeworks (\d) to (\d)", text(SYLLABUS))
    days = {path for row in DAYS[:-1] for path in links(row[1])}
    assert {LESSONS[n] for n in re.findall(r"\d\d", later[1])} == set(LESSONS.values()) - days
    done = {path for row in DAYS[:-1] for path in links(row[4])}
    left = {HOMEWORK[str(n)] for n in range(int(later[2]), int(later[3]) + 1)}
    assert left == set(HOMEWORK.values()) - done


def test_the_core_path_is_the_readme_s():
    core = re.search(r"\*\*One evening\*\*(.*?)\*\*Language\*\*", text("README.md"), re.DOTALL)[1]
    numbers = re.findall(r"\[(\d\d) ", core)
    assert f"lessons {numbers[0]} to {numbers[-1]}" in text(SYLLABUS)
    days = [number for row in DAYS[:-1] for number in re.findall(r"\[(\d\d) ", row[1])]
    assert days[: len(numbers)] == numbers


def test_outcomes_are_the_lessons_own_words_and_none_is_left_out():
    for number, path in LESSONS.items():
        line = re.search(r"\*\*You will be able to\*\* (.*)\.", words(path))[1]
        for outcome in (row[0] for row in OUTCOMES if links(row[1]) == [path]):
            assert line.count(outcome) == 1, f"{number}: {outcome}"
            line = line.replace(outcome, "")
        assert re.fullmatch(r"(, |and )*", line), f"{number}: no row for: {line}"


def claimed(path):
    """The sentences that a lesson claims."""
    calls = [
        node
        for cell in cells(path, "code")
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "kd.claim"
    ]
    return [ast.literal_eval(call.args[0]) for call in calls]


def test_every_claim_and_every_exercise_has_its_outcome():
    exercises = {e.name for lesson in lessons() for e in lesson.EXERCISES}
    named = [e for row in OUTCOMES for e in re.findall(r"[\d.]+", row[2])]
    assert sorted(named) == sorted(exercises)
    for number, path in LESSONS.items():
        rows = [row for row in OUTCOMES if links(row[1]) == [path]]
        assert all(e.startswith(number) for row in rows for e in re.findall(r"[\d.]+", row[2]))
        told = [claim for row in rows if row[4] != "–" for claim in row[4].split("<br>")]
        assert sorted(told) == sorted(claimed(path)), number


def questions(path):
    """The questions of a homework by their numbers, or its parts where they are drawn."""
    text = words(path)
    if re.search(r"^## Part", text, re.MULTILINE):  # "B" stands for its questions
        first, rest = re.split(r"^## Part B", text, flags=re.MULTILINE)
        return {*re.findall(r"^\*\*Question (\d+)\*\*", first, re.MULTILINE), "B"}
    return set(re.findall(r"^(?:## |\*\*Question )(\d+)", text, re.MULTILINE))


def test_every_question_of_every_homework_has_an_outcome():
    there = {f"{n}.{q}" for n, path in HOMEWORK.items() for q in questions(path)}
    assert len(there) > 25
    assert {q for row in OUTCOMES for q in re.findall(r"\d\.\w", row[3])} == there


NAMED = re.compile(r"^\| \[?(\d\d) ([^\]|]+?)\]?(?:\(\S+\))? \| ([^|]+?) \|", re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "notebooks/00_start_here.ipynb"])
def test_a_table_of_lessons_names_them_all_and_asks_what_they_ask(page):
    """A lesson that is new is in every table, with the question of its own title."""
    told = words(ROOT / page) if page.endswith(".ipynb") else text(page)
    rows = {number: asked.lower() for number, _, asked in NAMED.findall(told)}
    for number, path in LESSONS.items():
        title = words(path).splitlines()[0].removeprefix(f"# {number} · ")
        assert title.lower().endswith(rows.pop(number)), number
    assert not rows and "to come" not in told


def test_lesson_00_says_how_long_the_core_is():
    hours = {4: "four", 5: "five", 6: "six", 7: "seven"}
    core = sum(minutes(path) for number, path in LESSONS.items() if number <= "07")
    assert f"about {hours[round(core / 60)]} hours" in words(LESSONS["00"])


# --- rubrics ---


def by_hand():
    """{cell: points} of what a person grades: an answer in words that is worth points."""
    told = [cell.metadata.get("nbgrader", {}) for p in INSTRUCTOR for cell in cells(p, "markdown")]
    return {g["grade_id"]: g["points"] for g in told if g.get("grade") and g.get("solution")}


@pytest.mark.skipif(not INSTRUCTOR, reason="a course without the instructors' notebooks")
def test_every_answer_that_a_person_reads_has_a_rubric_in_four_levels():
    heads = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", text("docs/rubrics.md"), re.MULTILINE)
    assert {name for name, _ in heads} == set(by_hand())
    rubrics = [table for table in tables("docs/rubrics.md") if len(table[0]) == 5]
    for (name, levels), rows in zip(heads, rubrics, strict=True):
        assert [float(level) for level in levels.split(" | ")] == [1, 0.75, 0.5, 0]
        points = [int(re.search(r"\((\d) points?\)", row[0])[1]) for row in rows]
        assert sum(points) == by_hand()[name] and all(all(row) for row in rows)


def viva():
    """{homework: [(question, a good answer)]}."""
    parts = re.split(r"^### Homework (\d)", text("docs/rubrics.md"), flags=re.MULTILINE)[1:]
    return {
        number: re.findall(r"^\d\. \*\*(.+?\?)\*\* \*Good\*: (.+\.)$", part, re.MULTILINE)
        for number, part in zip(parts[::2], parts[1::2], strict=True)
    }


def test_every_homework_has_three_viva_questions_with_answers():
    assert set(viva()) == set(HOMEWORK)
    assert {len(asked) for asked in viva().values()} == {3}


def test_no_rubric_and_no_viva_question_is_in_a_student_s_notebook():
    rows = [cell for table in tables("docs/rubrics.md") for row in table for cell in row[1:]]
    told = [part for asked in viva().values() for pair in asked for part in pair]
    released = "\n".join(str(nbformat.read(p, as_version=4)) for p in HOMEWORK.values())
    assert not [one for one in told + rows if len(one) > 20 and one in released]


# --- refute us, and the ledger ---


def form():
    return yaml.safe_load(text(".github/ISSUE_TEMPLATE/refute.yml"))


def test_the_form_asks_what_its_page_says():
    asked = [part for part in form()["body"] if part["type"] != "markdown"]
    assert {"name", "description", "body"} <= set(form())  # GitHub refuses a form without these
    assert {part["type"] for part in asked} <= {"input", "textarea", "dropdown", "checkboxes"}
    for part in asked:
        assert part["attributes"]["label"] and part["validations"] == {"required": True}
    fields = [row[0] for row in tables("docs/refute.md")[0]]
    assert fields == [part["id"] for part in asked]
    assert fields == ["claim", "lesson", "setting", "seeds", "output"]
    (chosen,) = (part for part in asked if part["type"] == "dropdown")
    assert chosen["attributes"]["options"] == [path.stem for path in LESSONS.values()]
    assert f"*{form()['name']}*" in text("docs/refute.md")


def test_the_judge_s_command_is_one_that_it_understands(monkeypatch):
    block = re.search(r"```sh\n(.*?)```", text("docs/refute.md"), re.DOTALL)[1]
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    set_up, copy, _, judge = lines
    assert set_up == ["make", ".venv/.lab"]
    assert (ROOT / copy[1]).is_file() and judge[4] == copy[2]
    assert judge[:4] == [".venv/bin/python", "tools/offline.py"] + [
        ".venv/bin/python",
        "tools/repeat.py",
    ]
    asked = []
    monkeypatch.setattr(repeat, "hardware", dict)
    monkeypatch.setattr(repeat, "lessons", lambda names: asked.extend(names) or [])
    repeat.main(judge[4:])  # ends with SystemExit where an option is unknown
    assert asked == [copy[2]]


def test_the_page_s_sample_is_a_row_of_the_ledger():
    """In the words of tools/repeat.py, from the row that is committed."""
    sample = re.search(r"```text\n(.*?)\n```", text("docs/refute.md"), re.DOTALL)[1]
    numbers = re.match(
        r" +(\d+) of (\d+)  margin +(\S+), at the least +(\S+)  (.*)  \[(.*)\]", sample
    )
    page = gallery.ledger(ROOT / "benchmarks/results/claims.csv", [])
    held, of, mean, least, sentence, flips = numbers.groups()
    assert f"| {sentence} | {held} of {of} | {mean} | {least} | {flips} |" in page, (
        "copy the row anew"
    )


def test_the_ledger_shows_first_what_did_not_always_hold(tmp_path):
    table = tmp_path / "claims.csv"
    head = "lesson,sentence,held,of,mean_margin,least_margin,flips,hardware,machine,torch\n"
    where = ',"CPU, 2 threads",x86_64,2\n'
    table.write_text(
        f"{head}00_a,always,20,20,5.0,3.1,{where}01_b,a|b *c*,19,20,4.0,1.0,{where}"
        f"02_c,seldom,3,20,0.5,-2.0,60 epochs (17),{where[1:]}03_t,off a table,0,0,,,{where}",
        encoding="utf-8",
    )
    page = gallery.ledger(table, ["00_a", "01_b", "02_c", "03_t", "04_d"])
    order = ["Not always: 2 of 3", "| seldom | 3 of 20 | 0.5 | -2.0 | 60 epochs (17) |"]
    order += [
        r"a\|b \*c\*",
        "In every run: 1 of 3",
        "| always |",
        "Read off a table",
        "- [03](../notebooks/03_t.ipynb) off a table",
    ]
    order += ["Not repeated yet", "[04]"]
    places = [page.index(part) for part in order]
    assert places == sorted(places) and "CPU, 2 threads, x86_64, torch 2" in page
    table.write_text(f"{head}00_a,always,20,20,5.0,3.1,{where}", encoding="utf-8")
    page = gallery.ledger(table, ["00_a"])
    assert "Not always: 0 of 1\n\nNone." in page and "Not repeated yet" not in page
    assert "Read off a table" not in page


def test_every_row_of_the_committed_ledger_is_on_its_page():
    page = gallery.ledger(
        ROOT / "benchmarks/results/claims.csv", [p.stem for p in LESSONS.values()]
    )
    rows = text("benchmarks/results/claims.csv").splitlines()[1:]
    assert page.count("\n| [") + page.count("\n- [") == len(rows)


# --- citation and licences ---


def test_the_citation_is_whole_and_of_this_version():
    cited = yaml.safe_load(text("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)  # which the format requires
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert cited["version"] == PROJECT["version"] and cited["license"] == "MIT"
    (holder,) = re.findall(r"^Copyright \(c\) \d+ (.+)$", text("LICENSE"), re.MULTILINE)
    assert cited["authors"] == [{"name": holder}]
    assert cited["abstract"] == PROJECT["description"]


def test_the_two_licences_are_named_everywhere():
    assert PROJECT["license"] == "MIT AND CC-BY-4.0"
    assert PROJECT["license-files"] == ["LICENSE", "LICENSE-prose"]
    notice = text("LICENSE-prose")
    assert "https://creativecommons.org/licenses/by/4.0/legalcode" in notice
    for place in ("README.md", "docs/conf.py"):
        assert "CC BY 4.0" in text(place) and "MIT" in text(place)
    (holder,) = re.findall(r"^Copyright \(c\) (.+)$", text("LICENSE"), re.MULTILINE)
    assert f"Copyright (c) {holder}" in notice
    for name in re.findall(r"[\w/]+\.md|\bdocs/|data/teachers|LICENSE\b", notice):
        assert (ROOT / name).exists() or list(ROOT.glob(f"data/teachers/*/{name}")), name


# --- other machines ---


def extras(requirement):
    """The extras of `…[a,b]`, each known to pyproject.toml."""
    asked = Requirement(f"kdlab[{requirement.partition('[')[2]}").extras
    assert asked <= set(PROJECT["optional-dependencies"])
    return asked


def test_the_container_sets_up_what_the_makefile_makes():
    made = json.loads(text(".devcontainer/devcontainer.json"))
    assert re.search(r"python:(\S+)-", made["image"])[1] in PROJECT["requires-python"]
    first, rest = made["postCreateCommand"].split(" && ")
    word, target = rest.split()
    assert (
        first == "pip install uv"
        and word == "make"
        and f"LESSONS := {target}\n" in text("Makefile")
    )
    assert made["forwardPorts"] == [8888]
    assert made["containerEnv"]["OMP_WAIT_POLICY"] == "PASSIVE"
    if shutil.which("make"):
        said = subprocess.run(
            ["make", "--dry-run", "--always-make", target], cwd=ROOT, capture_output=True, text=True
        )
        assert said.returncode == 0 and "tools/environment.py course,api,serve" in said.stdout


def test_a_binder_installs_the_pinned_course_without_cuda():
    folder = ROOT / ".binder"
    *_, last = (folder / "postBuild").read_text().splitlines()
    setting, *command = shlex.split(last)
    assert setting == "UV_TORCH_BACKEND=cpu" and command[:3] == ["uv", "pip", "install"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert (ROOT / options["-c"]).name == "constraints.txt" and (ROOT / options["-c"]).is_file()
    assert options["-e"].startswith(".[") and extras(options["-e"]) == {"course", "api", "serve"}
    version = (folder / "runtime.txt").read_text().strip().removeprefix("python-")
    assert version in PROJECT["requires-python"]
    assert (folder / "start").read_text().endswith('exec "$@"\n')
    if os.name != "nt":
        assert all(os.access(folder / name, os.X_OK) for name in ("start", "postBuild"))
        done = subprocess.run(
            [folder / "start", "printenv", "OMP_WAIT_POLICY"], capture_output=True, text=True
        )
        assert done.stdout == "PASSIVE\n"


def test_the_badges_are_the_tool_s_and_have_no_address_that_nobody_knows():
    assert badges.put(text("README.md"), badges.badges()) == text("README.md")
    pairs = re.findall(r"\[!\[open in .*?\]\(([^)]+)\)\]\(([^)]+)\)", text("README.md"))
    assert pairs == [
        (f"docs/_static/badges/{name}.svg", badges.HOW)
        for name in ("binder", "codespaces", "colab")
    ]
    page, _, heading = badges.HOW.partition("#")
    assert f"\n## {heading.replace('-', ' ').capitalize()}\n" in text(page)
    for name in ("binder", "codespaces", "colab"):
        picture = ElementTree.fromstring(text(f"docs/_static/badges/{name}.svg"))
        assert picture.get("aria-label").startswith("open in ")


def test_with_an_address_the_badges_open_what_there_is():
    made = badges.badges("ada/kd-lab", "main")
    binder, codespaces, colab = re.findall(r"\]\((https://[^)]+)\)", made)
    assert binder.startswith("https://mybinder.org/v2/gh/ada/kd-lab/main?labpath=")
    assert codespaces == "https://codespaces.new/ada/kd-lab/tree/main"
    for address in (binder, colab):
        place = re.search(r"notebooks(?:/|%2F)(\S+)", address)[1]
        assert (ROOT / "notebooks" / place).is_file()
    again = badges.put(text("README.md"), made)
    assert badges.put(again, badges.badges()) == text("README.md")


@pytest.mark.parametrize("name", ["kdlab", "a/b/c", "a/b)c", "https://github.com/a/b", "a b/c"])
def test_an_address_that_is_none_is_told(name):
    with pytest.raises(ValueError, match="expected OWNER/NAME"):
        badges.badges(name)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no repository to clone")
def test_colab_s_cell_clones_installs_and_finds_the_course(tmp_path):
    """As far as it goes without Colab: pip says what it would install and installs nothing."""
    (cell,) = re.findall(r"```python\n(import os, .*?)```", text("docs/instructor_guide.md"), re.S)
    (wanted,) = re.findall(r"\{home\}(\[\S+\])", cell)
    assert extras(f".{wanted}") == {"course", "api", "serve"}
    cell = cell.replace("https://github.com/OWNER/NAME", ROOT.as_uri())
    assert ROOT.as_uri() in cell
    cell += "\nimport kdlab\nprint(kdlab.__file__, pathlib.Path.cwd(), sep='\\n')"
    dry = {f"PIP_{k}": "1" for k in ("DRY_RUN", "NO_DEPS", "NO_INDEX")}
    dry["PIP_NO_BUILD_ISOLATION"] = "0"  # which to pip means: without
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)} | dry
    for _ in range(2):  # again in a kernel that was started anew
        done = subprocess.run(
            [sys.executable, "-c", cell], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        package, here = map(Path, done.stdout.splitlines()[-2:])
        assert package == tmp_path / "kdlab-course" / "kdlab" / "__init__.py"
        assert here == tmp_path / "kdlab-course" / "notebooks"


@pytest.mark.skipif(os.name == "nt", reason="a line for a shell")
def test_the_line_without_a_clone_installs_the_wheel_that_lies_there(tmp_path):
    (line,) = re.findall(r"^pip install .*$", text("docs/instructor_guide.md"), re.MULTILINE)
    (tmp_path / "kdlab-0.2.0-py3-none-any.whl").touch()
    for name in ("pip", "kdlab"):
        stub = tmp_path / name
        stub.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        stub.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    installed, started = done.stdout.splitlines()
    word = installed.removeprefix("pip install ")
    assert word.startswith("kdlab-0.2.0-py3-none-any.whl[")
    assert extras(word) == {"course", "api", "serve"} and started == "kdlab start course"


# --- the release ---


def here():
    """The files of this checkout, those that are not committed yet too."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    return release.committed("--cached", "--others", "--exclude-standard")


def test_wheel_and_sdist_hold_the_course_and_nothing_else(tmp_path):
    for archive in packages.built():
        folder = tmp_path / archive.suffix
        folder.mkdir()
        assert release.checked(archive, folder, here()) == []
        names = [p.relative_to(folder).as_posix() for p in folder.rglob("*")]
        left = r"(^|/)(tests|build|dist|tools|instructor|__pycache__|\.\w+_cache|\.venv)(/|$)"
        assert len(names) > 100 and not [name for name in names if re.search(left, name)]
        assert {Path(name).name for name in names} >= {"LICENSE", "LICENSE-prose"}


def test_what_a_wheel_lacks_and_what_it_should_not_have_is_named(tmp_path):
    wheel, _ = packages.built()
    files = here() - {"kdlab/__main__.py"} | {"LICENSE-other"}
    assert release.checked(wheel, tmp_path, files) == [
        f"{wheel.name}: not published: kdlab/__main__.py"
    ]
    told = release.differences({}, {"notebooks/00_start_here.ipynb": b""})
    assert told == ["missing: notebooks/00_start_here.ipynb"]


def test_the_sdist_gives_the_same_wheel(tmp_path):
    wheel, sdist = packages.built()
    assert release.again(sdist, wheel, tmp_path) == []


def test_the_command_releases_or_says_why_not(tmp_path, monkeypatch, capsys):
    files = here()
    monkeypatch.setattr(release, "build", lambda *_: packages.built())
    monkeypatch.setattr(release, "committed", lambda: files)
    monkeypatch.setattr(release, "again", lambda *_: [])
    asked = ["--no-install", "--out", str(tmp_path / "dist")]
    assert release.main(asked) == 0
    said = capsys.readouterr().out
    assert "install   skipped: --no-install" in said and said.count("sha256 ") == 2
    assert {p.suffix for p in (tmp_path / "dist").iterdir()} == {".whl", ".gz"}
    monkeypatch.setattr(release, "again", lambda *_: ["it differs"])
    assert release.main(["--no-install", "--out", str(tmp_path / "none")]) == (
        "it differs\nnothing is released"
    )
    assert not (tmp_path / "none").exists()


def test_the_makefile_knows_it(capsys):
    assert "tools/release.py $(if $(QUICK),--no-install)" in text("Makefile")
    with pytest.raises(SystemExit):
        release.main(["--help"])
    assert "--no-install" in capsys.readouterr().out


def test_examples_of_the_release():
    assert doctest.testmod(release).failed == 0
