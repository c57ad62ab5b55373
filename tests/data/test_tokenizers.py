"""Tokenizers that differ in one thing, and spans of one text that two of them cut."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import FILE, fast, tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from kdlab.data.tokenizers import align, same_tokenizer


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


@pytest.mark.parametrize("probes", [3, "text", [None], torch.zeros(2), ["a", 1]])
def test_probes_come_as_a_list_of_texts(probes):
    with pytest.raises(TypeError, match="^same_tokenizer: probes must be a list of texts, got"):
        same_tokenizer(tokenizer(), tokenizer(), probes)
