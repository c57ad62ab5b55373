"""Tokenizers that differ in one thing, padded widths, a loss across vocabularies, spans of one
text."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.autograd import gradcheck
from transformers import PreTrainedTokenizerFast

from kdlab import forward_kl, tvd
from kdlab.data.tokenizers import align, same_tokenizer
from kdlab.losses.uld import mask_padding, uld

FILE = Path(__file__).parents[2] / "data" / "teachers" / "topics_lm" / "tokenizer.json"


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def fast(model):
    return PreTrainedTokenizerFast(
        tokenizer_object=model if isinstance(model, Tokenizer) else Tokenizer(model)
    )


def tokenizer(change=lambda t: None, edit=lambda model: None, **special):
    """The committed tokenizer, after an edit of its JSON or a change of the object."""
    content = json.loads(FILE.read_text())
    edit(content["model"])
    made = Tokenizer.from_str(json.dumps(content))
    change(made)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, **{"bos_token": "<s>", "eos_token": "<s>"} | special
    )


def swap(model):
    model["vocab"]["t"], model["vocab"]["e"] = model["vocab"]["e"], model["vocab"]["t"]


def rename(model):
    del model["vocab"][max(model["vocab"], key=model["vocab"].get)]  # the token of the last merge
    model["vocab"]["§new"] = 511
    model["merges"].pop()


def unmerge(model):
    model["merges"].remove([m for m in model["merges"] if m[0].startswith("Ġ")][-1])


def normalise(how):
    return lambda t: setattr(t, "normalizer", how)


def blank(t):
    first = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    t.pre_tokenizer = pre_tokenizers.Sequence([first, t.pre_tokenizer])


BEGIN = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
DIFFERENT = {
    "two ids": (
        {"edit": swap},
        "tokens with another id: 2, such as 'e' (69 and 84)",
        "probes encoded otherwise: ",
    ),
    "a name": (
        {"edit": rename},
        "tokens in a alone: 1, such as ",
        "tokens in b alone: 1, such as '§new'",
        "probes",
    ),
    "a token more": (
        {"change": lambda t: t.add_tokens(["zebra"])},
        "number of tokens: 512 and 513",
        "tokens in b alone: 1, such as 'zebra' (512)",
    ),
    "another end": ({"eos_token": "e"}, "special tokens: eos_token is ('<s>', 0) and ('e', 69)"),
    "no end": ({"eos_token": None}, "special tokens: eos_token is ('<s>', 0) and None"),
    "a merge less": ({"edit": unmerge}, "probes encoded otherwise: 1 of 528, such as"),
    "a beginning": (
        {"change": lambda t: setattr(t, "post_processor", BEGIN)},
        "probes encoded otherwise: 528 of 528",
    ),
    "NFC": (
        {"change": normalise(normalizers.NFC())},
        "probes encoded otherwise: 1 of 528, such as 'e\u0301",
    ),
    "NFKC": ({"change": normalise(normalizers.NFKC())}, "probes encoded otherwise"),
    "a blank before": ({"change": blank}, "probes encoded otherwise"),
}


def test_the_same_tokenizer_loaded_twice_is_the_same():
    for other in (
        PreTrainedTokenizerFast.from_pretrained(FILE.parent),
        tokenizer(),
        tokenizer(pad_token="<s>"),
    ):
        found = same_tokenizer(tokenizer(), other)
        assert found and found.why == () and found.vocab_size == 512
        assert str(found) == "same tokenizer, vocabulary of 512"


@pytest.mark.parametrize("name", DIFFERENT)
def test_equal_width_is_not_enough(name):
    (change, *expected), original = DIFFERENT[name], tokenizer()
    found = same_tokenizer(original, tokenizer(**change))
    assert (
        not found and found.vocab_size == 512 and not same_tokenizer(tokenizer(**change), original)
    )
    assert str(found) == "\n- ".join(["different tokenizers", *found.why])
    for sentence, beginning in itertools.zip_longest(
        found.why[: len(expected)], expected, fillvalue="nothing"
    ):
        assert sentence.startswith(beginning)
    assert len(found.why) == len(expected) or name in ("another end", "a token more")


def test_one_vocabulary_cut_in_two_ways_and_probes_of_ones_own():
    vocab, merges = (
        {"1": 0, "2": 1, "3": 2, "12": 3, "23": 4, "123": 5},
        [("1", "2"), ("12", "3"), ("2", "3")],
    )
    digits = Tokenizer(models.BPE(vocab, merges))
    digits.pre_tokenizer = pre_tokenizers.Digits(individual_digits=True)
    whole, order, single = (
        fast(models.BPE(vocab, merges)),
        fast(models.BPE(vocab, merges[::-1])),
        fast(digits),
    )
    assert same_tokenizer(whole, fast(models.BPE(vocab, merges)))
    assert (
        same_tokenizer(whole, order)
        .why[0]
        .endswith("'0 12 345 6789 1,000,000 3.14159' ([5, 0, 2, 0, 0] and [0, 4, 0, 2, 0, 0])")
    )
    assert "5 of 22, such as '0 12 " in same_tokenizer(whole, single).why[0]
    assert same_tokenizer(whole, single, probes=["no digits", "1 a"]) and same_tokenizer(
        whole, single, probes=[]
    )
    gap = fast(models.WordLevel({"a": 0, "b": 6}, unk_token="a"))
    assert same_tokenizer(gap, gap).vocab_size == 7


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("gpt2", tokenizer()), "same_tokenizer: a must be a tokenizer of transformers, got str"),
        ((tokenizer(), 3), "same_tokenizer: b must be a tokenizer of transformers, got int"),
        (
            (tokenizer(), tokenizer(), "text"),
            "same_tokenizer: probes must be a list of texts, got str",
        ),
    ],
)
def test_what_is_no_tokenizer_is_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        same_tokenizer(*arguments)


@pytest.mark.parametrize("wide, narrow", [(9, 7), (7, 9), (7, 7), (9, 5)])
def test_padding_takes_no_probability_and_no_gradient(wide, narrow):
    s, t = normal(2, 3, wide, seed=1).requires_grad_(), normal(2, 3, narrow, seed=2)
    a, b = (z.detach().numpy()[..., :5] for z in (s, t))
    log_q, log_p = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (a, b))
    expected = (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()
    loss = forward_kl(*mask_padding(s, t, 5))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    (grad,) = torch.autograd.grad(loss, s)
    assert (grad[..., 5:] == 0).all() and (grad[..., :5] != 0).all()
    pad = [
        F.pad(z, (0, 9 - z.shape[-1])).masked_fill(torch.arange(9) >= 5, -torch.inf) for z in (s, t)
    ]
    assert loss.item() == pytest.approx(forward_kl(*pad).item(), rel=1e-12)


@pytest.mark.parametrize("size", [0, 7, 2.5, "5", None])
def test_a_vocabulary_that_cannot_be_is_refused(size):
    with pytest.raises(
        ValueError,
        match=r"vocab_size must be .* from 1 to the narrower of the widths \(8, 6\), got",
    ):
        mask_padding(torch.zeros(2, 8), torch.zeros(2, 6), size)


def by_assignment(s, t, temperature=1.0):
    """One pair of positions: the cheapest matching of the two vocabularies, found by a solver and
    not by sorting."""
    q, p = (np.exp(z / temperature) for z in (s, t))
    q, p = (np.pad(x / x.sum(), (0, max(len(q), len(p)) - len(x))) for x in (q, p))
    cost = np.abs(p[:, None] - q[None, :])
    return cost[linear_sum_assignment(cost)].sum()


def by_loops(s, t, keep_s, keep_t, temperature):
    left, right = (
        [[row for row, k in zip(*text, strict=True) if k] for text in zip(z, keep, strict=True)]
        for z, keep in ((s, keep_s), (t, keep_t))
    )
    return [
        [by_assignment(x, y, temperature) for x, y in zip(*text, strict=False)]
        for text in zip(left, right, strict=True)
    ]


@pytest.mark.parametrize("sizes", [(5, 9, 4, 6), (9, 5, 6, 4), (7, 7, 5, 5)])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_uld_is_the_cheapest_matching(sizes, temperature):
    V_s, V_t, L_s, L_t = sizes
    s, t = normal(3, L_s, V_s, seed=3), 2 * normal(3, L_t, V_t, seed=4)
    keep_s, keep_t = normal(3, L_s, seed=5) > -0.5, normal(3, L_t, seed=6) > -0.5
    keep_s[0], keep_s[1, 1:], keep_s[1, :1] = True, False, True
    expected = by_loops(s.numpy(), t.numpy(), keep_s, keep_t, temperature)
    assert len({len(row) for row in expected}) > 1  # texts of several lengths
    mean = np.mean(list(itertools.chain(*expected)))
    assert uld(s, t, keep_s, keep_t, temperature).item() == pytest.approx(mean, rel=1e-9)
    rows = uld(s, t, keep_s, keep_t, temperature, reduction="rows")
    assert rows.shape == (3, min(L_s, L_t))
    for row, found in zip(expected, rows, strict=True):
        assert found.tolist() == pytest.approx(row + [0.0] * (len(found) - len(row)), rel=1e-9)
    whole = by_loops(s.numpy(), t.numpy(), keep_s | True, keep_t | True, temperature)
    assert uld(s, t, temperature=temperature).item() == pytest.approx(np.mean(whole), rel=1e-9)
    assert uld(s[None], t[None], keep_s[None], keep_t[None], temperature).item() == pytest.approx(
        mean
    )


def test_uld_sees_how_sure_and_never_of_what():
    assert uld(
        torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0.4, 0.6]]).log()
    ).item() == pytest.approx(0.4)
    z = normal(2, 5, 11)
    assert (
        uld(z, z[..., torch.randperm(11, generator=torch.Generator().manual_seed(0))]).item()
        < 1e-15
    )
    other = normal(2, 5, 11, seed=1)
    assert (
        0 < uld(z, other) < 2 * tvd(z, other)
    )  # twice the total variation is the price of the pairing by token


def test_gradients_and_positions_that_do_not_count():
    keep = torch.tensor([[True, False, True], [True, True, False]])
    assert gradcheck(
        lambda z: uld(z, normal(2, 4, 6, seed=1), keep, temperature=1.7),
        normal(2, 3, 5).requires_grad_(),
    )
    s, t = normal(2, 4, 5, dtype=torch.float32), normal(2, 5, 5, seed=1, dtype=torch.float32)
    keep_s, keep_t = (
        torch.tensor([[1, 1, 0, 1]] * 2).bool(),
        torch.tensor([[0, 1, 1, 0, 1]] * 2).bool(),
    )
    expected = uld(s[keep_s].view(2, 3, 5), t[keep_t].view(2, 3, 5))
    s, t = (
        s.masked_fill(~keep_s[..., None], torch.nan).requires_grad_(),
        t.masked_fill(~keep_t[..., None], torch.inf),
    )
    loss, nothing = uld(s, t, keep_s, keep_t), uld(s, t, keep_s & False, keep_t)
    assert loss.item() == pytest.approx(expected.item()) and nothing.item() == 0
    grad, none = (torch.autograd.grad(z, s)[0] for z in (loss, nothing))
    assert torch.isfinite(grad).all() and (grad[~keep_s] == 0).all() and (grad[keep_s] != 0).any()
    assert (none == 0).all()


def test_ruled_out_tokens_and_half_precision():
    s = torch.tensor([[1.0, -torch.inf, 0.5]], dtype=torch.bfloat16, requires_grad=True)
    loss = uld(s, torch.tensor([[2.0, 0.0]], dtype=torch.bfloat16))
    assert loss.dtype == torch.float32 and torch.isfinite(torch.autograd.grad(loss, s)[0]).all()
    assert loss.item() == pytest.approx(
        2 * (torch.tensor([0.5, 2.0]).sigmoid().diff().item()), rel=1e-5
    )


Z = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (
            (Z[0, 0], Z),
            TypeError,
            r"uld: student_logits must be a floating-point tensor \(..., L, V\), got",
        ),
        ((Z, Z.long()), TypeError, "uld: teacher_logits must be a floating-point tensor"),
        ((Z, Z[:1]), ValueError, "must hold as many texts"),
        (
            (Z, Z, torch.ones(2, 2)),
            ValueError,
            r"uld: student_mask must have the shape .* \(2, 3\), got \(2, 2\)",
        ),
        ((Z, Z, None, [True]), ValueError, "uld: teacher_mask must .* got list"),
        ((Z, Z, None, None, 0.0), ValueError, "uld: temperature must be above 0"),
        ((Z, Z / 0), ValueError, "uld: teacher_logits holds 24 NaN"),
    ],
)
def test_bad_input_of_uld_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        uld(*arguments)


@given(
    st.sets(st.integers(1, 19)), st.sets(st.integers(1, 19)), st.integers(0, 2), st.integers(0, 2)
)
def test_spans_end_where_both_tokenizers_cut(a, b, first, last):
    left, right = (list(itertools.pairwise([0, *sorted(x), 20])) for x in (a, b))
    left = [(0, 0)] * first + left + [(20, 20)] * last  # special tokens have no text
    spans = align(left, right)
    assert [right[t[-1]][1] for _, t in spans] == sorted(a & b) + [20]
    for (s, t), begin in zip(spans, [0, *sorted(a & b)], strict=True):
        for tokens, known in (
            (s, left),
            (t, right),
        ):  # without a gap from one common cut to the next
            assert [begin, *(known[i][1] for i in tokens)] == [
                *(known[i][0] for i in tokens),
                known[tokens[-1]][1],
            ]
    assert [i for s, _ in spans for i in s] == list(range(first, len(left) - last))
    assert [i for _, t in spans for i in t] == list(range(len(right)))


def test_bytes_of_one_character_stay_together_and_what_is_left_is_dropped():
    assert align([(0, 1), (0, 1), (1, 2)], [(0, 1), (1, 2), (1, 2)]) == [
        ([0, 1], [0]),
        ([2], [1, 2]),
    ]
    assert (
        align([(0, 3), (3, 5)], [(0, 3), (3, 4)]) == [([0], [0])]
        and align([(0, 3)], [(0, 2)]) == []
    )


def test_uld_at_the_ends_of_real_spans():
    text = "The cat sat on Ünï 2024's mat.\n\n  def f(x):"
    letters = fast(models.BPE({c: i for i, c in enumerate(set(text))}, []))
    cuts = [t(text, return_offsets_mapping=True)["offset_mapping"] for t in (tokenizer(), letters)]
    spans = align(*cuts)
    assert len(spans) < len(cuts[0]) < len(cuts[1])  # ü is two tokens
    assert "".join(text[cuts[0][s[0]][0] : cuts[0][s[-1]][1]] for s, _ in spans) == text
    at_s, at_t = ([*at] for at in zip(*[(s[-1], t[-1]) for s, t in spans], strict=True))
    z, y = normal(len(cuts[0]), 20), normal(len(cuts[1]), 30, seed=1)
    expected = np.mean(
        [by_assignment(z[i].numpy(), y[j].numpy()) for i, j in zip(at_s, at_t, strict=True)]
    )
    assert uld(z[at_s], y[at_t]).item() == pytest.approx(expected, rel=1e-9)
    assert abs(uld(z, y).item() - expected) > 1e-4  # pairing by order is another thing


def test_what_only_looks_like_a_mask_is_refused_by_uld():
    for mask in (torch.full((2, 3), -100), torch.zeros(2, 3)):
        with pytest.raises(
            (TypeError, ValueError), match="^uld: teacher_mask must hold true and false"
        ):
            uld(Z, Z, None, mask)


@pytest.mark.parametrize(
    "changes",
    [
        {"student_logits": [[0.0]]},
        {"teacher_logits": None},
        {"teacher_logits": torch.tensor(0.0)},
        {"vocab_size": True},
    ],
)
def test_the_wrong_argument_of_mask_padding_is_named(changes):
    with pytest.raises((TypeError, ValueError), match=f"^mask_padding: {next(iter(changes))} must"):
        mask_padding(**{"student_logits": Z, "teacher_logits": Z, "vocab_size": 3} | changes)


@pytest.mark.parametrize("probes", [3, "text", [None], torch.zeros(2), ["a", 1]])
def test_probes_come_as_a_list_of_texts(probes):
    with pytest.raises(TypeError, match="^same_tokenizer: probes must be a list of texts, got"):
        same_tokenizer(tokenizer(), tokenizer(), probes)
