"""Answers in words: the number in them, whether it is the right one, and pass@k by counting."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kdlab as kd


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is 12.", "12"),
        ("$1,250.50 in all", "1250.5"),
        ("6.0", "6"),
        ("first 3, then -4", "-4"),
        ("a 5 % loss of −7", "-7"),
        ("5 + 6 = 11\n#### 11", "11"),
        ("#### 8 (not 9?) #### 10", "10"),
        ("10-12 of them", "12"),
        ("7-3", "3"),
        ("f(5)-3", "3"),
        ("x=-4", "-4"),
        ("it lost -$5.50", "-5.5"),
        ("12,345,678.90", "12345678.9"),
        ("007", "7"),
        (".50", "0.5"),
        ("-0.0", "0"),
        ("nothing", None),
        ("", None),
        ("#### none", None),
        ("1,000,000 people", "1000000"),
    ],
)
def test_the_last_number(text, number):
    assert kd.last_number(text) == number


def test_a_piece_of_a_number_is_never_the_right_answer():
    """The tail of what is one number in another hand."""
    pieces = {
        "0": ["1 000", "1\u202f000", "1'000", "1.000.000", "1{,}000", "1_000", "1,00,000"],
        "3": ["1e3", "2^3", "1.2.3", "1,2,3", "10^3", "10³", "1/3", "4:3"],
        "5": ["1,5", "2024-03-05", "1,250,5", "−5", "–5", "1 1/5", "2.5 × 10^5"],
    }
    for right, answers in pieces.items():
        assert not kd.exact_match(answers, [right] * len(answers)).any(), right
    same = [("1 000 people", "#### 1,000"), ("1e3", "1000"), ("50 %", "50"), ("1/2", "0.5")]
    assert kd.exact_match(*map(list, zip(*same, strict=True))).all()


@given(st.integers(-(10**9), 10**9))
def test_a_whole_number_is_found_however_it_is_written(n):
    texts = (str(n), f"{n:,}", f"{n}.00", f"x = {n}.", f"3 and 4 #### {n}")
    texts += tuple(f"{n:,}".replace(",", mark) for mark in " '’_\u00a0\u202f")
    assert {kd.last_number(text) for text in texts} == {str(n)}


def test_exact_match_of_one_and_of_several_answers():
    assert kd.exact_match(["7", "it is 8"], ["#### 7", "9"]).tolist() == [True, False]
    found = kd.exact_match([["7", "none"], ["8", "9.0"]], ["7", "9"])
    assert found.tolist() == [[True, False], [False, True]]
    assert kd.exact_match(["Yes ", "no"], ["Yes", "No"], extract=None).tolist() == [True, False]
    assert kd.exact_match(["a", "b"], ["A", "c"], extract=str.lower).tolist() == [True, False]


@pytest.mark.parametrize(
    ("answers", "right", "said"),
    [
        (["1"], ["1", "2"], "the same questions"),
        ([], [], "at least one"),
        ([["1"], ["1", "2"]], ["1", "2"], "the same number of them"),
        ([["1"], "2"], ["1", "2"], "the same number of them"),
        (["1"], ["none"], r"right\[0\] must hold an answer"),
        ([1], ["1"], r"answers\[0\] must be a text"),
    ],
)
def test_what_cannot_be_judged_is_told(answers, right, said):
    with pytest.raises((TypeError, ValueError), match=said):
        kd.exact_match(answers, right)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_pass_at_k_is_the_share_of_all_choices_of_k_with_a_hit(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        row = torch.arange(n) < c
        hits = [any(row[i] for i in chosen) for chosen in itertools.combinations(range(n), k)]
        found = kd.pass_at_k(row[None], k)
        assert found.shape == (1,) and found.item() == pytest.approx(sum(hits) / len(hits))


def test_pass_at_1_is_the_mean_and_k_has_its_bounds():
    right = torch.rand(7, 9, generator=torch.Generator().manual_seed(0)) < 0.4
    assert torch.allclose(kd.pass_at_k(right, 1), right.float().mean(1))
    with pytest.raises(ValueError, match=r"k must be a whole number in \[1, 9\], got 10"):
        kd.pass_at_k(right, 10)
    with pytest.raises(ValueError, match="right must be booleans"):
        kd.pass_at_k(right.float(), 1)
