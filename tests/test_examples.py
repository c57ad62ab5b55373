"""The scripts of examples/, run as a user runs them, on the course's own small models."""

import re
import runpy
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


@pytest.mark.parametrize("name", LINES)
def test_help_lists_the_script_s_own_words_and_the_trainer_s(name, monkeypatch, capsys):
    script = str(ROOT / "examples" / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    said = capsys.readouterr().out
    assert ended.value.code == 0
    for word in ("--teacher_model_name_or_path", "--divergence", "--learning_rate", "--length"):
        assert re.search(rf"{word}\s", said), word  # and not as the beginning of another
