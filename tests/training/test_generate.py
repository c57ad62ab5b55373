"""Text that a model writes, against plain loops without a cache and models whose every token is
known."""

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare
from torch import nn
from transformers import GenerationConfig
from writers import PROMPTS, V, gpt2, padded, roberta, texts, tiny, token

import kdlab as kd
from kdlab.evidence.perplexity import distinct, perplexity
from kdlab.students.limits import positions
from kdlab.training.generate import OnPolicy, as_dataset, completions

TOPICS = Path(__file__).parents[2] / "data" / "teachers" / "topics_lm"
# a generation config of which nothing may reach the text
LOUD = {
    "do_sample": True,
    "top_k": 2,
    "top_p": 0.3,
    "min_p": 0.2,
    "temperature": 0.1,
    "repetition_penalty": 3.0,
    "suppress_tokens": [1],
    "sequence_bias": [[[2], 9.0]],
    "max_time": 1e-9,
    "eos_token_id": 0,
    "num_beams": 3,
}


def counter(eos=None):
    """A true Llama that writes i + 1 after i, modulo V, and so is known by hand."""
    model, eye = (
        tiny(hidden_size=V + 1, num_attention_heads=1, eos_token_id=eos),
        torch.eye(V, V + 1).double(),
    )
    for block in model.model.layers:
        torch.nn.init.zeros_(block.self_attn.o_proj.weight)
        torch.nn.init.zeros_(block.mlp.down_proj.weight)
    model.model.embed_tokens.weight.data, model.lm_head.weight.data = eye, 20 * eye.roll(1, 0)
    return model


def counted(prompt, new, eos):
    text = []
    while len(text) < new and (not text or text[-1] not in eos):
        text.append(((text or prompt)[-1] + 1) % V)
    return text


@torch.no_grad()
def greedy(model, prompt, new):
    """One sequence, all of it read again for each token: no batch, no padding, no cache."""
    ids = list(prompt)
    for _ in range(new):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids


def real(batch):
    """(ids, labels) of each row without padding, as lists."""
    keep = batch["attention_mask"].bool()
    assert (batch["labels"][~keep] == -100).all()
    return [
        (ids[m].tolist(), labels[m].tolist())
        for ids, labels, m in zip(batch["input_ids"], batch["labels"], keep, strict=True)
    ]


def learnt(batch):
    return [[t for t in labels if t != -100] for _, labels in real(batch)]


@pytest.mark.parametrize(
    "model", [tiny(), gpt2(), tiny(num_key_value_heads=1)], ids=["llama", "gpt2", "grouped"]
)
def test_padded_batches_with_a_cache_equal_one_by_one_without(model):
    expected = [greedy(model, prompt, 12) for prompt in PROMPTS]
    assert len(set(itertools.chain(*expected))) > 4  # the texts are no constant
    model.generation_config = GenerationConfig(**LOUD)
    for form, size in zip(
        [PROMPTS, map(torch.tensor, PROMPTS), padded(PROMPTS, "left"), padded(PROMPTS, "right")],
        [1, 3, 32, 3],
        strict=True,
    ):
        assert [
            ids for ids, _ in real(completions(model, form, 12, temperature=0, eos=(), batch=size))
        ] == expected


@given(
    st.lists(texts, min_size=1, max_size=4),
    st.lists(token, max_size=2),
    token,
    st.integers(1, 8),
    st.sampled_from([0, 1.0]),
)
@settings(max_examples=40)
def test_rows_are_prompt_text_and_padding(prompts, eos, pad, new, temperature):
    written = completions(counter(), prompts, new, temperature, eos=eos, pad=pad, batch=3)
    expected = [counted(prompt, new, eos) for prompt in prompts]
    assert real(written) == [
        (p + t, [-100] * len(p) + t) for p, t in zip(prompts, expected, strict=True)
    ]
    assert (written["input_ids"][written["attention_mask"] == 0] == pad).all()
    assert (written["attention_mask"].diff(dim=1) <= 0).all()  # padding stands on the right only


def test_the_end_is_the_generation_configs_unless_given():
    model = counter(eos=[4, 7])
    assert learnt(completions(model, [[4, 1], [5]], 9, temperature=0)) == [[2, 3, 4], [6, 7]]
    assert learnt(completions(model, [[4, 1]], 9, temperature=0, eos=3)) == [[2, 3]]


def test_without_a_pad_token_the_end_fills_masked_places(monkeypatch):
    model, end = transformers.AutoModelForCausalLM.from_pretrained(TOPICS), 0
    prompts = [
        [end],
        [end, 40, 50, 60, end],
        [100, end],
    ]  # the end of text within a prompt, and last in it
    monkeypatch.setattr(transformers.generation.utils.logger, "warning", pytest.fail)
    written = completions(model, prompts, 24, seed=2)
    assert (written["input_ids"][written["attention_mask"] == 0] == end).all()
    for (row, labels), prompt in zip(real(written), prompts, strict=True):
        assert row[: len(prompt)] == prompt and labels == [-100] * len(prompt) + row[len(prompt) :]
        assert end not in row[len(prompt) : -1]


def nucleus(p, top_p):
    """The fewest of the likeliest that hold top_p of the probability, by hand, summing to 1."""
    order, kept, held = sorted(range(len(p)), key=lambda i: -p[i]), [], 0.0
    for i in order:
        if held < top_p or top_p == 1:
            kept.append(i)
        held += p[i]
    total = sum(p[i] for i in kept)
    return [p[i] / total if i in kept else 0.0 for i in range(len(p))]


@pytest.mark.parametrize(
    "T,top_k,top_p", [(1.0, 0, 1.0), (2.5, 0, 1.0), (0.5, 3, 1.0), (1.5, 0, 0.7), (1.0, 4, 0.6)]
)
def test_tokens_come_as_often_as_the_model_says(T, top_k, top_p):
    model, count, expected = tiny(vocab_size=5, initializer_range=0.3), 2000, {}
    model.generation_config = GenerationConfig(**LOUD)
    for first in range(5):
        z = model(torch.tensor([[3, 1, first]])).logits[0].detach() / T
        if top_k:
            z[z < z.sort(descending=True).values[:, top_k - 1 : top_k]] = -math.inf
        p, q = (nucleus(row, top_p) for row in z.softmax(-1)[1:].tolist())
        expected |= {
            (first, second): count * p[first] * q[second]
            for second in range(5)
            if p[first] * q[second]
        }
    cut = dict(top_k=top_k, top_p=top_p)
    found = completions(model, [[3, 1]] * count, 2, T, **cut, eos=(), batch=1000, seed=1)
    found = Counter(map(tuple, learnt(found)))
    most = (top_k or 5) ** 2
    assert (len(expected) == most if top_p == 1 else 1 < len(expected) < most) and set(
        found
    ) <= set(expected)
    assert chisquare([found[pair] for pair in expected], list(expected.values())).pvalue > 1e-3
    assert model.generation_config.to_diff_dict() == GenerationConfig(**LOUD).to_diff_dict()


def test_a_seed_draws_the_same_whatever_the_batch():
    model, prompts = tiny(), PROMPTS * 3
    once = learnt(completions(model, prompts, 8, seed=5))
    assert all(
        learnt(completions(model, prompts, 8, seed=5, batch=size)) == once for size in (1, 5)
    )
    assert (
        learnt(completions(model, prompts, 8, seed=6)) != once and once[1] != once[5]
    )  # the same prompt twice


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
        ),
    ],
)
def test_the_model_and_the_random_state_are_only_borrowed(device):
    model, seen = gpt2(dropout=0.5).train().to(device), []
    model.transformer.h[0].eval()
    modes, own = [m.training for m in model.modules()], model.generation_config
    states = (torch, torch.cuda) if device == "cuda" else (torch,)
    before = [lib.get_rng_state() for lib in states]
    hook = model.register_forward_hook(
        lambda *_: seen.append((model.training, torch.is_grad_enabled()))
    )
    completions(model, PROMPTS, 4)
    batch = completions(model, PROMPTS, 4, temperature=0)
    assert perplexity(model, batch) > 1 and batch["labels"].device == model.device
    assert set(seen) == {(False, False)} and hook.remove() is None
    hook = model.register_forward_hook(lambda *_: 1 / 0)
    for borrow in (lambda: completions(model, PROMPTS, 4), lambda: perplexity(model, batch)):
        with pytest.raises(ZeroDivisionError):
            borrow()
    assert [m.training for m in model.modules()] == modes and model.generation_config is own
    assert all(
        torch.equal(lib.get_rng_state(), state) for lib, state in zip(states, before, strict=True)
    )


def test_wide_enough_beams_find_the_likeliest_text_and_a_data_set_holds_it_unpadded():
    model = tiny(seed=14, vocab_size=4)
    every = torch.tensor(list(itertools.product(range(4), repeat=3)))
    log_q = model(torch.cat([torch.ones(64, 1).long(), every], 1)).logits[:, :-1].log_softmax(-1)
    best = every[log_q.gather(2, every[..., None]).sum((1, 2)).argmax()].tolist()
    assert best != greedy(model, [1], 3)[1:]
    rows = as_dataset(completions(model, [[2, 1], [1]], 3, temperature=0, num_beams=16, eos=()))
    assert rows[1] == {"input_ids": [1, *best], "attention_mask": [1] * 4, "labels": [-100, *best]}


@given(
    st.lists(st.tuples(texts, st.lists(token, max_size=6)), min_size=1, max_size=4),
    st.lists(token, max_size=2),
    token,
    st.sampled_from(["left", "right"]),
    st.integers(1, 5),
    st.sampled_from([None, 1, 3]),
)
@settings(max_examples=40)
def test_the_students_own_text_is_all_that_is_learnt(rows, eos, pad, side, new, length):
    batch = padded([p for p, _ in rows], side, pad, [r for _, r in rows])
    on_policy = OnPolicy(1.0, new, prompt_length=length, eos=eos, pad=pad)
    prompts = [p if length is None else (p + r)[:length] for p, r in rows]
    expected = [(p + counted(p, new, eos), [-100] * len(p) + counted(p, new, eos)) for p in prompts]
    for model in (counter(), torch.nn.DataParallel(counter())):
        (mixed,) = on_policy(model, [batch], step=3)
        assert set(mixed) == set(batch) and real(mixed) == expected


def test_the_share_of_own_text():
    model, batch = counter(), padded([[1]], "right", responses=[[9]])

    def own(share, steps):
        return [
            tuple(b is not batch for b in OnPolicy(share, 1, seed=4)(model, [batch] * 3, step))
            for step in steps
        ]

    run = own(0.3, range(200))
    for column in [sum(run, ()), *zip(*run, strict=True)]:
        assert binomtest(sum(column), len(column), 0.3).pvalue > 1e-3
    assert (
        len(set(run)) > 4 and own(0.3, range(190, 200)) == run[190:]
    )  # a resumed run draws the same
    assert set(own(0, range(50))) == {(False,) * 3} and set(own(1, range(50))) == {(True,) * 3}


def test_a_share_of_each_batch_s_rows_is_own_text_where_it_is_asked_for():
    model, batch = counter(), padded([[1]] * 4, "right", responses=[[9]] * 4)

    def own(share, steps):
        found = []
        for step in steps:
            (mixed,) = OnPolicy(share, 1, seed=4, per="row")(model, [batch], step)
            assert (mixed["labels"][:, 0] == -100).all()
            found.append(tuple((mixed["labels"][:, 1] == 2).tolist()))
            assert (mixed["labels"][:, 1] != 2).eq(mixed["labels"][:, 1] == 9).all()
        return found

    run = own(0.3, range(100))
    for column in [sum(run, ()), *zip(*run, strict=True)]:
        assert binomtest(sum(column), len(column), 0.3).pvalue > 1e-3
    assert len(set(run)) > 6 and own(0.3, range(90, 100)) == run[90:]
    assert set(own(0, range(20))) == {(False,) * 4} and set(own(1, range(20))) == {(True,) * 4}


def test_own_text_depends_on_seed_step_and_place_only():
    model, batches = tiny().train(), [padded(PROMPTS, "left", responses=[[1]] * 4)] * 2
    first, again, later, other = (
        [learnt(b) for b in OnPolicy(1.0, 12, seed=seed)(model, batches, step)]
        for seed, step in [(0, 7), (0, 7), (0, 8), (1, 7)]
    )
    assert (
        first == again
        and model.training
        and len({str(text) for text in (*first, *later, *other)}) == 6
    )


WRAPPERS = {
    "data parallel": torch.nn.DataParallel,
    "compiled": torch.compile,
    "compiled within": lambda m: torch.nn.DataParallel(torch.compile(m)),
    "compiled around": lambda m: torch.compile(torch.nn.DataParallel(m)),
}


def lora(model):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize("name", [*WRAPPERS, "adapter"])
def test_a_wrapped_model_is_read_as_the_model_in_it(name):
    model, batch = tiny(), padded(PROMPTS, "left", responses=[[1]] * 4)
    if name == "adapter":
        wrapped, plain = lora(model), lora(tiny()).merge_and_unload()
    else:
        wrapped, plain = WRAPPERS[name](model), tiny()
    assert positions(wrapped) == 32
    assert perplexity(wrapped, batch) == pytest.approx(perplexity(plain, batch), rel=1e-10)
    expected = [greedy(plain, prompt, 6) for prompt in PROMPTS]
    assert [
        ids for ids, _ in real(completions(wrapped, PROMPTS, 6, temperature=0, eos=()))
    ] == expected
    (mixed,) = kd.OnPolicy(1.0, 6, temperature=0, eos=())(wrapped, [batch], 0)
    assert [ids for ids, _ in real(mixed)] == expected


@pytest.mark.parametrize("fails", [False, True])
def test_a_generation_config_is_put_back_behind_an_adapter_too(fails):
    model = tiny()
    model.generation_config = own = GenerationConfig(**LOUD)
    wrapped = lora(model)
    if fails:
        model.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            completions(wrapped, PROMPTS, 2)
    else:
        completions(wrapped, PROMPTS, 2)
    assert model.generation_config is own and wrapped.generation_config is own


def test_prompts_come_with_a_mask_without_one_or_as_a_tokenizers_lists():
    model, same = tiny(), [[3, 1, 4], [6, 2, 5]]
    expected = {str(prompts): [greedy(model, p, 5) for p in prompts] for prompts in (PROMPTS, same)}
    lists = {"input_ids": PROMPTS, "attention_mask": [[1] * len(p) for p in PROMPTS]}
    for prompts, form in [
        (PROMPTS, lists),
        (PROMPTS, {"input_ids": PROMPTS}),
        (same, {"input_ids": torch.tensor(same)}),
        (PROMPTS, transformers.BatchEncoding(padded(PROMPTS, "left"))),
    ]:
        written = completions(model, form, 5, temperature=0, eos=())
        assert [ids for ids, _ in real(written)] == expected[str(prompts)]


def test_own_text_without_a_mask_or_labels():
    ids, labels = (
        torch.tensor([[1, 2, 3], [4, 5, 6]]),
        torch.tensor([[-100, -100, 3], [-100, 5, 6]]),
    )
    for columns, prompts, length in [
        ({"labels": labels}, [[1, 2], [4]], None),
        ({}, [[1, 2, 3], [4, 5, 6]], None),
        ({}, [[1, 2], [4, 5]], 2),
    ]:
        (mixed,) = kd.OnPolicy(1.0, 3, prompt_length=length, eos=())(
            counter(), [{"input_ids": ids} | columns], 0
        )
        assert real(mixed) == [
            (p + counted(p, 3, ()), [-100] * len(p) + counted(p, 3, ())) for p in prompts
        ]


@given(
    st.lists(
        st.tuples(st.lists(token, min_size=1, max_size=12), st.lists(token, max_size=6)),
        min_size=1,
        max_size=4,
    ),
    st.integers(4, 16),
    st.one_of(st.none(), st.integers(4, 16)),
    st.integers(1, 3),
    st.sampled_from(["left", "right"]),
    st.sampled_from(["error", "truncate", "skip"]),
)
@settings(max_examples=80)
def test_long_prompts_are_an_error_cut_or_left_to_the_data(rows, own, teachers, new, side, choice):
    model, batch = counter(), padded([p for p, _ in rows], side, 7, [r for _, r in rows])
    model.config.max_position_embeddings = own
    on_policy = kd.OnPolicy(1.0, new, eos=(), pad=9, long_prompts=choice)
    on_policy.positions = teachers
    room = min(own, teachers or own) - new
    prompts = [p if r else (p + r) for p, r in rows]
    long = [len(p) > room for p in prompts]
    if choice == "error" and any(long):
        i = long.index(True)
        with pytest.raises(
            ValueError,
            match=(
                f"OnPolicy: row {i} has a prompt of {len(prompts[i])} tokens, expected at "
                f"most {room}, so that max_new_tokens={new} fit within the {room + new} "
            ),
        ):
            on_policy(model, [batch], 0)
        return
    (mixed,) = on_policy(model, [batch], 0)
    if choice == "skip" and all(long):
        assert mixed is batch
        return
    expected = []
    for (p, r), prompt, is_long in zip(rows, prompts, long, strict=True):
        if is_long and choice == "skip":
            expected.append((p + r, [-100] * len(p) + r))
        else:
            prompt = prompt[-room:]
            text = counted(prompt, new, ())
            expected.append((prompt + text, [-100] * len(prompt) + text))
    assert real(mixed) == expected
    width = max(len(ids) for ids, _ in expected)
    assert {k: tuple(v.shape) for k, v in mixed.items()} == dict.fromkeys(batch, (len(rows), width))
    assert (mixed["input_ids"][mixed["attention_mask"] == 0] == 9).all()
    assert (mixed["attention_mask"].diff(dim=1) <= 0).all() and {
        v.dtype for v in mixed.values()
    } == {torch.int64}


def test_a_skipped_row_of_plain_text_keeps_its_labels_and_without_labels_nothing_of_it_counts():
    batch = {
        "input_ids": torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 0, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1] * 6, [1, 1, 0, 0, 0, 0]]),
    }
    on_policy = kd.OnPolicy(1.0, 3, prompt_length=6, eos=(), long_prompts="skip")
    on_policy.positions = 8
    for labels, kept in [
        (
            {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)},
            [1, 2, 3, 4, 5, 6],
        ),
        ({}, [-100] * 6),
    ]:
        (mixed,) = on_policy(counter(), [batch | labels], 0)
        assert real(mixed) == [([1, 2, 3, 4, 5, 6], kept), ([1, 2, 3, 4, 5], [-100, -100, 3, 4, 5])]


def without(key):
    return {k: v for k, v in padded([[1, 2]], "right").items() if k != key}


ERRORS = {
    "prompts must hold at least one": lambda m: completions(m, [], 1),
    r"prompts\[1\] must be a non-empty sequence": lambda m: completions(m, [[1], []], 1),
    r"ids below 11, got 3 to 11": lambda m: completions(m, [[3, V]], 1),
    "max_new_tokens=30 within the model's 32 positions, got 3": lambda m: completions(
        m, [[1, 2], [1, 2, 3]], 30
    ),
    "completions: temperature must .* got -1": lambda m: completions(m, [[1]], 1, -1),
    "num_beams=2 needs temperature=0": lambda m: completions(m, [[1]], 1, num_beams=2),
    "causal language model, got T5": lambda m: completions(
        tiny(transformers.T5ForConditionalGeneration), [[1]], 1
    ),
    r"share must be a number in \[0, 1\], got 1.1": lambda m: OnPolicy(1.1, 1),
    "prompt_length must .* at least 1, got 0": lambda m: OnPolicy(1, 1, prompt_length=0),
    "row 0 has no prompt": lambda m: OnPolicy(1, 1)(m, [padded([[1, 2]], "left")], 0),
    "got labels that are all −100": lambda m: perplexity(m, padded([[1]], "right")),
    "at most 32 tokens, the model's positions, got one of 33": lambda m: perplexity(
        m, padded([[1] * 33], "left")
    ),
    r"perplexity: batch\[1\] must hold ids below 11, got 1 to 11": lambda m: perplexity(
        m, padded([[1], [1, V]], "left")
    ),
    "perplexity: batch must hold labels, got .'attention": lambda m: perplexity(
        m, without("labels")
    ),
    "OnPolicy: batch must hold input_ids, got": lambda m: OnPolicy(1, 1)(
        m, [without("input_ids")], 0
    ),
    "completions: prompts must hold columns of one shape": lambda m: completions(
        m, {"input_ids": [1, 2], "attention_mask": [1, 1]}, 1
    ),
    "perplexity: batch must hold columns of one shape": lambda m: perplexity(
        m, without("labels") | {"labels": torch.ones(1, 3)}
    ),
    "long_prompts must be one of .'error', 'truncate', 'skip'., got 'cut'": lambda m: OnPolicy(
        1, 1, long_prompts="cut"
    ),
    "max_new_tokens must leave room for a prompt within the 32 positions .* got 32": lambda m: (
        OnPolicy(1, 32, long_prompts="skip")(m, [padded([[1]], "left")], 0)
    ),
    "number its positions from 0, .* got RobertaForCausalLM, whose first is 2": lambda m: (
        completions(roberta(), [[5]], 1)
    ),
    "n = 3 tokens, got 2 shorter": lambda m: distinct([[1], [2, 3]], 3),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors_name_the_argument(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message](counter())


@pytest.mark.parametrize(
    "eos",
    [
        2,
        [2],
        (2,),
        {2},
        range(2, 3),
        np.int64(2),
        np.array([2]),
        torch.tensor(2),
        torch.tensor([2]),
    ],
    ids=repr,
)
def test_an_end_of_text_may_come_in_any_form(eos):
    model = counter()
    expected = completions(model, [[3], [5, 1]], 4, seed=1, eos=[2])
    found = completions(model, [[3], [5, 1]], 4, seed=1, eos=eos)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


IDS_OF_NOTHING = {
    "half": 2.5,
    "text": "2",
    "truth": True,
    "below": -1,
    "nest": [[2]],
    "dict": {},
    "none": [None],
}


@pytest.mark.parametrize("key", ["eos", "pad"])
@pytest.mark.parametrize("value", IDS_OF_NOTHING.values(), ids=IDS_OF_NOTHING)
def test_what_is_no_id_of_a_token_is_named(key, value):
    for make in (
        lambda: completions(counter(), [[3]], 1, **{key: value}),
        lambda: OnPolicy(1, 1, **{key: value}),
    ):
        with pytest.raises(
            ValueError, match=f"^(completions|OnPolicy): {key} must be a whole number"
        ):
            make()


@pytest.mark.parametrize(
    "prompts",
    [
        None,
        3,
        "text",
        b"text",
        ["text"],
        [3],
        [[True]],
        [[0.5]],
        [[1j]],
        [None],
        [[None]],
        [[2**80]],
        [[1], [[2], [3]]],
        torch.tensor(3),
        {"ids": [[3]]},
        {"input_ids": 3},
        {"input_ids": "text"},
        {"input_ids": [[3]], "attention_mask": 1},
        {"input_ids": [[3]], "attention_mask": [["a"]]},
        {"input_ids": None},
    ],
    ids=repr,
)
def test_what_are_no_prompts_is_named(prompts):
    with pytest.raises((TypeError, ValueError), match=r"^completions: prompts(\[\d\])? must "):
        completions(counter(), prompts, 1)


@pytest.mark.parametrize(
    "model", [None, "docs_lm", nn.Linear(2, 2), transformers.LlamaForCausalLM], ids=str
)
def test_what_is_no_language_model_is_named(model):
    batch = padded([[1, 2, 3]], "right")
    for name, ask in {
        "completions": lambda: completions(model, [[3]], 1),
        "perplexity": lambda: perplexity(model, batch),
        "OnPolicy": lambda: OnPolicy(1, 1)(model, [batch], 0),
    }.items():
        with pytest.raises(TypeError, match=f"^{name}: model must be a causal language model of"):
            ask()


@pytest.mark.parametrize("batch", [None, 3, [[1, 2]], torch.ones(1, 2), "text"], ids=repr)
def test_what_is_no_batch_is_named(batch):
    for name, ask in {
        "perplexity": lambda: perplexity(counter(), batch),
        "as_dataset": lambda: as_dataset(batch),
        "OnPolicy": lambda: OnPolicy(1, 1)(counter(), [batch], 0),
    }.items():
        with pytest.raises(TypeError, match=f"^{name}: batch must be a dictionary"):
            ask()
