"""kdlab.evidence.export: a file in ONNX says what the model says, whatever runs it."""

import subprocess
import sys
import warnings

import onnxruntime
import pytest
import torch
from torch import nn

import kdlab as kd
from kdlab.evidence import export
from kdlab.evidence.export import OnnxModel, to_onnx

TEXTS = ["Return the sum of all.", "A list", "If the file is not there, raise an error of the"]


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 36, 10),
    )  # fmt: skip


def batch(tokenizer, texts):
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    found = tokenizer(texts, padding=True, return_tensors="pt")
    return {name: found[name] for name in ("input_ids", "attention_mask")}


def test_an_image_classifier_of_any_number_of_rows(tmp_path):
    model = net().train()
    x = torch.rand(5, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = to_onnx(model, x, tmp_path / "net.onnx")
    assert model.training and file.difference < 1e-5
    more = torch.rand(37, 1, 8, 8)
    torch.testing.assert_close(file(more), model.eval()(more), rtol=0, atol=1e-5)
    weights = sum(p.nbytes for p in model.parameters())
    assert weights < file.nbytes < weights + 20_000
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    "name, load", [("docs_bert", kd.text_classifier), ("docs_lm", kd.language_model)]
)
def test_a_model_of_transformers_of_any_length(name, load, tmp_path):
    """And in eight bits: smaller, near, and measured by what it costs."""
    model, tokenizer = load(name)
    file = to_onnx(model, batch(tokenizer, TEXTS[:2]), tmp_path / "model.onnx")
    other = batch(tokenizer, TEXTS)  # longer, padded, more rows
    with torch.no_grad():
        wanted = model(**other).logits
    real = other["attention_mask"].bool() if wanted.ndim == 3 else slice(None)
    torch.testing.assert_close(file(**other)[real], wanted[real], rtol=0, atol=1e-4)
    small = file.int8(tmp_path / "model.int8.onnx", other)
    assert small.nbytes < file.nbytes / 2
    assert 1e-3 < small.difference < 0.3 * float(wanted[real].abs().max())
    assert small.difference == pytest.approx(float((small(**other) - file(**other)).abs().max()))
    found = kd.costs({"torch": model, "onnx": file, "int8": small}, other, calls=3, warm_up=1)
    assert found.loc["int8", "on_disk"] == small.nbytes and found["latency_ms"].gt(0).all()


def test_the_file_runs_where_no_torch_is(tmp_path):
    model, x = net().eval(), torch.rand(3, 1, 8, 8)
    to_onnx(model, x, tmp_path / "net.onnx")
    code = (
        "import sys, numpy as np, onnxruntime as ort; sys.modules['torch'] = None\n"
        f"session = ort.InferenceSession({str(tmp_path / 'net.onnx')!r})\n"
        f"x = np.array({x.tolist()}, dtype=np.float32)\n"
        "print(session.run(None, {'x': x})[0].tolist())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    torch.testing.assert_close(torch.tensor(eval(said.stdout)), model(x), rtol=0, atol=1e-5)


class Hostile(nn.Module):
    """Of an operator that ONNX does not have."""

    def forward(self, x):
        return torch.linalg.matrix_exp(x)


class Drifts(nn.Module):
    """What it says depends on something that no file holds."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class Fixed(nn.Module):
    """Of three rows and no other number."""

    def forward(self, x):
        return x.reshape(3, 2) @ torch.ones(2, 2)


@pytest.mark.parametrize(
    "model, x, words",
    [
        (Hostile(), torch.rand(3, 2, 2), "can't be written in ONNX: .*matrix_exp"),
        (Drifts(), torch.rand(3, 2), "must say the same in ONNX, to tolerance .* difference of"),
        (Fixed(), torch.rand(3, 2), "can't be written in ONNX"),
        (net(), torch.rand(1, 1, 8, 8), "x must hold two rows"),
        (nn.Linear(3, 2).bfloat16(), torch.rand(4, 3), "float32 or float16, got bfloat16"),
    ],
)
def test_what_cannot_be_exported_leaves_nothing_behind(model, x, words, tmp_path):
    kept = tmp_path / "there.onnx"
    kept.write_bytes(b"as it was")
    with pytest.raises(ValueError, match=f"^to_onnx: .*{words}"):
        to_onnx(model, x, kept)
    assert kept.read_bytes() == b"as it was" and [*tmp_path.iterdir()] == [kept]


def test_threads_of_a_file_do_not_take_the_cores_of_what_is_timed_next(tmp_path, monkeypatch):
    session, asked = onnxruntime.InferenceSession, []

    def opened(path, options, **others):
        asked.append(options.get_session_config_entry("session.intra_op.allow_spinning"))
        return session(path, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    to_onnx(nn.Linear(3, 2), torch.rand(4, 3), tmp_path / "a.onnx")
    assert asked and set(asked) == {"0"}


def test_other_inputs_and_other_files_are_told(tmp_path):
    file = to_onnx(nn.Linear(3, 2), torch.rand(4, 3), tmp_path / "a.onnx")
    with pytest.raises(ValueError, match=r"x must hold \['x'\], .* got \['input_ids'\]"):
        file(input_ids=torch.rand(4, 3))
    with pytest.raises(TypeError, match="^int8: x must be a tensor"):
        file.int8(tmp_path / "b.onnx", [1])
    with pytest.raises(FileNotFoundError, match="path must be a file"):
        OnnxModel(tmp_path / "nowhere.onnx")
    (tmp_path / "c.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match="model that onnxruntime can run, got c.onnx"):
        OnnxModel(tmp_path / "c.onnx")(torch.rand(4, 3))
    with pytest.raises(TypeError, match="^to_onnx: model must be"):
        to_onnx(3, torch.rand(4, 3), tmp_path / "d.onnx")
    with pytest.raises(ValueError, match="^to_onnx: tolerance must be"):
        to_onnx(nn.Linear(3, 2), torch.rand(4, 3), tmp_path / "d.onnx", tolerance=-1)
    assert export.OUTPUT == "logits"
