"""Texts cut into windows that lose nothing but the rest."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kdlab import language_model, plain_text
from kdlab.data.windows import windows

DATA = Path(__file__).parents[2] / "data"


def letters(bos=None):
    """A tokenizer of one id a letter, a is 1; it would add a 99 to the end if asked for special
    tokens."""

    def tokenize(texts, add_special_tokens=True, verbose=True):
        return {"input_ids": [[ord(c) - 96 for c in t] + [99] * add_special_tokens for t in texts]}

    class Letters(SimpleNamespace):
        __call__ = staticmethod(tokenize)

    return Letters(bos_token_id=bos)


@pytest.mark.parametrize(
    "bos, length, expected",
    [
        (0, 4, [[0, 1, 2, 3], [0, 4, 0, 0]]),
        (0, 5, [[0, 1, 2, 3, 0], [4, 0, 0, 5, 6]]),
        (0, 10, [[0, 1, 2, 3, 0, 4, 0, 0, 5, 6]]),
        (None, 2, [[1, 2], [3, 4], [5, 6]]),
        (None, 4, [[1, 2, 3, 4]]),
    ],
)
def test_windows_begin_each_text_and_lose_only_the_rest(bos, length, expected):
    found = windows(letters(bos), ["abc", "d", "", "ef"], length)
    assert found.tolist() == expected and found.dtype == torch.int64


def test_windows_are_what_the_models_were_trained_on():
    made = runpy.run_path(str(DATA / "make_docs_lm.py"))
    tokenizer, texts = language_model("docs_base")[1], plain_text("mail")["test"]
    row = made["ids"](tokenizer, texts)
    found = windows(tokenizer, tuple(texts), length=32)
    assert (
        torch.equal(found.flatten(), row[: len(row) // 32 * 32]) and len(row) - found.numel() < 32
    )
    assert tokenizer.decode(found.flatten()).split("<s>")[1] == texts[0]


@pytest.mark.parametrize(
    "texts, length, error, words",
    [
        ([], 4, ValueError, "texts must hold at least 4 tokens, got 0"),
        (["abc", "d"], 7, ValueError, "texts must hold at least 7 tokens, got 6"),
        ("abcdefgh", 2, TypeError, "texts must be a list of texts, got one: 'abcdefgh'"),
        (["abc"], 0, ValueError, "length must be a whole number of at least 1, got 0"),
        (["abc"], 2.0, ValueError, "length must be a whole number of at least 1, got 2.0"),
    ],
)
def test_windows_say_what_does_not_fit(texts, length, error, words):
    with pytest.raises(error, match=f"^windows: {words}"):
        windows(letters(0), texts, length)


def test_windows_of_a_text_longer_than_the_model_reads_warn_of_nothing(capfd):
    tokenizer = language_model("docs_base")[1]
    tokenizer.model_max_length = 8
    windows(tokenizer, ["Return the sum of all the numbers in a list of numbers."] * 3, length=16)
    assert "sequence length is longer" not in "".join(capfd.readouterr())
