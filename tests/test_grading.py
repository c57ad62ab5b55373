"""Grading a folder of submissions: three simulated students, and everything else that is handed
in."""

import copy
import csv
import functools
import importlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from datetime import datetime
from pathlib import Path

import nbformat
import nbgrader.api
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.api import Gradebook, MissingEntry

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
grade, homework, marking, runner, sandbox, submissions = (
    importlib.import_module(name)
    for name in ("grade", "homework", "marking", "runner", "sandbox", "submissions")
)

LIMITS = marking.Limits(cell=4, total=200)  # in all far more than it takes, also beside others
SETUP = """import math
def near(a, b):
    return abs(a - b) < 1e-6"""
DOUBLE = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
HALF = "def half(x):\n    ### BEGIN SOLUTION\n    return x / 2\n    ### END SOLUTION"
CHECK = """assert near({0}({1}), {2}), 'is it {0} the number?'
### BEGIN HIDDEN TESTS
assert math.isclose({0}({3}), {4}), 'is it {0} the number, for others too?'
### END HIDDEN TESTS"""
CELLS = [
    ("hw9-setup", "context", SETUP, None),
    ("hw9-q1", "solution", DOUBLE, None),
    ("hw9-q1-small", "check", CHECK.format("double", 2, 4, 7, 14), 3),
    ("hw9-q1-large", "check", CHECK.format("double", 1e9, 2e9, 3e9, 6e9), 2),
    ("hw9-q2", "solution", HALF, None),
    ("hw9-q2-value", "check", CHECK.format("half", 4, 2, 9, 4.5), 5),
]
RIGHT = {"hw9-q1": "def double(x):\n    return x + x", "hw9-q2": "def half(x):\n    return 0.5 * x"}


def cell(identity, kind, source, points=None):
    flags = {
        "grade": kind == "check",
        "locked": kind != "solution",
        "solution": kind == "solution",
        "task": False,
    }
    marks = {**flags, "grade_id": identity, "schema_version": 3} | (
        {"points": points} if points else {}
    )
    return new_code_cell(source, metadata={"nbgrader": marks}, id=identity)


sandboxed = functools.cache(sandbox.why_not)  # tried once: each try starts a Python
# a process too, for the same answer; asked whenever a gradebook is begun
alembic_version = functools.cache(nbgrader.api.get_alembic_version)


@pytest.fixture(autouse=True)
def asked_once(monkeypatch):
    monkeypatch.setattr(sandbox, "why_not", sandboxed)
    monkeypatch.setattr(nbgrader.api, "get_alembic_version", alembic_version)


@pytest.fixture
def instructor(tmp_path):
    """A small homework of ten points, without torch, so that its kernels start quickly."""
    cells = [new_markdown_cell("# Homework 9", id="title"), *(cell(*one) for one in CELLS)]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    path = tmp_path / "instructor" / "hw9" / "hw9.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path.parent.parent


def reference(instructor, name="hw9"):
    return homework.variant(runner.read(instructor / name / f"{name}.ipynb"), name)


def answered(released, answers):
    notebook = copy.deepcopy(released)
    for one in notebook.cells:
        one.source = answers.get(homework.grade_id(one), one.source)
    return notebook


def named(notebook, identity):
    return next(one for one in notebook.cells if homework.grade_id(one) == identity)


def hand_in(notebook, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def rows(out):
    with (out / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        return {(row["student"], row["homework"]): row for row in csv.DictReader(file)}


def book(out):
    return Gradebook(f"sqlite:///{out / 'gradebook.db'}")


@pytest.fixture
def passes(monkeypatch):
    """No kernel: every check passes."""
    monkeypatch.setattr(grade, "mark", lambda notebook, reference, limits: [])
    monkeypatch.setattr(sandbox, "why_not", lambda: "not in this test")


# --- three simulated submissions of homework 1, from the release to the feedback ---

# in the small homework: each of these costs kernels, and with torch they start slowly
HOSTILE = {
    "hw9-q1": (
        """import os, pathlib
def look(path):
    try:
        return "SEEN" if pathlib.Path(path).read_bytes() else "empty"
    except OSError:
        return "nothing"
def write(path):
    try:
        pathlib.Path(path).write_text("I was here")
        return "WRITTEN"
    except OSError:
        return "refused"
print("hidden tests", look({hidden!r}), "gradebook", look({gradebook!r}),
      "outside", write({outside!r}), "home", os.environ["HOME"], "secret", os.environ.get("SECRET"))
near = math.isclose = lambda *arguments, **options: True
def double(x):
    return x"""
    ),
    "hw9-q2": (
        """import time
def half(x):
    while True:
        time.sleep(1)"""
    ),
    "hw9-q3": "import os\nos._exit(0)",
}
MORE = [  # that eve does not get to, and that she gets right
    ("hw9-q3", "solution", DOUBLE.replace("double", "twice"), None),
    ("hw9-q3-value", "check", CHECK.format("twice", 2, 4, 7, 14), 4),
    ("hw9-q4", "solution", HALF.replace("half", "part"), None),
    ("hw9-q4-value", "check", CHECK.format("part", 4, 2, 9, 4.5), 6),
]
HALF_RIGHT = {
    # three of its four checks pass
    "hw1-q1": "def soften(logits, T):\n    return torch.softmax(logits * T, -1)",
    "hw1-q2": "def entropy(p):\n    return -(p * p.log()).sum(-1)",  # two of its three
    "hw1-q3": "def find_temperature(logits, share)\n    return 1",  # no Python at all
    "hw1-q4": "def soft_gradient(*a):\n    return torch.zeros(())",  # none of its three
}


def of_a_small_teacher(path):
    """Homework 1 with question 5's teacher trained for a moment: each of six processes trains it,
    and no check asks what it answers."""
    notebook = runner.read(homework.HOMEWORK / "instructor" / "hw1" / "hw1.ipynb")
    given = named(notebook, "hw1-q5-given")
    usual, small = (
        "kd.train(kd.convnet(8, 16), whole, epochs=10)",
        "kd.train(kd.mlp(8), whole, epochs=1)",
    )
    assert given.source.count(usual) == 1
    given.source = given.source.replace(usual, small)
    hand_in(notebook, path / "hw1" / "hw1.ipynb")
    return path


def test_three_students_from_release_to_feedback(instructor, tmp_path, capsys, monkeypatch):
    of_a_small_teacher(instructor)
    small = instructor / "hw9" / "hw9.ipynb"
    longer = runner.read(small)
    longer.cells += [cell(*one) for one in MORE]
    nbformat.write(longer, small)
    out, inside = tmp_path / "out", sandbox.why_not() == ""
    monkeypatch.setenv("SECRET", "a secret that nobody knows")
    settled = homework.variant(
        runner.read(instructor / "hw1" / "hw1.ipynb"), "hw1", os.environ["SECRET"]
    )
    released = homework.release(settled)
    right = {
        homework.grade_id(one): one.source for one in settled.cells if marking.kind(one) == "answer"
    }
    right["hw1-id"] = 'STUDENT = "Ada 4711"'
    hand_in(answered(released, right), tmp_path / "in" / "ada" / "hw1" / "hw1.ipynb")
    hand_in(answered(released, {**right, **HALF_RIGHT}), tmp_path / "in" / "bob" / "hw1.ipynb")
    right["hw1-id"] = 'STUDENT = ""'
    paths = {
        "hidden": str(homework.HOMEWORK / "instructor" / "hw1" / "hw1.ipynb"),
        "gradebook": str(out / "gradebook.db"),
        "outside": str(tmp_path / "in" / "outside.txt"),
    }
    hostile = {
        **HOSTILE,
        "hw9-q1": re.sub(r"\{(\w+)!r\}", lambda m: repr(paths[m[1]]), HOSTILE["hw9-q1"]),
        "hw9-q4": "def part(x):\n    return x / 2",
    }
    eve = answered(homework.release(reference(instructor)), hostile)
    eve.cells.insert(eve.cells.index(named(eve, "hw9-q4")), new_code_cell("exit()"))
    hand_in(eve, tmp_path / "in" / "eve" / "hw9.ipynb")

    grade.run(tmp_path / "in", out, LIMITS, instructor=instructor)

    found, said = rows(out), capsys.readouterr().out
    assert said.startswith("Grading runs the students' code.") and ("NO SANDBOX" in said) == (
        not inside
    )
    ada, bob, eve = found["ada", "hw1"], found["bob", "hw1"], found["eve", "hw9"]
    assert (ada["total"], ada["max"], ada["remark"]) == (
        "20",
        "20",
        "the same id in bob; data of the id 'Ada 4711'",
    )
    assert [bob[f"q{n}"] for n in range(1, 6)] == ["3", "2", "0", "0", "5"] and bob["total"] == "10"
    assert bob["remark"] == (
        "the same id in ada; data of the id 'Ada 4711'; hw1-q3 stops with SyntaxError"
    )
    assert [eve[f"q{n}"] for n in range(1, 5)] == ["0", "0", "0", "6"], eve["remark"]
    for remark in (
        f"hw9-q2-value ran over its {LIMITS.cell} s: a new kernel went on",
        "hw9-q3 ended its kernel: a new kernel went on, with the other answers",
        "a cell of the student's own calls exit",
    ):
        assert remark in eve["remark"]
    graded = (
        named(runner.read(out / "autograded" / "eve" / "hw9" / "hw9.ipynb"), "hw9-q1")
        .outputs[0]
        .text
    )
    assert "secret None" in graded and str(Path.home()) not in graded.split("home")[1].split()
    if inside:
        assert graded.startswith("hidden tests nothing gradebook nothing outside refused")
        assert not (tmp_path / "in" / "outside.txt").exists()
    page = (out / "feedback" / "bob" / "hw1" / "hw1.html").read_text(encoding="utf-8")
    assert (
        "hw1-q3 stops with SyntaxError" in page
        and "AssertionError: T above 1 evens a row out" in page
    )
    assert (
        "data of the id" in page and "the same id" not in page
    )  # of others a student hears nothing
    assert (
        "generator=torch" not in page and "cdnjs" not in page
    )  # no hidden test, nothing from the network
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=.https?:", page)
    with book(out) as grades:
        assert grades.find_submission("hw1", "bob").score == 10


# --- ways to a better grade ---

CHEATS = {
    "forges a result": {
        "hw9-q1": (
            """
def double(x):
    shell = get_ipython()
    content = {"execution_count": 1, "metadata": {}, "data": {"text/plain": "3"}}
    shell.kernel.session.send(shell.kernel.iopub_socket, "execute_result", content=content,
                              parent=shell.parent_header)
    return 0"""
        )
    },
    "rewrites a function's code": {
        "hw9-q1": (
            """
def yes(a, b): return True
near.__code__ = yes.__code__
def double(x): return 0"""
        )
    },
    "leaves by exit": {"hw9-q1": "def double(x):\n    raise SystemExit(0)"},
    "leaves a module behind and dies": {
        "hw9-q1": (
            """
import os, pathlib
pathlib.Path("math.py").write_text("isclose = lambda *a: True")
startup = pathlib.Path(os.environ["HOME"], ".ipython", "profile_default", "startup")
startup.mkdir(parents=True, exist_ok=True)
(startup / "a.py").write_text("import builtins; builtins.abs = min")
def double(x): os._exit(0)"""
        )
    },
}


# the rest of an answer that is wrong, below what is to make it count
WRONG = "\ndef double(x):\n    return 0"
EQUAL = """
class Equal({0}):
    def yes(self, *arguments):
        return True
    def zero(self, *arguments):
        return 0.0
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = yes
    __sub__ = __rsub__ = __abs__ = __neg__ = zero
    __hash__ = None
def double(x):
    return Equal()"""
# what takes hold of the connection: it has the objects that serve the checks
HOLD = """
import gc, sys
here = next(m.here for m in list(sys.modules.values()) if hasattr(m, "here"))
module = next(m for m in list(sys.modules.values()) if getattr(m, "here", None) is here)
"""
HOOKS = {
    "every method of the shell": """
shell = type(get_ipython())
for name in [n for n in dir(shell) if n.startswith(("run", "show", "should", "transform"))]:
    setattr(shell, name, lambda *a, **k: None)
get_ipython().run_cell = lambda *a, **k: None""",
    "builtins": """
import builtins
builtins.compile = lambda *a, **k: (lambda: None).__code__
builtins.exec = builtins.eval = lambda *a, **k: None
builtins.isinstance = builtins.all = builtins.any = lambda *a, **k: True
builtins.AssertionError = type("Quiet", (Exception,), {})""",
    "the import system": """
import sys, builtins
class Finder:
    def find_spec(self, name, path=None, target=None):
        raise ImportError(name)
sys.meta_path.insert(0, Finder())
sys.modules["math"] = sys.modules["json"] = sys.modules["struct"] = None
builtins.__import__ = lambda name, *a, **k: sys.modules[__name__]""",
    "a trace function": """
import sys, threading
def trace(frame, event, argument):
    frame.f_trace_lines = False
    if "near" in frame.f_code.co_names or "double" in frame.f_code.co_name:
        frame.f_globals["near"] = lambda a, b: True
    return trace
sys.settrace(trace); sys.setprofile(trace); threading.settrace_all_threads = trace
threading.setprofile(trace)""",
    "rewritten asserts": """
import ast
class Drop(ast.NodeTransformer):
    def visit_Assert(self, node):
        return ast.Pass()
get_ipython().ast_transformers.append(Drop())
get_ipython().input_transformers_post.append(
    lambda lines: [line for line in lines if not line.startswith("assert")])
get_ipython().showtraceback = lambda *a, **k: None""",
    "an exit handler": """
import atexit, os, sys
atexit.register(os._exit, 0)
sys.excepthook = sys.unraisablehook = lambda *a: os._exit(0)
get_ipython().set_custom_exc((Exception,), lambda *a, **k: None)""",
    "a thread that goes on": """
import threading, time
def work():
    space = get_ipython().user_ns
    while True:
        space["near"] = lambda a, b: True
        space["abs"] = lambda x: 0
        time.sleep(0.001)
threading.Thread(target=work, daemon=True).start()""",
    "a process that goes on": """
import os, time
if os.fork() == 0:
    time.sleep(60); os._exit(0)""",
    "the connection says done": HOLD
    + """
module.Student._call = lambda self, *a: self.send("done")""",
    "the connection answers twice": HOLD
    + """
for _ in range(20):
    here.send("answer", tree=4, told=[], follows=[], tape=None,
              effects={"tensors": {}, "modules": {}})""",
    "the connection sends code": HOLD
    + """
import pickle
class Runs:
    def __reduce__(self):
        return exec, ("import __main__; __main__.checker.space['near'] = lambda a, b: True",)
def tree(self, value, depth=0):
    return ["pickle", self.blob(pickle.dumps(Runs()))]
module.Pack.tree = tree""",
    "the connection asks for the checks": HOLD
    + """
def _call(self, message, blobs):
    for target in ("near", "exec", ["name", "near"], ["yours", 0, {}]):
        tree = ["list", [["list", []], ["dict", []]]]
        self.send("call", key="k", target=target, tree=tree, grad=False, wanted=False, random=None)
        self.receive()
    self.send("keep", names=["near"]); self.receive()
    self.send("answer", tree=0, follows=[], tape=None, effects={})
module.Student._call = _call""",
    "the connection sends what never ends": HOLD
    + """
deep = "[" * 100_000
def _call(self, message, blobs):
    self.connection.send_bytes(b"\\0" * 7 + b"\\xff" + deep.encode())
module.Student._call = _call""",
    "names of what the checks use": """
import math, builtins
def near(a, b): return True
def abs(x): return 0
builtins.abs = lambda x: 0
math.isclose = lambda *a, **k: True
math = type("math", (), {"isclose": staticmethod(lambda *a, **k: True)})""",
}
HOSTILE_ANSWERS = {how: source + WRONG for how, source in HOOKS.items()} | {
    f"equal to everything, {kind}": EQUAL.format(kind) for kind in ("object", "float", "str")
}


def marked(instructor, answers, own=None, limits=LIMITS):
    """(the checks that pass, the remarks, the notebook) of a submission; own: a cell before q2."""
    settled = reference(instructor)
    notebook = answered(homework.release(settled), answers)
    if own is not None:
        notebook.cells.insert(notebook.cells.index(named(notebook, "hw9-q2")), new_code_cell(own))
    for one in notebook.cells:
        one.metadata["tags"] = ["raises-exception"]
    handed = json.loads(nbformat.writes(notebook))["cells"]
    restored, _ = submissions.restored(
        settled, released := homework.release(settled), [submissions.cell_of(c) for c in handed]
    )
    assert released is not None
    limits = marking.Limits(limits.cell, limits.total, inside=sandbox.why_not() == "")
    remarks = marking.mark(restored, settled, limits)
    passed = {
        homework.grade_id(one)
        for one in restored.cells
        if marking.kind(one) == "check"
        and not any(output.output_type == "error" for output in one.outputs)
    }
    return passed, remarks, restored


@pytest.mark.parametrize("how", [*CHEATS, *HOSTILE_ANSWERS])
def test_no_point_for(how, instructor):
    answer = CHEATS[how]["hw9-q1"] if how in CHEATS else HOSTILE_ANSWERS[how]
    passed, remarks, notebook = marked(instructor, {**RIGHT, "hw9-q1": answer})
    assert passed == {"hw9-q2-value"}, remarks  # what is right stays right
    assert all(
        output.output_type != "execute_result"
        for one in notebook.cells
        if one.cell_type == "code"
        for output in one.outputs
    )


def test_no_hidden_source_is_where_the_submission_is(instructor):
    """Neither in the kernel's memory nor in its history, and what a function prints is nobody's."""
    looks = """
import gc, sys
def double(x):
    word = "for others" + " too"
    texts = [t for t in gc.get_objects() if isinstance(t, (list, dict)) and t is not texts_seen]
    found = any(word in str(v) for t in texts for v in (t.values() if isinstance(t, dict) else t)
                if isinstance(v, str))
    frame, files = sys._getframe(), []
    while frame:
        files.append(frame.f_code.co_filename)
        frame = frame.f_back
    seen.append((found, any("hw9" in f for f in files)))
    print("PRINTED", In[-1])
    sys.stderr.write("PRINTED")
    return 2 * x
texts_seen, seen = None, []"""
    own = "print('SEEN', sorted(set(seen)), any('others' + ' too' in str(c) for c in In))"
    passed, _, notebook = marked(instructor, {**RIGHT, "hw9-q1": looks}, own)
    text = nbformat.writes(notebook)
    assert len(passed) == 3 and "PRINTED" not in str([one.get("outputs") for one in notebook.cells])
    assert "SEEN [(False, False)] False" in text


ALWAYS = """
class Always(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return True if function.__name__ in ("allclose", "equal", "__eq__") else args[0]
    def __eq__(self, other): return True
    __lt__ = __gt__ = __le__ = __ge__ = __eq__
    shape = property(lambda self: type("Any", (), {"__eq__": lambda *a: True})())
torch.allclose = torch.equal = torch.Tensor.allclose = lambda *a, **k: True
torch.Tensor.__bool__ = torch.Tensor.all = lambda *a, **k: True
F.softmax = lambda *a, **k: Always()
math.isclose = lambda *a, **k: True
"""


def test_no_point_for_what_is_done_to_torch():
    """Each answer of homework 1 claims to equal everything: nothing, as without an answer."""
    settled = reference(homework.HOMEWORK / "instructor", "hw1")
    names = {
        "hw1-q1": "def soften(logits, T):\n    return torch.ones(logits.shape).as_subclass(Always)",
        "hw1-q2": "def entropy(p):\n    return torch.ones(()).as_subclass(Always)",
        "hw1-q3": "def find_temperature(logits, share):\n    return Always()",
        "hw1-q4": "def soft_gradient(*a):\n    return torch.ones(()).as_subclass(Always)",
    }
    notebook = answered(homework.release(settled), {k: ALWAYS + v for k, v in names.items()})
    notebook, _ = submissions.restored(
        settled, homework.release(settled), odd(notebook, lambda cells: None)
    )
    inside = sandbox.why_not() == ""
    marking.mark(notebook, settled, marking.Limits(30, 300, inside))
    checks = [one for one in notebook.cells if marking.kind(one) == "check"]
    right = [homework.grade_id(c) for c in checks if c.outputs[0:1] == []]
    assert right == []


SLOW = """
import time
def build(train, teacher, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
                        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
                        nn.Linear(256, 10))
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    z = kd.outputs.logits(teacher, train.x)
    for _ in range(2):
        for rows in torch.randperm(2000).split(100):
            optimiser.zero_grad()
            F.mse_loss(net(train.x[rows]), z[rows]).backward()
            optimiser.step()
    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net
        def forward(self, x):  # its own time passes on no clock of this process
            import time
            true = time.__dict__.setdefault("true", time.perf_counter)
            began = true()
            for _ in range(30):
                z = self.net(x)
            time.spent = time.__dict__.get("spent", 0) + true() - began
            time.perf_counter = lambda: true() - time.spent
            return z
    return Slow().eval()
"""


# what builds a network twice, and two of the checks: each of the others takes such a network long
MEASURED = re.compile(r"^hw6-(setup.*|q1|q1-given-(build|again)|q1-bytes|q1-latency)$")
# in both processes; a network that takes thirty times as long does so on few images too
LESS = [
    ("hw6-setup-teacher", "8000", "1000"),
    ("hw6-setup-teacher", "total_steps=480", "total_steps=60"),
    ("hw6-setup-measures", "calls=300", "calls=20"),
    ("hw6-q1-latency", "digits(5151, 4000)", "digits(5151, 400)"),
]


def test_no_point_for_a_clock_of_one_s_own():
    """Homework 6: a network that takes thirty times as long, and its process is told otherwise."""
    settled = reference(homework.HOMEWORK / "instructor", "hw6")
    settled.cells = [one for one in settled.cells if MEASURED.search(homework.grade_id(one))]
    for place, usual, less in LESS:
        one = named(settled, place)
        assert usual in one.source
        one.source = one.source.replace(usual, less)
    notebook = answered(homework.release(settled), {"hw6-q1": SLOW})
    notebook, _ = submissions.restored(
        settled, homework.release(settled), odd(notebook, lambda cells: None)
    )
    marking.mark(notebook, settled, marking.Limits(150, 900, sandbox.why_not() == ""))
    slow, small = (named(notebook, f"hw6-q1-{name}").outputs for name in ("latency", "bytes"))
    assert not small and "many images at once" in slow[0].evalue


def test_what_a_function_says_in_a_hidden_test_is_left_out(instructor):
    says = "def double(x):\n    if x > 3:\n        raise ValueError(f'SAYS {x}')\n    return 2 * x"
    passed, _, notebook = marked(instructor, {**RIGHT, "hw9-q1": says})
    small, large = (
        named(notebook, f"hw9-q1-{name}").outputs[0].evalue for name in ("small", "large")
    )
    assert passed == {"hw9-q2-value"}
    assert small == "your function stops with it in a hidden test" and large == "SAYS 1000000000.0"


# --- no honest point is lost ---

DEADLY = {
    "os._exit": "import os\nos._exit(0)",
    "an endless loop": "while True:\n    pass",
    "2 GB of output": "for _ in range(2000):\n    print('x' * 10**6)",
    "too much memory": "x = bytearray(10**15)",
    "SystemExit": "exit()",
}


@pytest.mark.parametrize("how", DEADLY)
def test_later_answers_keep_the_earlier_ones_they_use(how, instructor):
    uses = {**RIGHT, "hw9-q2": "def half(x):\n    return double(x) / 4"}
    passed, remarks, _ = marked(instructor, uses, DEADLY[how])
    assert len(passed) == 3, remarks
    if how in ("os._exit", "an endless loop"):
        assert "a cell of the student's own " in remarks[0] and remarks[0].endswith(
            ": a new kernel went on, with the other answers"
        )


def test_an_answer_that_kills_when_it_is_called_is_there_for_others(instructor):
    deadly = "import os\ndef double(x):\n    return 2 * x if x < 1e6 else os._exit(0)"
    uses = {"hw9-q1": deadly, "hw9-q2": "def half(x):\n    return double(x) / 4"}
    passed, remarks, _ = marked(instructor, uses)
    assert passed == {"hw9-q1-small", "hw9-q2-value"}
    assert remarks == [
        "hw9-q1-large ended its kernel: a new kernel went on, with the other answers"
    ]


def test_time_is_limited_for_a_submission_as_a_whole(instructor):
    settled = reference(instructor)
    slow = answered(
        settled, {"hw9-q1": "import time\ndef double(x):\n    time.sleep(1.2)\n    return 2 * x"}
    )
    slow.cells[1:1] = [
        new_code_cell("import sys\nprint('x' * 10**6)\nsys.stderr.write('a warning')")
    ]
    remarks = marking.mark(slow, settled, marking.Limits(4, 3))
    assert remarks[-1] == "stopped after 3 s in all: what came after was not run"
    assert named(slow, "hw9-q2-value").outputs[0].evalue == "this check was not run"
    assert len(str(slow.cells[1].outputs)) < 2 * marking.LARGEST_OUTPUT
    assert all(
        output.get("name") != "stderr" for output in slow.cells[1].outputs
    )  # nbgrader takes it for a failure


def test_a_question_that_keeps_killing_its_kernel_is_given_up(instructor):
    passed, remarks, _ = marked(instructor, {**RIGHT, "hw9-q1": "import os\nos._exit(1)"})
    assert remarks == ["hw9-q1 ended its kernel: a new kernel went on, with the other answers"]
    assert passed == {"hw9-q2-value"}


# --- what else is handed in ---


def odd(notebook, spoil):
    content = json.loads(nbformat.writes(notebook))
    spoil(content["cells"])
    return [submissions.cell_of(one) for one in content["cells"]]


def place(cells, identity):
    return next(
        i
        for i, one in enumerate(cells)
        if one["metadata"].get("nbgrader", {}).get("grade_id") == identity
    )


def duplicate(cells):
    again = copy.deepcopy(cells[place(cells, "hw9-q1")])
    again["source"] = [
        line + "\n"
        for line in DOUBLE.replace("### BEGIN SOLUTION", "raise NotImplementedError()").splitlines()
    ]
    again["source"] = "def double(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    cells.insert(place(cells, "hw9-q1") + 1, again)


def change(identity, **marks):
    def spoil(cells):
        cells[place(cells, identity)]["source"] = "pass"
        cells[place(cells, identity)]["metadata"]["nbgrader"] |= marks

    return spoil


def mangle(cells):
    cells[0] |= {"source": 5, "metadata": None}
    cells.append(
        {
            "cell_type": "code",
            "source": "lone \ud800",
            "metadata": {"nbgrader": {"grade_id": ["x"]}},
        }
    )


ODD = {
    "as it should be": (lambda cells: None, []),
    "duplicated cell": (duplicate, ["duplicated, the last changed one counts: hw9-q1"]),
    "deleted check": (
        lambda cells: cells.pop(place(cells, "hw9-q1-large")),
        ["deleted and put back: hw9-q1-large"],
    ),
    "deleted setup": (
        lambda cells: cells.pop(place(cells, "hw9-setup")),
        ["deleted and put back: hw9-setup"],
    ),
    "changed check": (
        change("hw9-q1-small"),
        ["changed but locked, the original was run: hw9-q1-small"],
    ),
    "more points": (
        change("hw9-q1-small", points=100),
        [
            "changed but locked, the original was run: hw9-q1-small",
            "points changed, which does nothing: hw9-q1-small",
        ],
    ),
    "other order": (lambda cells: cells.reverse(), []),
    "odd cells": (mangle, []),
    "no metadata": (
        lambda cells: [one["metadata"].clear() for one in cells],
        [],
    ),  # the cells' own ids are left
}


@pytest.mark.parametrize("what", ODD)
def test_put_back_into_order(what, instructor):
    spoil, expected = ODD[what]
    settled = reference(instructor)
    released = homework.release(settled)
    notebook, remarks = submissions.restored(
        settled, released, odd(answered(released, RIGHT), spoil)
    )
    assert remarks == expected
    ids = [homework.grade_id(one) for one in notebook.cells if homework.grade_id(one)]
    assert ids == [identity for identity, *_ in CELLS]
    for identity, kind, source, points in CELLS:
        one = named(notebook, identity)
        assert one.source == (RIGHT[identity] if kind == "solution" else source), identity
        assert one.metadata.nbgrader.get("points") == points
    nbformat.validate(notebook)


def test_a_deleted_answer_and_a_foreign_notebook(instructor):
    settled = reference(instructor)
    released = homework.release(settled)
    notebook, remarks = submissions.restored(
        settled,
        released,
        odd(answered(released, RIGHT), lambda cells: cells.pop(place(cells, "hw9-q1"))),
    )
    assert (
        remarks == ["deleted and put back: hw9-q1"]
        and "NotImplementedError" in named(notebook, "hw9-q1").source
    )
    _, remarks = submissions.restored(settled, released, [("code", "", "x", "1 + 1", {})])
    assert remarks == [
        "none of its cells carries a grade id: was the release edited outside Jupyter?"
    ]
    _, remarks = submissions.restored(
        settled,
        released,
        odd(answered(released, {identity: "other" for identity, *_ in CELLS}), lambda cells: None),
    )
    assert (
        remarks[0]
        == "many changed checks: was it made from another release, or with another secret?"
    )


def test_own_cells_stay_where_they_were(instructor):
    settled = reference(instructor)
    released = homework.release(settled)
    notebook = answered(released, RIGHT)
    notebook.cells.insert(2, new_code_cell("factor = 2"))
    notebook.cells.insert(0, new_markdown_cell("My name is Ada."))
    found, _ = submissions.restored(settled, released, odd(notebook, lambda cells: None))
    assert [one.source for one in found.cells][:5] == [
        "My name is Ada.",
        "# Homework 9",
        SETUP,
        "factor = 2",
        RIGHT["hw9-q1"],
    ]


# --- a student's id draws their data ---


ID_CELL = 'STUDENT = ""  # your id'
SHOWN = "### BEGIN HIDDEN TESTS\nprint(MINE, STUDENT)\nassert True, 'nothing'\n### END HIDDEN TESTS"


@pytest.fixture
def with_id(instructor):
    """The small homework, with a cell for an id and a question that uses it."""
    path = instructor / "hw9" / "hw9.ipynb"
    notebook = runner.read(path)
    first = cell("hw9-id", "context", ID_CELL)
    first.metadata.nbgrader["locked"] = False
    given = cell("hw9-q2-given", "context", "MINE = sum(map(ord, STUDENT))")
    notebook.cells[1:1] = [first]
    notebook.cells[-1:] = [given, cell("hw9-q2-data", "check", SHOWN, 5)]
    nbformat.write(notebook, path)
    return path.parent.parent


def handed(instructor, source, more=()):
    """A submission whose first cell is this, as its cells are read."""
    released = homework.release(reference(instructor))
    notebook = answered(released, RIGHT | {"hw9-id": source})
    notebook.cells += [new_code_cell(code) for code in more]
    return odd(notebook, lambda cells: None)


def test_the_cell_for_an_id_is_the_student_s_to_write_in(with_id):
    first = named(homework.release(reference(with_id)), "hw9-id")
    assert first.source == ID_CELL and first.metadata.get("editable", True)


@pytest.mark.parametrize(
    ("source", "known", "remark"),
    [
        ('STUDENT = "Ada 4711"  # mine', "Ada 4711", "data of the id 'Ada 4711'"),
        ("STUDENT = 4711", "4711", "data of the id '4711'"),
        ('STUDENT = "a"\nSTUDENT = " b "', "b", "data of the id 'b'"),
        (ID_CELL, "", "no id: the data of everybody"),
        ("", "", "no id: the data of everybody"),
        ('STUDENT = "a" + input()', "", "no id: the data of everybody"),
        ("STUDENT = True", "", "no id: the data of everybody"),
        ("STUDENT = (", "", "no id: the data of everybody"),
        (f"STUDENT = {'x' * 101!r}", "", "no id: the data of everybody"),
        ("STUDENT = 'a\\'); print(1) #'", "a'); print(1) #", None),
    ],
)
def test_an_id_is_read_and_never_run(source, known, remark, with_id):
    cells, settled = handed(with_id, source), reference(with_id)
    assert submissions.id_of(cells) == known
    notebook, remarks = submissions.restored(settled, homework.release(settled), cells)
    assert named(notebook, "hw9-id").source == f"STUDENT = {known!r}"
    assert remarks == [remark or f"data of the id {known!r}"]


def test_a_homework_without_such_a_cell_says_nothing_of_an_id(instructor):
    settled = reference(instructor)
    cells = odd(answered(homework.release(settled), RIGHT), lambda cells: None)
    assert submissions.restored(settled, homework.release(settled), cells)[1] == []


def test_the_checks_take_the_id_that_is_written_whatever_the_submission_says_later(with_id):
    settled = reference(with_id)
    cells = handed(with_id, 'STUDENT = "ab"')
    own = new_code_cell('STUDENT = "another"')
    at = next(i for i, one in enumerate(cells) if one[1] == "hw9-q1")
    cells.insert(at, ("code", "", "own", own.source, {}))
    notebook, _ = submissions.restored(settled, homework.release(settled), cells)
    marking.mark(notebook, settled, LIMITS)
    (shown,) = named(notebook, "hw9-q2-data").outputs
    assert shown.text == f"{ord('a') + ord('b')} ab\n"


def test_an_id_that_another_student_handed_in_too_is_told_of_both(with_id):
    given = {"ada": '"4711"', "bob": '" 4711 "', "cy": '"4713"', "dan": '""', "eve": '""'}
    found = [
        submissions.Submission(
            student, "hw9", Path(student), handed(with_id, f"STUDENT = {source}")
        )
        for student, source in given.items()
    ]
    found.append(submissions.Submission("fay", "hw9", Path("fay"), None))
    submissions.same_ids(found, {"bob": {"id": "4712"}, "cy": {"id": "4713"}})
    assert [one.remarks for one in found] == [
        ["the same id in bob"],
        ["the same id in ada", "PEOPLE knows another id, 4712"],
        *[[]] * 4,
    ]


def test_every_submission_gets_its_line(instructor, tmp_path, capsys, passes):
    released, folder, out = (
        homework.release(reference(instructor)),
        tmp_path / "in",
        tmp_path / "out",
    )
    marks = new_code_cell(
        "### BEGIN HIDDEN TESTS\n### BEGIN SOLUTION"
    )  # nbgrader's own steps stop at these
    ada = answered(released, RIGHT)
    hand_in(new_notebook(cells=[*ada.cells, marks]), folder / "ada" / "hw9" / "hw9.ipynb")
    hand_in(released, folder / "bob" / "my homework (2).ipynb")
    (folder / "cy").mkdir()
    (folder / "cy" / "hw9.ipynb").write_text("PK\x03\x04 a Word file")
    (folder / "dan").mkdir()
    (folder / "dan" / "hw9.pdf").write_bytes(b"%PDF")
    hand_in(released, folder / "fay" / "hw9.ipynb")
    hand_in(released, folder / "fay" / "old" / "try.ipynb")
    (folder / "gus").mkdir()
    (folder / "gus" / "hw9.ipynb").symlink_to(instructor / "hw9" / "hw9.ipynb")
    (folder / "hal").mkdir()
    hand_in(new_notebook(cells=[new_code_cell("1")]), folder / "ida" / "notes.ipynb")
    (folder / "jo").mkdir()
    (folder / "jo" / "hw9.ipynb").write_text("[" * 100_000)
    hand_in(released, folder / "=cmd|'[x]" / "hw9.ipynb")
    hand_in(released, folder / "loose.ipynb")
    (folder / "__MACOSX").mkdir()

    grade.run(folder, out, LIMITS, instructor=instructor)

    found, said = rows(out), capsys.readouterr().out
    remarks = {student: row["remark"] for (student, _), row in found.items()}
    strange = next(student for student in remarks if "cmd" in student)
    assert (
        re.fullmatch(r"_cmd___x_-[0-9a-f]{4}", strange) and f"=cmd|'[x]: called {strange}" in said
    )
    assert remarks == {
        "ada": "",
        "bob": "renamed: my homework (2).ipynb",
        "cy": "hw9.ipynb: not a notebook: it cannot be read as one",
        "dan": "no notebook handed in: hw9.pdf",
        "fay": "2 files for hw9: the newest, hw9.ipynb, counts, not try.ipynb",
        "gus": "hw9.ipynb: a link or a special file, not a notebook",
        "hal": "no notebook handed in: an empty folder",
        "ida": (
            "renamed: notes.ipynb; none of its cells carries a grade id: was the release edited"
            " outside Jupyter?"
        ),
        "jo": "hw9.ipynb: not a notebook: it cannot be read as one",
        strange: "",
    }
    assert {homework for _, homework in found} == {"hw9"} and {
        row["max"] for row in found.values()
    } == {"10"}
    assert [found[name, "hw9"]["total"] for name in ("ada", "bob", "cy", "dan", "gus")] == [
        "10",
        "10",
        "0",
        "0",
        "0",
    ]
    assert "loose.ipynb: lies in no student's folder, not graded" in said
    assert "bob/my homework (2).ipynb: taken as hw9" in said
    for remark in filter(None, remarks.values()):
        assert remark in said
    for student in ("ada", "bob"):
        assert "for others too" not in (out / "feedback" / student / "hw9" / "hw9.html").read_text(
            encoding="utf-8"
        )


def test_from_a_platform_s_zip_to_a_gradebook_to_import(instructor, tmp_path, passes):
    released, out, moodle = (
        homework.release(reference(instructor)),
        tmp_path / "out",
        tmp_path / "m.zip",
    )
    with zipfile.ZipFile(moodle, "w") as archive:
        for name, day in (("hw9.ipynb", 20), ("hw9 (1).ipynb", 22)):
            info = zipfile.ZipInfo(
                f"Ada L_7_assignsubmission_file_/{name}", (2026, 11, day, 12, 0, 0)
            )
            archive.writestr(info, nbformat.writes(answered(released, RIGHT)))
        archive.writestr("Bo_8_assignsubmission_onlinetext_/onlinetext.html", "see attachment")
    (tmp_path / "people.csv").write_text("student,id,email\nAda L_7,=1+1,ada@u.org\n")
    grade.run(
        moodle,
        out,
        LIMITS,
        instructor=instructor,
        people=tmp_path / "people.csv",
        deadline=datetime(2026, 11, 21, 23, 59),
    )
    with (out / "gradebook.csv").open(newline="", encoding="utf-8-sig") as file:
        head, ada, bo = csv.reader(file)
    assert head == ["id", "student", "email", "hw9", "hw9 days late"]
    assert ada == ["'=1+1", "Ada L_7", "ada@u.org", "10", "1"]  # no formula, and half a day is one
    assert bo[1] == "Bo_8" and bo[3] == "0"
    found = rows(out)
    assert "the newest, hw9 (1).ipynb, counts" in found["Ada L_7", "hw9"]["remark"]
    assert found["Bo_8", "hw9"]["remark"] == "no notebook handed in: onlinetext.html"


# --- grading again, and being stopped ---


def test_no_grade_is_lost_when_grading_is_run_again(instructor, tmp_path, passes):
    released, out = homework.release(reference(instructor)), tmp_path / "out"
    for student in ("ada", "bob", "cy"):
        hand_in(released, tmp_path / "first" / student / "hw9.ipynb")
    grade.run(tmp_path / "first", out, LIMITS, instructor=instructor)
    with book(out) as grades:
        grades.find_grade("hw9-q1-small", "hw9", "hw9", "ada").manual_score = 1.5
        grades.db.commit()
    hand_in(released, tmp_path / "second" / "ada" / "hw9.ipynb")
    (tmp_path / "second" / "bob").mkdir()
    (tmp_path / "second" / "bob" / "hw9.ipynb").write_text("oops")
    grade.run(tmp_path / "second", out, LIMITS, instructor=instructor)
    found = rows(out)
    assert [found[name, "hw9"]["total"] for name in ("ada", "bob", "cy")] == ["8.5", "10", "10"]
    assert found["bob", "hw9"]["remark"].endswith("; the earlier grade stays")


def test_what_a_person_reads_waits_for_them_and_keeps_their_points(instructor, tmp_path, passes):
    path = instructor / "hw9" / "hw9.ipynb"
    notebook = runner.read(path)
    marks = {"grade": True, "locked": False, "solution": True, "task": False, "points": 2}
    marks |= {"grade_id": "hw9-q3-read", "schema_version": 3}
    notebook.cells.append(
        new_markdown_cell("A model answer.", metadata={"nbgrader": marks}, id="hw9-q3-read")
    )
    nbformat.write(notebook, path)
    released, out = homework.release(reference(instructor)), tmp_path / "out"
    assert "model answer" not in nbformat.writes(released)
    said = "It confuses 3 and 8, **<script>alert(1)</script>** [so](javascript:alert(1))."
    words = RIGHT | {"hw9-q3-read": said}
    hand_in(answered(released, words), tmp_path / "in" / "ada" / "hw9.ipynb")
    hand_in(answered(released, RIGHT), tmp_path / "in" / "bob" / "hw9.ipynb")  # wrote nothing
    grade.run(tmp_path / "in", out, LIMITS, instructor=instructor)
    ada, bob = (rows(out)[name, "hw9"] for name in ("ada", "bob"))
    assert (ada["total"], ada["max"], ada["q3"]) == ("10", "12", "0")
    assert ada["remark"] == "q3: 2 points wait for a person"
    assert (bob["total"], bob["q3"], bob["remark"]) == ("10", "0", "")
    page = (out / "feedback" / "ada" / "hw9" / "hw9.html").read_text(encoding="utf-8")
    assert "It confuses 3 and 8" in page
    assert "<script>alert" not in page and 'href="javascript' not in page
    with book(out) as grades:
        found = grades.find_grade("hw9-q3-read", "hw9", "hw9", "ada")
        found.manual_score, found.needs_manual_grade = 1.5, False  # as the Formgrader does
        grades.db.commit()
    for again in (False, True):  # the second time graded anew
        grade.run(tmp_path / "in", out, LIMITS, instructor=instructor, again=again)
        ada = rows(out)["ada", "hw9"]
        assert (ada["total"], ada["q3"]) == ("11.5", "1.5")
        assert ada["remark"] == ("q3: 2 points wait for a person" if again else "")


def test_ctrl_c_and_a_failing_submission_leave_the_others(
    instructor, tmp_path, capsys, passes, monkeypatch
):
    released, out = homework.release(reference(instructor)), tmp_path / "out"
    for student in ("ada", "bob", "cy"):
        hand_in(released, tmp_path / "in" / student / "hw9.ipynb")
    turns = iter(["", RuntimeError("a bug"), KeyboardInterrupt(), "", "", ""])

    def mark(notebook, reference, limits):
        if turn := next(turns):
            raise turn
        return []

    monkeypatch.setattr(grade, "mark", mark)
    with pytest.raises(KeyboardInterrupt):
        grade.run(tmp_path / "in", out, LIMITS, instructor=instructor)
    found = rows(out)
    assert found["ada", "hw9"]["total"] == "10" and ("cy", "hw9") not in found
    assert found["bob", "hw9"]["remark"].startswith("could not be graded")
    with book(out) as grades, pytest.raises(MissingEntry):
        grades.find_submission("hw9", "cy")
    grade.run(tmp_path / "in", out, LIMITS, instructor=instructor)
    assert [row["total"] for row in rows(out).values()] == ["10", "10", "10"]


def test_the_next_run_grades_what_has_no_grade_yet(
    instructor, tmp_path, capsys, passes, monkeypatch
):
    released, out = homework.release(reference(instructor)), tmp_path / "out"
    for student in ("ada", "bob"):
        hand_in(released, tmp_path / "in" / student / "hw9.ipynb")
    graded = []

    def mark(notebook, reference, limits):
        graded.append(1)
        return []

    monkeypatch.setattr(grade, "mark", mark)

    def run(**options):
        graded.clear()
        grade.run(tmp_path / "in", out, LIMITS, instructor=instructor, **options)
        return len(graded), capsys.readouterr().out

    assert run()[0] == 2
    count, said = run()
    assert count == 0 and said.count("(graded before)") == 2
    assert [row["total"] for row in rows(out).values()] == ["10", "10"]
    hand_in(answered(released, RIGHT), tmp_path / "in" / "bob" / "hw9.ipynb")  # another one
    assert run()[0] == 1 and run(again=True)[0] == 2
    assert marking.Limits(cell=9, total=90) != LIMITS  # other limits are another grading
    grade.run(tmp_path / "in", out, marking.Limits(cell=9, total=90), instructor=instructor)
    assert len(graded) == 4


def test_two_submissions_at_a_time(instructor, tmp_path, passes, monkeypatch):
    released, out = homework.release(reference(instructor)), tmp_path / "out"
    for student in ("ada", "bob", "cy"):
        hand_in(released, tmp_path / "in" / student / "hw9.ipynb")
    both = threading.Barrier(2, timeout=60)
    turns = itertools.count()

    def mark(notebook, reference, limits):
        if next(turns) < 2:
            both.wait()  # neither ends before the other has begun
        return []

    monkeypatch.setattr(grade, "mark", mark)
    grade.run(tmp_path / "in", out, LIMITS, instructor=instructor, jobs=2)
    assert [row["total"] for row in rows(out).values()] == ["10", "10", "10"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_grade_that_is_none(instructor, tmp_path, capsys, passes, how):
    released, out = homework.release(reference(instructor)), tmp_path / "out"
    slow = answered(released, {"hw9-q1": "import time\ntime.sleep(60)", "hw9-q2": RIGHT["hw9-q2"]})
    hand_in(answered(released, RIGHT), tmp_path / "in" / "ada" / "hw9.ipynb")
    hand_in(slow, tmp_path / "in" / "bob" / "hw9.ipynb")
    command = [sys.executable, "tools/grade.py", tmp_path / "in", "--out", out]
    command += ["--limit", "50", "--instructor", instructor]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if " ada " in line:
                break
        while not (out / "under_way.json").exists():
            time.sleep(0.1)
        process.send_signal(how)
    assert process.returncode != 0
    assert (out / "under_way.json").exists() == (how == signal.SIGKILL)
    hand_in(released, tmp_path / "late" / "cy" / "hw9.ipynb")
    capsys.readouterr()
    grade.run(tmp_path / "late", out, LIMITS, instructor=instructor)
    assert ("killed while" in capsys.readouterr().out) == (how == signal.SIGKILL)
    assert {student for student, _ in rows(out)} == {"ada", "cy"}  # no zero of bob's


def test_another_variant_needs_another_gradebook(instructor, tmp_path, passes):
    hand_in(homework.release(reference(instructor)), tmp_path / "in" / "ada" / "hw9.ipynb")
    grade.run(tmp_path / "in", tmp_path / "out", LIMITS, instructor=instructor)
    path = instructor / "hw9" / "hw9.ipynb"
    shorter = runner.read(path)
    shorter.cells.pop()
    nbformat.write(shorter, path)
    with pytest.raises(
        grade.GradingError, match="hw9 has other cells than when 1 submissions were graded .* OUT="
    ):
        grade.run(tmp_path / "in", tmp_path / "out", LIMITS, instructor=instructor)
    assert rows(tmp_path / "out")["ada", "hw9"]["total"] == "10"


# --- the sandbox, and what the command says about it ---


def test_what_the_sandbox_shows(tmp_path):
    argv = sandbox.wrap(["python"], tmp_path)
    assert (
        argv[0] == "bwrap"
        and "--unshare-all" in argv
        and "--die-with-parent" in argv
        and argv[-1] == "python"
    )
    shown = {
        argv[i + 1]: word for i, word in enumerate(argv) if word in ("--bind", "--ro-bind-try")
    }
    assert [path for path, how in shown.items() if how == "--bind"] == [str(tmp_path)]
    assert (
        shown[str(ROOT / "kdlab")] == "--ro-bind-try"
        and str(ROOT) not in shown
        and str(Path.home()) not in shown
    )
    hidden = ROOT / "notebooks" / "homework" / "instructor"
    masked = {argv[i + 1] for i, word in enumerate(argv) if word == "--tmpfs"}
    for path in map(Path, shown):
        assert not hidden.is_relative_to(path) or str(ROOT / "notebooks") in masked
    assert not any(Path(path).is_relative_to(hidden) for path in shown)


def test_a_python_around_the_repository_does_not_show_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "python_homes", lambda: [str(ROOT.parent)])
    argv = sandbox.wrap(["python"], tmp_path)
    assert argv.index("--tmpfs", argv.index(str(ROOT.parent))) and str(ROOT / "notebooks") in argv


def test_without_a_sandbox_it_says_so_first_and_may_refuse(tmp_path, instructor):
    hand_in(homework.release(reference(instructor)), tmp_path / "in" / "ada" / "hw9.ipynb")
    command = [
        sys.executable,
        ROOT / "tools" / "grade.py",
        tmp_path / "in",
        "--out",
        tmp_path / "out",
        "--strict",
        "--instructor",
        instructor,
    ]
    done = subprocess.run(
        command, env={**os.environ, "PATH": "/nowhere"}, capture_output=True, text=True
    )
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert (
        "NO SANDBOX: bubblewrap" in done.stdout
        and "STRICT=1 and no sandbox: nothing was run" in done.stderr
    )
    assert "Traceback" not in done.stderr
    if sys.platform.startswith("linux"):
        assert "apt-get install bubblewrap" in done.stdout


@pytest.mark.parametrize(
    "arguments, environment, word",
    [
        (["nowhere"], {}, "SUBMITTED: expected a folder"),
        (["empty"], {}, "no student's folder"),
        (["empty", "--out", "a[1]"], {}, "OUT: nbgrader takes none of"),
        (["empty"], {"SECRET": "short"}, "SECRET: expected at least 12 characters, got 5"),
    ],
)
def test_a_wrong_call_is_told_in_a_line(arguments, environment, word, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["grade.py", *arguments])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert word in grade.main() and not (tmp_path / "a[1]").exists()
