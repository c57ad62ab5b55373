"""kdlab.evidence.cost: FLOPs and bytes by hand, times by a clock that is given."""

import copy

import pytest
import torch
from torch import nn

import kdlab as kd
from kdlab.evidence import cost


def mlp(inner=32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, inner), nn.ReLU(), nn.Linear(inner, 10))


@pytest.mark.parametrize("rows", [1, 5])
def test_the_flops_of_a_perceptron(rows):
    assert cost.flops(mlp(), torch.zeros(rows, 1, 8, 8)) == rows * 2 * (64 * 32 + 32 * 10)


def test_the_flops_of_a_convolution():
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 64, 10))
    by_hand = 2 * (3 * 9) * 5 * 64 + 2 * 320 * 10
    assert cost.flops(net, torch.zeros(1, 3, 8, 8)) == by_hand


def test_the_flops_of_a_llama_layer():
    """Projections, scores and what they weigh, the gated perceptron, and the head."""
    model, _ = kd.language_model("docs_lm")
    c, length = model.config, 24
    d, q, kv = c.hidden_size, c.num_attention_heads, c.num_key_value_heads
    projections = 2 * d * c.head_dim * (q + 2 * kv) + 2 * q * c.head_dim * d
    attention = 2 * 2 * length * q * c.head_dim
    layer = length * (projections + attention + 3 * 2 * d * c.intermediate_size)
    whole = c.num_hidden_layers * layer + 2 * length * d * c.vocab_size
    assert cost.flops(model, {"input_ids": torch.ones(1, length, dtype=torch.long)}) == whole


def test_bytes_are_those_of_a_file_and_tied_weights_count_once(tmp_path):
    model, _ = kd.language_model("docs_lm")
    model.save_pretrained(tmp_path)
    file = (tmp_path / "model.safetensors").stat().st_size
    assert cost.bytes_on_disk(model) == pytest.approx(file, rel=1e-3)
    tied = model.get_input_embeddings().weight.numel()
    assert model.config.tie_word_embeddings
    once = sum(p.numel() for p in model.parameters())
    assert cost.bytes_resident(model) == 4 * once + sum(b.nbytes for b in model.buffers())
    apart = copy.deepcopy(model)
    apart.lm_head.weight = nn.Parameter(apart.lm_head.weight.clone())
    assert cost.bytes_resident(apart) - cost.bytes_resident(model) == 4 * tied
    assert cost.bytes_on_disk(apart) - cost.bytes_on_disk(model) == pytest.approx(4 * tied, abs=200)
    assert cost.bytes_resident(model.half()) < 0.6 * cost.bytes_resident(apart)


def test_a_peak_is_weights_inputs_and_what_is_held_at_once():
    net, x = mlp(256), torch.zeros(100, 64)
    at = {"linear": 4 * 100 * 256, "out": 4 * 100 * 10}
    found = kd.costs({"net": net}, x, calls=1, warm_up=0).loc["net"]
    assert found["peak"] == found["resident"] + x.nbytes + 2 * at["linear"]  # before and after ReLU

    class Hoards(nn.Module):
        def forward(self, x):
            kept = [x + i for i in range(5)]
            return sum(part.sum() for part in kept)

    class Frees(nn.Module):
        def forward(self, x):
            return sum((x + i).sum() for i in range(5))

    found = kd.costs({"hoards": Hoards(), "frees": Frees()}, x, calls=1)["peak"]
    assert found["hoards"] - found["frees"] == pytest.approx(4 * x.nbytes, abs=64)


def test_a_peak_on_a_gpu_means_what_it_means_on_a_cpu_whatever_else_lies_there(monkeypatch):
    """A card that is given: it holds others, and counts what the perceptron below makes."""
    held = {"now": 0, "most": 0}

    def takes(bytes_):
        held["now"] += bytes_
        held["most"] = max(held["most"], held["now"])

    class Counts(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.net = mlp(inner)

        def forward(self, x):
            before = held["now"]
            for size in (256, 256, 10):  # before and after ReLU, then the answer in place of one
                if size == 10:
                    takes(-4 * len(x) * 256)
                takes(4 * len(x) * size)
            held["now"] = before
            return self.net(x)

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: held["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: held["most"])
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: held.update(most=held["now"])
    )
    model, x = Counts(256), torch.zeros(100, 64)
    on_cpu = kd.costs({"net": model}, x, calls=1, warm_up=0).loc["net", "peak"]
    monkeypatch.setattr(cost, "device_of", lambda model: torch.device("cuda"))
    for others in (0, 10**9):
        held.update(now=others + cost.bytes_resident(model) + x.nbytes, most=10**12)
        assert cost.peak(model, x) == cost.peak(model, {"x": x}) == on_cpu
    assert on_cpu == cost.bytes_resident(model) + x.nbytes + 2 * 4 * 100 * 256


def test_times_are_medians_in_turn_after_the_warm_up(monkeypatch):
    """A clock that is given: the first calls are slow, the second model takes twice as long."""
    now, asked = [0.0], []

    def model(name, seconds):
        def answer(x):
            asked.append((name, len(x)))
            slow = 50 if len(asked) <= 6 else 1
            now[0] += slow * seconds * len(x)
            return x

        return answer

    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    models = {"a": model("a", 0.001), "b": model("b", 0.002)}
    found = kd.costs(models, torch.zeros(10, 3), calls=30, warm_up=2, price=3.6)
    assert found["latency_ms"].tolist() == pytest.approx([1.0, 2.0])
    assert found["rows_a_second"].tolist() == pytest.approx([1000.0, 500.0])
    assert found["dollars"].tolist() == pytest.approx([1.0, 2.0])  # 1,000 s at a dollar a 1,000 s
    assert [name for name, _ in asked[:6]] == ["a", "b"] * 3
    assert found["latency_95_ms"].tolist() == pytest.approx([1.0, 2.0])  # none of the slow ones
    assert found[["parameters", "on_disk", "resident", "flops", "peak"]].isna().all(axis=None)


def test_a_model_is_asked_in_eval_mode_without_gradients_and_left_as_it_was():
    seen = []

    class Sees(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled()))
            return self.layer(x)

    model = Sees().train()
    kd.costs({"m": model}, torch.zeros(4, 3), calls=2, warm_up=1)
    assert set(seen) == {(False, False)} and model.training


def test_a_frozen_model_and_a_dictionary_of_inputs():
    model, tokenizer = kd.language_model("docs_base")
    model.requires_grad_(False)
    x = tokenizer(["Return the sum", "Return the sum"], return_tensors="pt")
    found = kd.costs({"lm": model}, dict(x), calls=2, warm_up=1).loc["lm"]
    assert found["flops"] == cost.flops(model, {k: v[:1] for k, v in x.items()})
    assert found["parameters"] == kd.parameters(model) and found["peak"] > found["resident"]
    assert "thread" in found["where"]


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"models": mlp()}, TypeError, "models must be a dictionary"),
        ({"models": {"a": 3}}, TypeError, r"models\['a'\] must be a model or a function"),
        ({"x": [1, 2]}, TypeError, "x must be a tensor"),
        ({"x": torch.zeros(0, 64)}, ValueError, "x must hold at least one row"),
        (
            {"x": {"a": torch.zeros(2), "b": torch.zeros(3)}},
            ValueError,
            "x must .* the same in all",
        ),
        ({"calls": 0}, ValueError, "calls must be"),
        ({"warm_up": -1}, ValueError, "warm_up must be"),
        ({"price": -1.0}, ValueError, "price must be"),
    ],
)
def test_what_cannot_be_measured_is_told(change, error, words):
    given = {"models": {"net": mlp()}, "x": torch.zeros(2, 64), "calls": 1} | change
    with pytest.raises(error, match=f"^costs: {words}"):
        kd.costs(**given)
