"""What the live pages carry is what the package has: images, labels, splits, teachers."""

import base64
import doctest
import json
import sys

import numpy as np
import pytest
import torch
from pages import ROOT

import kdlab as kd

sys.path.insert(0, str(ROOT / "tools"))
import page_data


@pytest.fixture(scope="module")
def found():
    """Two splits, their teachers hardly trained: (data, tasks, teachers)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_data, "EPOCHS", 2)
        return page_data.exported(2)


def numbers(text, kind):
    return np.frombuffer(base64.b64decode(text), f"<{kind}")


def test_the_images_and_labels_of_each_split_are_the_task_s(found):
    data, tasks, _ = found
    pixels = torch.tensor(numbers(data["pixels"], "u1") / 16).float().view(-1, 1, 8, 8)
    labels = torch.tensor(numbers(data["labels"], "u1").astype(int))
    for split, task in zip(data["splits"], tasks, strict=True):
        for part, own in (("train", task.transfer), ("validation", task.validation)):
            rows = numbers(split[part], "u2").astype(int)
            assert torch.equal(pixels[rows], own.x) and torch.equal(labels[rows], own.clean)


def test_a_teacher_s_numbers_are_those_it_answers_with(found):
    data, tasks, modules = found
    for split, task, module in zip(data["splits"], tasks, modules, strict=True):
        linear = [layer for layer in module if isinstance(layer, torch.nn.Linear)]
        for told, layer in zip(split["teacher"], linear, strict=True):
            whole = numbers(told["numbers"], "i2") * told["scale"]
            own = torch.cat([layer.weight.T, layer.bias[None]]).detach().flatten()
            np.testing.assert_allclose(own, whole, rtol=1e-6)
        logits = kd.outputs.logits(module, task.validation.x)
        assert split["accuracy"] == pytest.approx(
            100 * kd.metrics.accuracy(logits, task.validation.y).item()
        )


def test_rounding_a_teacher_moves_no_answer_by_much(found):
    _, tasks, _ = found
    layer = torch.nn.Linear(64, 256)
    x = tasks[0].validation.x.flatten(1)
    before = layer(x)
    page_data.rounded(layer)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-4)


def test_the_script_sets_one_name(found, tmp_path, monkeypatch):
    monkeypatch.setattr(page_data, "exported", lambda: found)
    page_data.write(tmp_path / "data.js")
    text = (tmp_path / "data.js").read_text(encoding="utf-8")
    assert text.startswith("const kdlabData = {") and text.endswith("};\n")
    data = json.loads(text[len("const kdlabData = ") : -2])
    assert data["delta"] == kd.DELTA["points"] and len(data["splits"]) == 2


def test_examples():
    assert doctest.testmod(page_data).failed == 0
