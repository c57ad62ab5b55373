"""examples/on_policy_trl.py, run as a user runs it, where TRL is (tools/peers.py)."""

import os
import re
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "examples" / "on_policy_trl.py"
LINE = [
    *("--student", "docs_base", "--teacher_model_name_or_path", "docs_lm", "--texts", "web"),
    *("--max_steps", "40", "--learning_rate", "3e-3", "--max_completion_length", "32"),
    *("--per_device_train_batch_size", "16", "--use_cpu", "--bf16", "False"),
    *("--gradient_checkpointing", "False", "--report_to", "none", "--save_strategy", "no"),
]

SHARED = Path(__file__).parents[2] / "shared"
MODELS = Path(os.environ.get("KDLAB_MODELS") or SHARED / "models")
DATA = Path(os.environ.get("KDLAB_DATA") or SHARED / "data")
here = pytest.mark.skipif(
    not (MODELS / "stories260K").is_dir() or not (DATA / "tinystories").is_dir(),
    reason="no KDLAB_MODELS with stories260K and KDLAB_DATA with tinystories",
)


@pytest.fixture
def main():
    pytest.importorskip("trl", reason="needs the extra onpolicy")
    return runpy.run_path(str(SCRIPT))["main"]


def test_the_student_writes_more_and_more_what_its_teacher_would(main, tmp_path, capsys):
    trainer, found = main([*LINE, "--output_dir", str(tmp_path)])
    told = re.findall(r"^(.+) (\d+\.\d\d) → (\d+\.\d\d)$", capsys.readouterr().out, re.MULTILINE)
    assert [(n, float(a), float(b)) for n, a, b in told] == [
        (n, round(a, 2), round(b, 2)) for n, (a, b) in found.items()
    ]
    (_, (before, after)), (_, (odd_before, odd_after)) = found.items()
    # other draws of the untrained student's text: 5.18 ± 0.05; it fell by 0.5 or more in training
    assert odd_after < odd_before - 0.25
    assert after < before
    again = type(trainer.model).from_pretrained(tmp_path)
    for name, weights in trainer.model.state_dict().items():
        assert weights.equal(again.state_dict()[name]), name


@here
def test_half_of_a_small_real_model_is_taught_by_the_whole(main, tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_MODELS", str(MODELS))
    monkeypatch.setenv("KDLAB_DATA", str(DATA))
    line = [*LINE, "--output_dir", str(tmp_path), "--measured", "64", "--prompt", "8"]
    for old, new in (
        ("docs_base", "half of stories260K"),
        ("docs_lm", "stories260K"),
        ("web", "tinystories"),
    ):
        line[line.index(old)] = new
    _, found = main(line)
    (_, (before, after)), (_, (odd_before, odd_after)) = found.items()
    assert after < before and odd_after < odd_before


def test_vllm_is_one_argument(main, tmp_path, monkeypatch):
    """Without a GPU: the argument reaches TRL, which asks for vLLM where there is none."""
    monkeypatch.setattr("trl.trainer.distillation_trainer.is_vllm_available", lambda: False)
    with pytest.raises(ImportError, match="use_vllm"):
        main([*LINE, "--output_dir", str(tmp_path), "--use_vllm"])


def test_a_missing_teacher_is_named(main, capsys):
    with pytest.raises(SystemExit):
        main([word for word in LINE if "teacher" not in word and word != "docs_lm"])
    assert "--teacher_model_name_or_path" in capsys.readouterr().err.splitlines()[-1]
