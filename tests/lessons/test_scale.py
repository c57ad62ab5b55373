"""Lesson 13's workers by hand, its processes, and the bytes of a step."""

import pytest
import torch
from torch import nn
from torch.multiprocessing import ProcessRaisedException
from torch.nn import functional as F

import kdlab as kd
from kdlab.lessons import scale
from kdlab.lessons.yours import reference

merged = reference("13.3")


@pytest.fixture(scope="module")
def small():
    return kd.language_model("docs_base")


@pytest.fixture(scope="module")
def rows(small):
    return scale.rows_of(kd.plain_text("docstrings")["train"][:64], small[1], 24)


def loss(student, some):
    batch = kd.Collator()([row | {"labels": row["input_ids"]} for row in some])
    labels = batch.pop("labels")
    batch.pop("id", None)
    logits, labels = kd.next_token(student(**batch).logits, labels)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def test_rows_are_cut_and_have_a_token_to_predict(small, rows):
    assert {len(row["input_ids"]) for row in rows} >= {10, 24}
    assert all(2 <= len(row["input_ids"]) <= 24 for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert scale.rows_of(["a", "Return the number of items."], small[1])[0]["id"] == 1


def test_an_epoch_of_steps_takes_texts_once_and_of_all_lengths(rows):
    steps = len(rows) // scale.BATCH
    taken = [i for step in range(steps) for i in scale.batch_of(rows, step)]
    assert len(set(taken)) == len(taken) == steps * scale.BATCH
    assert scale.batch_of(rows, steps) == scale.batch_of(rows, 0)
    for step in range(steps):
        lengths = [len(rows[i]["input_ids"]) for i in scale.batch_of(rows, step)]
        assert max(lengths) >= 1.5 * min(lengths)


def test_workers_that_merge_by_tokens_are_one_and_a_mean_is_not(small, rows):
    one = scale.by_workers(small[0], loss, rows)
    start = torch.cat([p.detach().flatten() for p in small[0].parameters()])
    for workers in (2, 4):
        by_tokens = scale.by_workers(small[0], loss, rows, merged, workers)
        assert len(by_tokens) == scale.STEPS
        way = (one[4] - start).norm()
        assert (by_tokens[4] - one[4]).norm() < 1e-3 * way
        mean = scale.by_workers(small[0], loss, rows, lambda g, n: g.mean(0), workers)
        assert (mean[4] - one[4]).norm() > 1e-2 * way
    same = [{"id": i, "input_ids": row["input_ids"][:6]} for i, row in enumerate(rows)]
    same = [row for row in same if len(row["input_ids"]) == 6]
    one, mean = (scale.by_workers(small[0], loss, same, m) for m in (None, lambda g, n: g.mean(0)))
    assert torch.allclose(one[4], mean[4], atol=1e-5)


def test_two_processes_ask_what_one_asks(tmp_path, rows):
    given = [row | {"id": str(row["id"])} for row in rows]
    found = [scale.ask(tmp_path / str(n), given, processes=n, k=3) for n in (1, 2)]
    ids = found[0].ids
    assert ids == found[1].ids == [row["id"] for row in given]
    for a, b in zip(found[0][ids]["log_probs"], found[1][ids]["log_probs"], strict=True):
        assert torch.allclose(a.float(), b.float(), atol=2e-2)
    assert len(list((tmp_path / "2").glob("*.safetensors"))) == -(-len(given) // scale.SHARD)


def test_two_processes_train_what_one_trains(rows, small):
    (losses, one), (others, two) = (scale.train_together(rows[:32], n) for n in (1, 2))
    assert losses == pytest.approx(others, abs=1e-4) and len(losses) == scale.STEPS
    assert max((one[name] - two[name]).abs().max() for name in one) < 1e-4
    begun = small[0].state_dict()
    assert max((one[name] - begun[name]).abs().max() for name in one) > 1e-3


def test_a_process_that_fails_is_told_with_what_it_said(tmp_path):
    with pytest.raises(ProcessRaisedException, match=r"Process \d(.|\n)*rows must hold"):
        scale.ask(tmp_path / "new", [], processes=2)


def test_the_bytes_of_a_step_by_hand():
    """Of a linear layer: its output, the sum, and gradients of the output, weights and bias."""
    net, x = nn.Linear(100, 50), torch.ones(20, 100)
    found = scale.memory(net, lambda m: m(x).sum())
    weights = 4 * (100 * 50 + 50)
    assert found["weights"] == weights and found["Adam's means"] == 2 * weights
    assert weights < found["gradients and in between"] < weights + 3 * 4 * 20 * 50
    net.weight.requires_grad_(False)
    assert scale.memory(net, lambda m: m(x).sum())["Adam's means"] == 2 * 4 * 50
    assert net.bias.grad is None


def test_recipes_start_alike_and_hold_less(small):
    ids = torch.randint(5, 500, (4, 48), generator=torch.Generator().manual_seed(0))
    teacher, _ = kd.language_model("docs_lm")
    base = kd.student_from(teacher, layers=[0, 3])
    before, first, held = base.state_dict(), {}, {}
    for name, (new, context) in scale.recipes(base).items():

        def step(model, context=context):
            with context():
                logits, labels = kd.next_token(model(ids).logits, ids)
                return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())

        student = new()
        assert student.training and scale.moved(before, student) == 0
        first[name] = step(student).item()
        held[name] = scale.memory(student, step)
    exact = first["all weights, float32"]
    for lower in (first.pop("bfloat16 autocast"), first.pop("all three")):
        assert lower == pytest.approx(exact, abs=0.1) and lower != exact
    assert all(value == pytest.approx(exact, abs=1e-5) for value in first.values())
    between = {name: parts["gradients and in between"] for name, parts in held.items()}
    assert between["checkpointing"] < 0.9 * between["all weights, float32"]
    assert between["LoRA, checkpointing"] < between["LoRA"] < between["all weights, float32"]
    assert between["all three"] < between["LoRA"]
    assert held["LoRA"]["Adam's means"] < 0.2 * held["checkpointing"]["Adam's means"]
    assert held["LoRA"]["weights"] > held["checkpointing"]["weights"]


def test_what_moved_counts_weights_and_merges_adapters(small):
    base = small[0]
    before = {k: v.clone() for k, v in base.state_dict().items()}
    new, _ = scale.recipes(base)["all weights, float32"]
    student = new()
    row = student.model.layers[0].mlp.down_proj.weight
    row.data[:3] += 1
    share = 100 * 3 * row.shape[1] / base.num_parameters()
    assert scale.moved(before, student) == pytest.approx(share)
    new, _ = scale.recipes(base)["LoRA"]
    adapted = new()
    for name, p in adapted.named_parameters():
        if "lora_B" in name and "layers.0" in name and "q_proj" in name:
            p.data += 0.1
    q = base.model.layers[0].self_attn.q_proj.weight
    assert scale.moved(before, adapted) == pytest.approx(100 * q.numel() / base.num_parameters())
    assert any("lora" in name for name, _ in adapted.named_parameters())  # left as it was
