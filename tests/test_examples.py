"""The scripts of examples/, run as a user runs them, on the course's own small models."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
QUIET = ["--report_to", "none", "--use_cpu", "--disable_tqdm", "True", "--save_strategy", "no"]
LINES = {
    "distil_lm": [
        *("--student", "docs_base", "--teacher_model_name_or_path", "docs_lm"),
        *("--texts", "web", "--divergence", "reverse_kl", "--learning_rate", "2e-3"),
        *("--max_steps", "8", "--logging_steps", "4", "--length", "32"),
    ],
    "distil_classifier": [
        *("--teacher_model_name_or_path", "docs_bert", "--every", "3", "--train", "128"),
        *("--temperature", "2", "--max_steps", "8", "--logging_steps", "4", "--length", "32"),
        *("--learning_rate", "4e-4"),
    ],
}


@pytest.mark.parametrize("name", LINES)
def test_a_script_trains_and_saves_a_model_that_loads(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"]
    trainer = main([*LINES[name], "--output_dir", "out", *QUIET])
    first, last = (line for line in trainer.state.log_history if "loss" in line)
    assert trainer.state.global_step == 8 and last["soft"] < first["soft"]
    again = type(trainer.model).from_pretrained(tmp_path / "out")
    for key, value in trainer.model.state_dict().items():
        assert value.equal(again.state_dict()[key]), key


# each as `python examples/NAME.py --help`, in one process: what they import takes ten seconds
HELP = """
import runpy, sys
for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        print("END", ended.code)
"""


def test_help_lists_the_script_s_own_words_and_the_trainer_s():
    found = subprocess.run(
        [sys.executable, "-c", HELP, *(ROOT / "examples" / f"{name}.py" for name in LINES)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**__import__("os").environ, "PYTHONPATH": str(ROOT)},
    ).stdout
    *told, rest = re.split(r"^END 0$", found, flags=re.MULTILINE)
    assert len(told) == len(LINES) and rest == "\n"
    for one in told:
        for word in ("--teacher_model_name_or_path", "--divergence", "--learning_rate", "--length"):
            assert word in one
