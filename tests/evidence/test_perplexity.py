"""Perplexity against a loop over tokens, and distinct n-grams by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from writers import PROMPTS, gpt2, padded, texts, tiny, token

from kdlab.evidence.perplexity import distinct, perplexity


def test_perplexity_against_a_loop_over_tokens():
    responses, nats = [[1, 2], [5], [3, 3, 3], []], []
    for prompt, response in zip(PROMPTS, responses, strict=True):
        log_q = gpt2()(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        nats += [
            -float(log_q[len(prompt) + i - 1, token].detach()) for i, token in enumerate(response)
        ]
    for batch in (padded(PROMPTS, side, responses=responses) for side in ("left", "right")):
        assert perplexity(gpt2(dropout=0.5).train(), batch) == pytest.approx(
            math.exp(sum(nats) / 6), rel=1e-12
        )


@given(
    st.lists(
        st.tuples(texts, st.lists(token, max_size=4), st.sampled_from(["left", "right"])),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
    token,
)
@settings(max_examples=30)
@pytest.mark.parametrize("model", [tiny(), gpt2()], ids=["llama", "gpt2"])
def test_perplexity_of_a_batch_is_that_of_its_texts_one_by_one(model, rows, masked, pad):
    if not masked:  # then nothing may be padding
        shortest = min(len(p + r) for p, r, _ in rows)
        rows = [((p + r)[:shortest], [], side) for p, r, side in rows]
        rows = [(text[:1], text[1:], side) for text, _, side in rows]
    length, nats = max(len(p + r) for p, r, _ in rows), []
    columns = {"input_ids": [], "attention_mask": [], "labels": []}
    for prompt, response, side in rows:
        text, fill = prompt + response, [0] * (length - len(prompt + response))
        with torch.no_grad():
            log_q = model(torch.tensor([text])).logits[0].log_softmax(-1)
        nats += [-float(log_q[len(prompt) + i - 1, t]) for i, t in enumerate(response)]
        for key, own, other in [
            ("input_ids", text, pad),
            ("attention_mask", [1] * len(text), 0),
            ("labels", [-100] * len(prompt) + response, -100),
        ]:
            filling = [other] * len(fill)
            columns[key].append(filling + own if side == "left" else own + filling)
    batch = {k: torch.tensor(v) for k, v in columns.items() if masked or k != "attention_mask"}
    if nats:
        assert perplexity(model, batch) == pytest.approx(math.exp(sum(nats) / len(nats)), rel=1e-10)
    else:
        with pytest.raises(ValueError, match="perplexity: batch must hold a token that counts"):
            perplexity(model, batch)


def test_distinct_by_hand():
    rows = [["a", "b", "a", "b"], ["b"], ["a", "b", "c"]]
    assert distinct(rows, 1) == 3 / 8 and distinct(rows, 2) == 3 / 5 and distinct(rows, 3) == 1
    assert distinct([torch.tensor([1, 2]), torch.tensor([1, 2])], 2) == 1 / 2
