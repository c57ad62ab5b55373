"""Text that a model writes, against plain loops without a cache and models whose every token is known."""

import itertools
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, GPT2LMHeadModel, LlamaForCausalLM

from kdlab.generate import OnPolicy, as_dataset, completions, distinct, perplexity

TOPICS = Path(__file__).parent.parent / "data" / "teachers" / "topics_lm"
V = 11
SIZES = {"vocab_size": V, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "max_position_embeddings": 32, "bos_token_id": None, "eos_token_id": None, "initializer_range": 0.5}
token = st.integers(0, V - 1)
texts = st.lists(token, min_size=1, max_size=6)
PROMPTS = [[3, 1, 4, 1, 5, 9, 2], [6], [10, 0], [2, 7, 1, 8]]
# a generation config of which nothing may reach the text
LOUD = {"do_sample": True, "top_k": 2, "top_p": 0.3, "min_p": 0.2, "temperature": 0.1, "repetition_penalty": 3.0,
        "suppress_tokens": [1], "sequence_bias": [[[2], 9.0]], "max_time": 1e-9, "eos_token_id": 0, "num_beams": 3}


def tiny(kind=LlamaForCausalLM, seed=0, **options):
    torch.manual_seed(seed)
    return kind(kind.config_class(**SIZES | options)).double().eval()


def gpt2(dropout=0.0):
    """Its positions are learnt and absolute, so that padding on the left moves them."""
    return tiny(GPT2LMHeadModel, **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout))


def counter(eos=None):
    """A true Llama that writes i + 1 after i, modulo V, and so is known by hand."""
    model, eye = tiny(hidden_size=V + 1, num_attention_heads=1, eos_token_id=eos), torch.eye(V, V + 1).double()
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
    return [(ids[m].tolist(), labels[m].tolist())
            for ids, labels, m in zip(batch["input_ids"], batch["labels"], keep, strict=True)]


def learnt(batch):
    return [[t for t in labels if t != -100] for _, labels in real(batch)]


def padded(prompts, side, pad=7, responses=None):
    """A batch as a trainer hands it over; without responses its labels are the text itself."""
    def column(rows, fill):
        return pad_sequence([torch.tensor(row) for row in rows], True, fill, side)

    rows = [p + r for p, r in zip(prompts, responses or [[]] * len(prompts), strict=True)]
    labels = [[-100] * len(p) + r for p, r in zip(prompts, responses, strict=True)] if responses else rows
    return {"input_ids": column(rows, pad), "labels": column(labels, -100),
            "attention_mask": column([[1] * len(row) for row in rows], 0)}


@pytest.mark.parametrize("model", [tiny(), gpt2(), tiny(num_key_value_heads=1)], ids=["llama", "gpt2", "grouped"])
def test_padded_batches_with_a_cache_equal_one_by_one_without(model):
    expected = [greedy(model, prompt, 12) for prompt in PROMPTS]
    assert len(set(itertools.chain(*expected))) > 4  # the texts are no constant
    model.generation_config = GenerationConfig(**LOUD)
    for form, size in zip([PROMPTS, map(torch.tensor, PROMPTS), padded(PROMPTS, "left"), padded(PROMPTS, "right")],
                          [1, 3, 32, 3], strict=True):
        assert [ids for ids, _ in real(completions(model, form, 12, temperature=0, eos=(), batch=size))] == expected


@given(st.lists(texts, min_size=1, max_size=4), st.lists(token, max_size=2), token, st.integers(1, 8),
       st.sampled_from([0, 1.0]))
@settings(max_examples=40)
def test_rows_are_prompt_text_and_padding(prompts, eos, pad, new, temperature):
    written = completions(counter(), prompts, new, temperature, eos=eos, pad=pad, batch=3)
    expected = [counted(prompt, new, eos) for prompt in prompts]
    assert real(written) == [(p + t, [-100] * len(p) + t) for p, t in zip(prompts, expected, strict=True)]
    assert (written["input_ids"][written["attention_mask"] == 0] == pad).all()
    assert (written["attention_mask"].diff(dim=1) <= 0).all()  # padding stands on the right only


def test_the_end_is_the_generation_configs_unless_given():
    model = counter(eos=[4, 7])
    assert learnt(completions(model, [[4, 1], [5]], 9, temperature=0)) == [[2, 3, 4], [6, 7]]
    assert learnt(completions(model, [[4, 1]], 9, temperature=0, eos=3)) == [[2, 3]]


def test_without_a_pad_token_the_end_fills_masked_places(monkeypatch):
    model, end = transformers.AutoModelForCausalLM.from_pretrained(TOPICS), 0
    prompts = [[end], [end, 40, 50, 60, end], [100, end]]  # the end of text within a prompt, and last in it
    monkeypatch.setattr(transformers.generation.utils.logger, "warning", pytest.fail)
    written = completions(model, prompts, 24, seed=2)
    assert (written["input_ids"][written["attention_mask"] == 0] == end).all()
    for (row, labels), prompt in zip(real(written), prompts, strict=True):
        assert row[: len(prompt)] == prompt and labels == [-100] * len(prompt) + row[len(prompt):]
        assert end not in row[len(prompt):-1]


@pytest.mark.parametrize("T,top_k", [(1.0, 0), (2.5, 0), (0.5, 3)])
def test_tokens_come_as_often_as_the_model_says(T, top_k):
    model, count, expected = tiny(vocab_size=5, initializer_range=0.3), 2000, {}
    model.generation_config = GenerationConfig(**LOUD)
    for first in range(5):
        z = model(torch.tensor([[3, 1, first]])).logits[0].detach() / T
        if top_k:
            z[z < z.sort(descending=True).values[:, top_k - 1:top_k]] = -math.inf
        p, q = z.softmax(-1)[1:].tolist()
        expected |= {(first, second): count * p[first] * q[second] for second in range(5) if p[first] * q[second]}
    found = completions(model, [[3, 1]] * count, 2, T, top_k=top_k, eos=(), batch=1000, seed=1)
    found = Counter(map(tuple, learnt(found)))
    assert len(expected) == (top_k or 5) ** 2 and set(found) <= set(expected)
    assert chisquare([found[pair] for pair in expected], list(expected.values())).pvalue > 1e-3
    assert model.generation_config.to_diff_dict() == GenerationConfig(**LOUD).to_diff_dict()


def test_a_seed_draws_the_same_whatever_the_batch():
    model, prompts = tiny(), PROMPTS * 3
    once = learnt(completions(model, prompts, 8, seed=5))
    assert all(learnt(completions(model, prompts, 8, seed=5, batch=size)) == once for size in (1, 5))
    assert learnt(completions(model, prompts, 8, seed=6)) != once and once[1] != once[5]  # the same prompt twice


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device"))])
def test_the_model_and_the_random_state_are_only_borrowed(device):
    model, seen = gpt2(dropout=0.5).train().to(device), []
    model.transformer.h[0].eval()
    modes, own = [m.training for m in model.modules()], model.generation_config
    states = (torch, torch.cuda) if device == "cuda" else (torch,)
    before = [lib.get_rng_state() for lib in states]
    hook = model.register_forward_hook(lambda *_: seen.append((model.training, torch.is_grad_enabled())))
    completions(model, PROMPTS, 4)
    batch = completions(model, PROMPTS, 4, temperature=0)
    assert perplexity(model, batch) > 1 and batch["labels"].device == model.device
    assert set(seen) == {(False, False)} and hook.remove() is None
    hook = model.register_forward_hook(lambda *_: 1 / 0)
    for borrow in (lambda: completions(model, PROMPTS, 4), lambda: perplexity(model, batch)):
        with pytest.raises(ZeroDivisionError):
            borrow()
    assert [m.training for m in model.modules()] == modes and model.generation_config is own
    assert all(torch.equal(lib.get_rng_state(), state) for lib, state in zip(states, before, strict=True))


def test_wide_enough_beams_find_the_likeliest_text_and_a_data_set_holds_it_unpadded():
    model = tiny(seed=14, vocab_size=4)
    every = torch.tensor(list(itertools.product(range(4), repeat=3)))
    log_q = model(torch.cat([torch.ones(64, 1).long(), every], 1)).logits[:, :-1].log_softmax(-1)
    best = every[log_q.gather(2, every[..., None]).sum((1, 2)).argmax()].tolist()
    assert best != greedy(model, [1], 3)[1:]
    rows = as_dataset(completions(model, [[2, 1], [1]], 3, temperature=0, num_beams=16, eos=()))
    assert rows[1] == {"input_ids": [1, *best], "attention_mask": [1] * 4, "labels": [-100, *best]}


@given(st.lists(st.tuples(texts, st.lists(token, max_size=6)), min_size=1, max_size=4), st.lists(token, max_size=2),
       token, st.sampled_from(["left", "right"]), st.integers(1, 5), st.sampled_from([None, 1, 3]))
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
        return [tuple(b is not batch for b in OnPolicy(share, 1, seed=4)(model, [batch] * 3, step)) for step in steps]

    run = own(0.3, range(200))
    for column in [sum(run, ()), *zip(*run, strict=True)]:
        assert binomtest(sum(column), len(column), 0.3).pvalue > 1e-3
    assert len(set(run)) > 4 and own(0.3, range(190, 200)) == run[190:]  # a resumed run draws the same
    assert set(own(0, range(50))) == {(False,) * 3} and set(own(1, range(50))) == {(True,) * 3}


def test_own_text_depends_on_seed_step_and_place_only():
    model, batches = tiny().train(), [padded(PROMPTS, "left", responses=[[1]] * 4)] * 2
    first, again, later, other = ([learnt(b) for b in OnPolicy(1.0, 12, seed=seed)(model, batches, step)]
                                  for seed, step in [(0, 7), (0, 7), (0, 8), (1, 7)])
    assert first == again and model.training and len({str(text) for text in (*first, *later, *other)}) == 6


def test_perplexity_against_a_loop_over_tokens():
    responses, nats = [[1, 2], [5], [3, 3, 3], []], []
    for prompt, response in zip(PROMPTS, responses, strict=True):
        log_q = gpt2()(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        nats += [-float(log_q[len(prompt) + i - 1, token].detach()) for i, token in enumerate(response)]
    for batch in (padded(PROMPTS, side, responses=responses) for side in ("left", "right")):
        assert perplexity(gpt2(dropout=0.5).train(), batch) == pytest.approx(math.exp(sum(nats) / 6), rel=1e-12)


def test_distinct_by_hand():
    rows = [["a", "b", "a", "b"], ["b"], ["a", "b", "c"]]
    assert distinct(rows, 1) == 3 / 8 and distinct(rows, 2) == 3 / 5 and distinct(rows, 3) == 1
    assert distinct([torch.tensor([1, 2]), torch.tensor([1, 2])], 2) == 1 / 2


ERRORS = {
    "prompts must hold at least one": lambda m: completions(m, [], 1),
    r"prompts\[1\] must be a non-empty sequence": lambda m: completions(m, [[1], []], 1),
    r"ids below 11, got 3 to 11": lambda m: completions(m, [[3, V]], 1),
    "max_new_tokens=30 within the model's 32 positions, got 3": lambda m: completions(m, [[1, 2], [1, 2, 3]], 30),
    "completions: temperature must .* got -1": lambda m: completions(m, [[1]], 1, -1),
    "num_beams=2 needs temperature=0": lambda m: completions(m, [[1]], 1, num_beams=2),
    "causal language model, got T5": lambda m: completions(tiny(transformers.T5ForConditionalGeneration), [[1]], 1),
    r"share must be a number in \[0, 1\], got 1.1": lambda m: OnPolicy(1.1, 1),
    "prompt_length must .* at least 1, got 0": lambda m: OnPolicy(1, 1, prompt_length=0),
    "row 0 has no prompt": lambda m: OnPolicy(1, 1)(m, [padded([[1, 2]], "left")], 0),
    "got labels that are all −100": lambda m: perplexity(m, padded([[1]], "right")),
    "n = 3 tokens, got 2 shorter": lambda m: distinct([[1], [2, 3]], 3),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors_name_the_argument(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message](counter())
