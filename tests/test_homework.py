"""Every homework: the rules of its cells, full marks for the instructor, mutants that fail exactly
where they should.

tests/homework/hwN.py holds the right answers written in other ways, and the wrong ones.
"""

import ast
import importlib
import re
import runpy
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "homework")]
homework, run, runner = (importlib.import_module(name) for name in ("homework", "run", "runner"))
read = runner.read

INSTRUCTOR, STUDENT = ROOT / "notebooks/homework/instructor", ROOT / "notebooks/homework/student"
NAMES = sorted(path.stem for path in INSTRUCTOR.glob("hw*/hw*.ipynb"))
HERE = ROOT / "tests" / "homework"
DATA = {
    name: runpy.run_path(str(HERE / f"{name}.py"))
    for name in NAMES
    if (HERE / f"{name}.py").exists()
}
SECRET = "a secret of the tests"
FLAGS = ("grade", "locked", "solution", "task")
KINDS = {
    "solution": (False, False, True, False),
    "check": (True, True, False, False),
    "context": (False, True, False, False),
    "id": (False, False, False, False),  # a student's own, which draws their data
    "read": (True, False, True, False),  # words, to which a person gives the points
}
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def path(name):
    return INSTRUCTOR / name / f"{name}.ipynb"


def less(name):
    """What a homework measures less often here than where it is graded."""
    found, text = DATA[name].get("LESS", {}), path(name).read_text(encoding="utf-8")
    assert [usual for usual in found if usual not in text] == [], f"{name} has no such text"
    return found


def kind(cell):
    flags = tuple(cell.metadata.nbgrader.get(flag) for flag in FLAGS)
    return next((name for name, wanted in KINDS.items() if wanted == flags), None)


def graded(notebook, *kinds):
    return [cell for cell in notebook.cells if "nbgrader" in cell.metadata and kind(cell) in kinds]


# --- the rules: each returns a list of faults ---


def ids(notebook, name):
    found = [run.name(cell) for cell in notebook.cells if run.name(cell)]
    pattern = {
        "solution": rf"{name}-q\d+",
        "check": rf"{name}-q\d+-\w[\w-]*",
        "context": rf"{name}-(?:setup[\w-]*|q\d+-given[\w-]*)",
        "read": rf"{name}-q\d+-read",
        "id": rf"{name}-id",
    }
    faults = [f"{i}: not unique" for i in set(found) if found.count(i) > 1]
    faults += [
        f"{run.name(cell)}: not a name for a {kind(cell)} cell"
        for cell in graded(notebook, *KINDS)
        if not re.fullmatch(pattern[kind(cell)], run.name(cell))
    ]
    cells = [cell.get("id") for cell in notebook.cells]
    return faults + (
        ["cell ids: missing or not unique"] if None in cells or len(set(cells)) < len(cells) else []
    )


def marked(notebook, name):
    faults = [
        f"{run.name(cell)}: no kind of cell has these flags"
        for cell in notebook.cells
        if "nbgrader" in cell.metadata and kind(cell) is None
    ]
    faults += [
        f"{run.name(cell)}: nbgrader schema is not 3"
        for cell in notebook.cells
        if cell.metadata.get("nbgrader", {}).get("schema_version", 3) != 3
    ]
    return faults + [
        f"cell {i}: code without a grade id"
        for i, cell in enumerate(notebook.cells, start=1)
        if cell.cell_type == "code" and "nbgrader" not in cell.metadata
    ]


def points(notebook, name):
    faults = [
        f"{run.name(cell)}: no points"
        for cell in graded(notebook, "check", "read")
        if not cell.metadata.nbgrader.get("points", 0) > 0
    ]
    total = sum(
        cell.metadata.nbgrader.get("points", 0)
        for cell in graded(homework.variant(notebook, name), "check", "read")
        if "-bonus-" not in run.name(cell)
    )  # on top of the 20
    return faults if total == 20 else [*faults, f"a student can earn {total} points, not 20"]


def messages(notebook, name):
    faults = []
    for cell in graded(notebook, "check"):
        asserts = [
            node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Assert)
        ]
        faults += [] if asserts else [f"{run.name(cell)}: asserts nothing"]
        for node in asserts:
            said = ast.unparse(node.msg) if node.msg else ""
            if len(said) < 15 or re.match(
                r"""f?['"](wrong|incorrect|failed|not right)\b[^:]*$""", said.lower()
            ):
                faults.append(f"{run.name(cell)}: an assert does not say what to look at: {said}")
    return faults


def hidden(notebook, name):
    told = {
        run.question_of(cell)
        for cell in graded(notebook, "check")
        if "### BEGIN HIDDEN TESTS" in cell.source
    }
    faults = [
        f"{run.name(cell)}: has no hidden test in any check"
        for cell in graded(notebook, "solution")
        if run.name(cell) not in told
    ]
    faults += [
        f"{run.name(cell)}: no solution between its marks"
        for cell in graded(notebook, "solution")
        if not re.search(r"### BEGIN SOLUTION\n(.|\n)+### END SOLUTION", cell.source)
    ]
    between = r"### BEGIN HIDDEN TESTS\n(.|\n)*assert(.|\n)+### END HIDDEN TESTS"
    return faults + [
        f"{run.name(cell)}: asserts nothing hidden between the marks"
        for cell in graded(notebook, "check")
        if "HIDDEN" in cell.source and not re.search(between, cell.source)
    ]


def clean(notebook, name):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    faults = [
        f"{run.name(cell)}: outputs or a count"
        for cell in code
        if cell.outputs or cell.execution_count
    ]
    faults += [
        f"{run.name(cell)}: a magic"
        for cell in code
        if re.search(r"^\s*[%!]", cell.source, re.MULTILINE)
    ]
    return faults + (
        []
        if dict(notebook.metadata.get("kernelspec", {})) == KERNEL
        else ["the kernel is not python3"]
    )


def opening(notebook, name):
    first = notebook.cells[0].source if notebook.cells[0].cell_type == "markdown" else ""
    required = {
        "a title, '# …'": r"^# ",
        "minutes": r"\d\s*min",
        "the lesson to have done": r"[Ll]esson",
        "hidden checks": r"[Hh]idden",
        "the time limit": r"second|\d\s*s\b",
        "how to hand in": r"[Dd]ownload",
    }
    return [
        f"its first cell lacks {what}"
        for what, pattern in required.items()
        if not re.search(pattern, first)
    ]


RULES = [ids, marked, points, messages, hidden, clean, opening]


def test_there_is_homework():
    assert NAMES, (
        "no notebooks/homework/instructor/hwN/hwN.ipynb: the tests below would test nothing"
    )
    assert set(DATA) == set(NAMES), "each needs its tests/homework/hwN.py"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_instructor_notebook(name, rule):
    assert rule(read(path(name)), name) == []


# --- what is released ---


def test_the_committed_student_notebooks_are_what_the_tool_makes():
    assert sorted(p.stem for p in STUDENT.glob("*/*")) == NAMES, (
        "run `make homework`; remove what has no instructor's"
    )
    for name in NAMES:
        made = nbformat.writes(homework.release(homework.variant(read(path(name)), name))) + "\n"
        assert (STUDENT / name / f"{name}.ipynb").read_text(encoding="utf-8") == made, (
            f"{name}: run `make homework`"
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_release_tells_nothing_and_earns_nothing(name):
    student = STUDENT / name / f"{name}.ipynb"
    text = student.read_text(encoding="utf-8")
    assert not re.search(r"### (BEGIN|END)|# secret|\"pool\"", text)
    checks = {run.name(cell) for cell in graded(read(student), "check")}
    wrong = run.failed(student, less=less(name))
    assert wrong == checks, f"{checks - wrong} pass without an answer"


# --- full marks, and mutants ---


@pytest.mark.parametrize("name", NAMES)
def test_the_instructor_earns_every_point_of_a_secret_variant(name, tmp_path):
    made = homework.variant(read(path(name)), name, SECRET)
    assert made != homework.variant(read(path(name)), name), f"{name}: a secret changes nothing"
    nbformat.write(made, tmp_path / f"{name}.ipynb")
    assert run.failed(tmp_path / f"{name}.ipynb") == set(), run.failed.errors


def questions(name):
    return [run.name(cell) for cell in graded(read(path(name)), "solution")]


@pytest.mark.parametrize("question", [q for name in NAMES for q in questions(name)])
def test_another_right_answer_passes(question):
    name = question.split("-")[0]
    if question != questions(name)[0]:  # on its own, without the questions before it
        assert run.failed(path(name), question, less=less(name)) == set(), run.failed.errors
    answers = DATA[name]["ALTERNATIVES"][question]
    assert len(set(answers)) >= 2, f"{question}: two other right answers, please"
    for answer in answers:
        assert run.failed(path(name), question, answer, less(name)) == set(), run.failed.errors


MUTANTS = [mutant for data in DATA.values() for mutant in data["MUTANTS"]]


@pytest.mark.parametrize(
    "question, wrong, answer, expected",
    MUTANTS,
    ids=[f"{question}-{wrong}"[:60] for question, wrong, *_ in MUTANTS],
)
def test_a_wrong_answer_fails_exactly_there(question, wrong, answer, expected):
    assert expected, f"{wrong}: a mutant that fails nowhere tests nothing"
    name = question.split("-")[0]
    assert run.failed(path(name), question, answer, less(name)) == expected, run.failed.errors
    for check, error in run.failed.errors.items():
        assert str(error).strip() or not isinstance(error, AssertionError), (
            f"{check} fails without a word"
        )


@pytest.mark.parametrize("name", NAMES)
def test_each_check_has_a_mutant_of_its_own(name):
    sets = [frozenset(expected) for _, _, _, expected in DATA[name]["MUTANTS"]]
    # thresholds nest: a mutant may fail one check more than another one
    alone = {
        next(iter(a - b)) for a in sets for b in (frozenset(), *sets) if b < a and len(a - b) == 1
    }
    checks = {run.name(cell) for cell in graded(read(path(name)), "check")}
    assert checks - alone == set(), "no mutant fails exactly there"


# --- each rule catches its bad example ---


def cell(source, identity, kind="context", **more):
    flags = dict(zip(FLAGS, KINDS[kind], strict=True))
    return new_code_cell(
        source, metadata={"nbgrader": {**flags, "grade_id": identity, "schema_version": 3, **more}}
    )


TITLE = """# Homework 9
30 minutes, after lesson 01. Hidden checks, 30 seconds a cell. \
Hand in: save, then File → Download."""
CHECK = """assert double(2) == 4, 'is it two times x?'
### BEGIN HIDDEN TESTS
assert double(3) == 6, 'is it two times x?'
### END HIDDEN TESTS"""


def good():
    """A made-up homework with nothing wrong."""
    cells = [
        new_markdown_cell(TITLE),
        cell("SEED = 7  # secret: 1..9", "hw9-setup"),
        cell(
            "def double(x):\n### BEGIN SOLUTION\n    return 2 * x\n### END SOLUTION",
            "hw9-q1",
            "solution",
        ),
        cell(CHECK, "hw9-q1-value", "check", points=20),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": dict(KERNEL)})


def spoil(i, key, value):
    return lambda nb: nb.cells[i].metadata.nbgrader.update({key: value})


def source(i, old, new):
    return lambda nb: nb.cells[i].update(source=nb.cells[i].source.replace(old, new))


BAD = [
    (ids, "not unique", spoil(3, "grade_id", "hw9-q1")),
    (ids, "not a name", spoil(3, "grade_id", "hw9-q1")),
    (ids, "not a name", spoil(1, "grade_id", "setup")),
    (ids, "not a name", spoil(2, "grade_id", "hw8-q1")),
    (ids, "cell ids", lambda nb: nb.cells[1].update(id=nb.cells[2].id)),
    (marked, "no kind", spoil(2, "locked", True)),
    (marked, "schema", spoil(2, "schema_version", 2)),
    (marked, "without", lambda nb: nb.cells[1].metadata.clear()),
    (points, "no points", spoil(3, "points", 0)),
    (points, "not 20", spoil(3, "points", 19)),
    (messages, "what to look at", source(3, ", 'is it two times x?'\n###", "\n###")),
    (messages, "what to look at", source(3, "'is it two times x?'", "'wrong, try it again'")),
    (messages, "nothing", lambda nb: nb.cells[3].update(source="double(2)")),
    (
        hidden,
        "no hidden",
        lambda nb: nb.cells[3].update(source="assert double(2) == 4, 'is it two times x?'"),
    ),
    (hidden, "between", source(3, "assert double(3) == 6, 'is it two times x?'", "double(3)")),
    (hidden, "no solution", source(2, "### BEGIN SOLUTION", "")),
    (clean, "outputs", lambda nb: nb.cells[1].update(execution_count=1)),
    (clean, "magic", source(1, "SEED", "%time SEED")),
    (clean, "kernel", lambda nb: nb.metadata.clear()),
    *[
        (opening, what, source(0, text, "…"))
        for what, text in [
            ("title", "#"),
            ("minutes", "30 minutes"),
            ("lesson", "lesson"),
            ("hidden", "Hidden"),
            ("limit", "30 seconds"),
            ("hand in", "Download"),
        ]
    ],
]


@pytest.mark.parametrize(
    "rule, word, change", BAD, ids=[f"{rule.__name__}-{word}" for rule, word, _ in BAD]
)
def test_rule_catches(rule, word, change):
    notebook = good()
    assert [fault for each in RULES for fault in each(notebook, "hw9")] == []
    change(notebook)
    assert word in " ".join(rule(notebook, "hw9"))


# --- secret lines and pools ---


def settled(line, secret=SECRET):
    return (
        homework.variant(new_notebook(cells=[cell(line, "hw9-setup")]), "hw9", secret)
        .cells[0]
        .source
    )


def test_a_secret_line_keeps_its_literal_without_a_secret_and_gets_another_with_one():
    line = "    T = 4.0  # secret: 2.0, 3.0, 4.0, 5.0"
    assert (
        settled(line, None) == "    T = 4.0" and settled("x = 1  # a secret") == "x = 1  # a secret"
    )
    drawn = {settled(line, f"secret {i}") for i in range(40)}
    assert drawn == {"    T = 2.0", "    T = 3.0", "    T = 5.0"}
    seeds = [settled("SEED = 7  # secret: 1..9999", f"secret {i}") for i in range(20)]
    assert len(set(seeds)) == 20 and settled("SEED = 7  # secret: 1..9999") == settled(
        "SEED = 7  # secret: 1..9999"
    )
    assert settled("NAME = 'a'  # secret: 'a', 'b'") == "NAME = 'b'"
    assert (
        settled("A = 1  # secret: 1..900").split()[2]
        != settled("B = 1  # secret: 1..900").split()[2]
    )


@pytest.mark.parametrize(
    "line",
    [
        "T = 4.0  # secret: 2.0 3.0",
        "T = 4  # secret: 4",
        "f(4)  # secret: 1..9",
        "T = x  # secret: 1..9",
        "T = 4  # secret: 9..1",
        "T = 4  # secret: 5..9",
        "T = 4  # secret 1..9",
        "T = 1  # secret: 1, 1",
        "T = 4  # secret:",
    ],
)
def test_a_malformed_secret_line_is_told(line):
    with pytest.raises(
        homework.HomeworkError,
        match=r"hw9, hw9-setup: .*(expected 'NAME = literal|its own choices)",
    ):
        settled(line)


def pooled(items="abcd", keep=2):
    cells = [new_markdown_cell("start")]
    for n, item in enumerate(items, start=1):
        mark = {"pool": "bugs", "item": item, "keep": keep}
        cells += [
            cell(item, f"hw9-q{n}", "solution"),
            cell(item, f"hw9-q{n}-value", "check", points=2),
        ]
        cells[-1].metadata["kdlab"], cells[-2].metadata["kdlab"] = dict(mark), dict(mark)
    return new_notebook(cells=[*cells, new_markdown_cell("end")])


def kept(notebook, secret):
    return [one.source for one in homework.variant(notebook, "hw9", secret).cells]


def test_a_pool_keeps_the_first_items_or_those_of_the_secret():
    assert kept(pooled(), None) == ["start", "a", "a", "b", "b", "end"]
    drawn = {tuple(kept(pooled(), f"secret {i}")) for i in range(200)}
    assert len(drawn) == 12  # every ordered pair of four
    assert all(
        found[0] == "start" and found[-1] == "end" and found[1] == found[2] for found in drawn
    )
    assert kept(pooled(), "x") == kept(pooled(), "x")


@pytest.mark.parametrize(
    "spoil, word",
    [
        (lambda nb: pooled(keep=5), "has 4 items and keeps"),
        (lambda nb: pooled(keep="2"), "keeps"),
        (lambda nb: (nb.cells[1].metadata.kdlab.update(keep=3), nb)[1], "keeps"),
        (lambda nb: (nb.cells[2].metadata.nbgrader.update(points=1), nb)[1], "equal points"),
        (lambda nb: (nb.cells.insert(2, new_markdown_cell("between")), nb)[1], "stand together"),
    ],
)
def test_a_pool_that_cannot_be_drawn_is_told(spoil, word):
    with pytest.raises(homework.HomeworkError, match=f"hw9: .*{word}"):
        kept(spoil(pooled()), SECRET)


def test_a_secret_writes_into_build_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(homework, "ROOT", tmp_path)
    monkeypatch.setenv("SECRET", "a secret of the tests")
    before = {p: p.read_bytes() for p in ROOT.glob("notebooks/homework/*/*/*.ipynb")}
    assert homework.main(["hw1"]) is None
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.ipynb")}
    folder = f"build/homework/{homework.short('a secret of the tests')}"
    assert written == {f"{folder}/{kind}/hw1/hw1.ipynb" for kind in ("instructor", "student")}
    assert before == {p: p.read_bytes() for p in ROOT.glob("notebooks/homework/*/*/*.ipynb")}
    monkeypatch.setenv("SECRET", "short")
    assert "at least 12 characters, got 5" in homework.main(
        []
    ) and "no such homework: hw99" not in homework.main([])
    monkeypatch.delenv("SECRET")
    assert "no such homework: hw99" in homework.main(["hw99"])
