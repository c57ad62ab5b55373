"""kdlab.evidence.budget: operations by hand at three sizes, bytes beside a cache, hours by hand."""

import math

import pytest
import torch
import transformers

import kdlab as kd
from kdlab.evidence import budget
from kdlab.evidence.budget import Machine, Size

BIG = Size("big", 1_000_000, 2e6, 100.0, 1000)
SMALL = Size("small", 10_000, 2.4e4, 50.0, 1000)


def by_hand(c, length):
    """Parameters and FLOPs a token of a Llama: what is multiplied, twice, and attention."""
    d, q, kv = c.hidden_size, c.num_attention_heads, c.num_key_value_heads
    layer = d * c.head_dim * (2 * q + 2 * kv) + 3 * d * c.intermediate_size
    head = d * c.vocab_size
    norms = d * (2 * c.num_hidden_layers + 1)
    tables = head if c.tie_word_embeddings else 2 * head
    attention = c.num_hidden_layers * 2 * 2 * length * q * c.head_dim
    multiplied = c.num_hidden_layers * layer + head
    return c.num_hidden_layers * layer + tables + norms, 2 * multiplied + attention


@pytest.mark.parametrize("name", ["120M", "SmolLM2-360M", "Llama-2-13B"])
@pytest.mark.parametrize("length", [64, 1024])
def test_a_llamas_operations_at_three_sizes(name, length):
    found = kd.budget.size_of(name, length)
    parameters, forward = by_hand(budget.published(name), length)
    assert (found.parameters, found.forward) == (parameters, forward)
    assert found.name == str(found) == name


def test_published_sizes_are_what_their_names_say():
    told = {"120M": 0.12e9, "SmolLM2-135M": 0.135e9, "SmolLM2-360M": 0.36e9}
    told |= {"SmolLM2-1.7B": 1.7e9, "Llama-2-7B": 6.74e9, "Llama-2-13B": 13.0e9}
    assert set(told) == set(budget.PUBLISHED)
    for name, parameters in told.items():
        assert kd.budget.size_of(name).parameters == pytest.approx(parameters, rel=0.025)


def test_a_model_its_config_and_its_directory_are_one_size(tmp_path):
    model, _ = kd.language_model("docs_lm")
    model.save_pretrained(tmp_path / "mine")
    sizes = [kd.budget.size_of(one, 64) for one in (model, model.config, str(tmp_path / "mine"))]
    assert len({(s.parameters, s.forward, s.kept, s.vocabulary) for s in sizes}) == 1
    ids = torch.ones(1, 64, dtype=torch.long)
    assert sizes[0].parameters == model.num_parameters()
    assert 64 * sizes[0].forward == kd.costs({"m": model}, {"input_ids": ids}, 1).flops["m"]
    c = model.config
    assert sizes[0].kept == 2 * 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim
    assert sizes[2].name == "mine"


def test_another_architecture_is_counted_too():
    config = transformers.GPT2Config(n_embd=64, n_layer=2, n_head=2, vocab_size=500)
    found = kd.budget.size_of(config, 8)
    layer = 12 * 64 * 64  # query, key, value, out, and twice four times as wide
    assert found.forward == 2 * (2 * layer + 500 * 64) + 2 * 2 * 2 * 8 * 64
    assert found.kept == 2 * 2 * 2 * 64


def test_four_ways_by_hand():
    table = kd.budget.plan(BIG, SMALL, tokens=1000, epochs=3, k=20)
    assert list(table.index) == list(budget.WAYS)
    assert table["teacher_flops"].tolist() == [0, 3 * 2e9, 2e9, 3 * 2e9]
    assert table["student_flops"].tolist() == [9 * 2.4e7] * 4
    assert table["written_flops"].tolist() == [0, 0, 0, 3 * 2.4e7]
    assert table["disk"].tolist() == [0, 0, 1000 * (4 + 20 * 2 + 21 * 2), 0]
    assert table["memory"].tolist() == [160_000, 2_160_000, 2_000_000, 2_160_000]
    assert table[["hours", "dollars"]].isna().all(axis=None)


def test_a_small_teacher_asks_for_less_than_its_student_in_training():
    table = kd.budget.plan(SMALL, BIG, tokens=1000)
    assert table.loc["teacher on disk", "memory"] == 16_000_000


def test_what_is_kept_has_ids_of_the_teachers_vocabulary():
    large = Size("large", 1_000_000, 2e6, 100.0, 100_000)
    disk = kd.budget.plan(large, SMALL, tokens=10, k=5).loc["teacher on disk", "disk"]
    assert disk == 10 * (4 + 5 * 4 + 6 * 2)


def test_hours_and_dollars_by_hand():
    table = kd.budget.plan(BIG, SMALL, 3.6e6, machine=Machine(rate=1e9, price=2.0))
    trained, read, written = 3 * 2.4e4, 2e6, 2.4e4  # FLOPs a token; 3.6e6 / 1e9 / 3600 = 1e-6
    assert table["hours"].tolist() == pytest.approx(
        [1e-6 * n for n in (trained, trained + read, trained + read, trained + read + written)]
    )
    assert table["dollars"].tolist() == pytest.approx((2 * table["hours"]).tolist())


def test_writing_waits_for_the_memory_where_that_is_slower():
    def writing(bandwidth, **more):
        machine = Machine(rate=1e9, bandwidth=bandwidth)
        hours = kd.budget.plan(BIG, SMALL, 3.6e6, machine=machine, **more)["hours"]
        return hours["on-policy"] - hours["teacher asked anew"]

    # a step of 64 texts: weights of 2 bytes once, and 50 bytes a token for half of 1,024
    moved = 2 * 10_000 + 64 * 50 * 512
    assert writing(1e6) == pytest.approx(3.6e6 / 64 * moved / 1e6 / 3600)
    assert writing(1e6, batch=1) == pytest.approx(3.6e6 * (2 * 10_000 + 50 * 512) / 1e6 / 3600)
    assert writing(math.inf) == pytest.approx(3.6e6 * 2.4e4 / 1e9 / 3600)


def test_a_teacher_reads_at_its_own_rate_and_a_step_of_writing_has_a_start():
    plain = kd.budget.plan(BIG, SMALL, 3.6e6, machine=Machine(rate=1e9))["hours"]
    machine = Machine(rate=1e9, reading=4e9, start=0.01)
    hours = kd.budget.plan(BIG, SMALL, 3.6e6, machine=machine, batch=10)["hours"]
    saved = 3.6e6 * 2e6 * (1 / 1e9 - 1 / 4e9) / 3600
    assert hours["labels alone"] == plain["labels alone"]
    for way in ("teacher asked anew", "teacher on disk"):
        assert hours[way] == pytest.approx(plain[way] - saved)
    started = 3.6e6 / 10 * 0.01 / 3600
    assert hours["on-policy"] == pytest.approx(plain["on-policy"] - saved + started)


def test_bytes_are_those_of_a_cache(tmp_path):
    """All files of a cache, within a tenth of what was counted beforehand."""
    teacher, tokenizer = kd.language_model("docs_lm")
    texts = list(kd.plain_text("docstrings")["train"][:200])
    cut = tokenizer(texts, truncation=True, max_length=64)["input_ids"]
    rows = [{"id": i, "input_ids": ids} for i, ids in enumerate(cut) if len(ids) > 1]
    for k in (5, 40):
        signals = kd.signals.from_teacher(tmp_path / str(k), teacher, rows, k=k)
        tokens = sum(len(row["input_ids"]) - 1 for row in rows)
        held = sum(file.stat().st_size for file in signals.path.iterdir())
        expected = tokens * kd.budget.bytes_a_token(k, tokenizer.vocab_size)
        assert held == pytest.approx(expected, rel=0.1)


def test_ids_of_a_large_vocabulary_take_four_bytes():
    small, large = (kd.budget.bytes_a_token(10, v) for v in (2**16, 2**16 + 1))
    assert large - small == 20


BAD = {
    "no model": (lambda: kd.budget.size_of(3), TypeError, "size_of: model must be a model or its"),
    "an encoder": (
        lambda: kd.budget.size_of(transformers.ViTConfig()),
        TypeError,
        "size_of: model must be a language model's config, got ViTConfig",
    ),
    "length": (lambda: kd.budget.size_of("120M", 0), ValueError, "size_of: length must be"),
    "rate": (lambda: Machine(0), ValueError, "Machine: rate must be a finite number above 0"),
    "bandwidth": (lambda: Machine(1.0, -1.0), ValueError, "Machine: bandwidth must be above 0"),
    "reading": (lambda: Machine(1.0, reading=0), ValueError, "Machine: reading must be a finite"),
    "start": (lambda: Machine(1.0, start=-1.0), ValueError, "Machine: start must be"),
    "price": (lambda: Machine(1.0, price=-1.0), ValueError, "Machine: price must be at least 0"),
    "tokens": (lambda: kd.budget.plan(BIG, SMALL, 0), ValueError, "plan: tokens must be"),
    "epochs": (lambda: kd.budget.plan(BIG, SMALL, 1, 0), ValueError, "plan: epochs must be"),
    "machine": (
        lambda: kd.budget.plan(BIG, SMALL, 1, machine=4e14),
        TypeError,
        "plan: machine must be a Machine",
    ),
    "no price": (lambda: Machine(1.0, price="3"), ValueError, "Machine: price must be at least 0"),
    "no band": (lambda: Machine(1.0, None), ValueError, "Machine: bandwidth must be above 0"),
    "a name": (lambda: kd.budget.size_of("not here/"), ValueError, "size_of: model must be one of"),
    "experts": (
        lambda: kd.budget.size_of(transformers.MixtralConfig(num_hidden_layers=1), 4),
        TypeError,
        "size_of: model must be one whose operations can be counted",
    ),
    "no attention": (
        lambda: kd.budget.size_of(transformers.MambaConfig(num_hidden_layers=1)),
        TypeError,
        "size_of: model must be one of attention, got MambaConfig",
    ),
    "more than all": (lambda: kd.budget.bytes_a_token(10, 9), ValueError, "bytes_a_token: k must"),
    "k": (lambda: kd.budget.bytes_a_token(0, 9), ValueError, "bytes_a_token: k must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(case):
    run, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        run()
