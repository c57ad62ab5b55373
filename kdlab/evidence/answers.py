"""Answers in words, judged: what the answer is, whether it is right, and how often one of k is."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kdlab.base.arguments import listed, whole
from kdlab.evidence.numerals import last_numeral


def last_number(text: str) -> str | None:
    """The last number of a text in plain form, or what follows its last "####"; None without one.

    Thousands stand in groups of three, parted by a space (also one of no break, or a narrow one),
    an apostrophe, a low line or a comma: "1 250", "1'250" and "1,250" are 1250, "3 4" is two
    numbers, and "12,34,567" is read as in India. A point is decimal, and so is a comma that parts
    no thousands: "1.250" is 1.25 and "1,5" is 1.5; two kinds, or several points, are told apart
    ("1.250,00" is 1250). "2.5e-4" and "2.5 × 10^-4" are read whole. A fraction is its value, so
    that "1/2", "½" and "0.5" are one, and "2 1/3" is 7/3. Signs of money and of per cent, units
    and zeros behind the point fall away: 50 % is 50. "−" is a minus where it stands before a
    number, not between two: "3-4", a range or a difference, ends in 4. What is in one piece and no
    number is found as it stands: a date ("2024-03-05", "5/3/2024"), a time or ratio ("3:45"), a
    power ("2^3"), a list without spaces ("1,2,3"). Numbers in words are not read, nor is "5
    million" more than 5.

    Source: GSM8K (Cobbe and others 2021) writes the answer behind "####".

    >>> last_number("She pays $1,250.00."), last_number("3 + 4 = 7 #### -7"), last_number("None.")
    ('1250', '-7', None)
    >>> last_number("12 345 678 in all"), last_number("It is 1.2E+5."), last_number("3/4 of 50 %")
    ('12345678', '120000', '50')
    """
    if not isinstance(text, str):
        raise TypeError(f"last_number: text must be a text, got {type(text).__name__}")
    return last_numeral(text.rsplit("####", 1)[-1])


def exact_match(
    answers: Sequence, right: Sequence, extract: Callable[[str], Any] | None = last_number
) -> Tensor:
    """Which answers are the right ones: a bool each, (N,), or (N, k) for k answers a question.

    answers: N texts, or N lists of k texts; right: N texts, a question each. Both are compared as
    `extract` finds them in the text (`last_number` says how a number is read; None: as they stand,
    without space around them); an answer in which it finds nothing is wrong. Raises ValueError
    where numbers of questions or answers differ, and where nothing is found in what should be
    right.

    >>> exact_match(["so it is 12.", "I think 7"], ["#### 12", "#### 8"])
    tensor([ True, False])
    >>> exact_match([["4", "5"], ["6", "6.0"]], ["4", "6"]).float().mean(1)
    tensor([0.5000, 1.0000])
    """
    answers = listed("exact_match", "answers", answers, "a list of texts, or of lists of texts")
    right = listed("exact_match", "right", right, "a list of texts")
    if extract is not None and not callable(extract):
        raise TypeError(f"exact_match: extract must be a function or None, got {extract!r:.60}")
    if len(answers) != len(right) or not answers:
        raise ValueError(
            "exact_match: answers and right must hold the same questions, at least one, "
            f"got {len(answers)} and {len(right)}"
        )
    several = [isinstance(one, (list, tuple)) for one in answers]
    counts = {len(one) for one, many in zip(answers, several, strict=True) if many}
    if any(several) and (not all(several) or len(counts) > 1 or counts == {0}):
        raise ValueError(
            "exact_match: answers must be one text a question, or the same number of them for "
            f"each, got {[len(a) if m else 1 for a, m in zip(answers, several, strict=True)][:8]}"
        )

    def found(what, text):
        if not isinstance(text, str):
            raise TypeError(f"exact_match: {what} must be a text, got {type(text).__name__}")
        return text.strip() if extract is None else extract(text)

    wanted = [found(f"right[{i}]", text) for i, text in enumerate(right)]
    if None in wanted:
        i = wanted.index(None)
        raise ValueError(f"exact_match: right[{i}] must hold an answer, got {right[i]!r:.60}")
    judged = [
        [found(f"answers[{i}]", text) == want for text in (one if many else [one])]
        for i, (one, many, want) in enumerate(zip(answers, several, wanted, strict=True))
    ]
    table = torch.tensor(judged, dtype=torch.bool)
    return table if any(several) else table[:, 0]


def pass_at_k(right: Tensor, k: int) -> Tensor:
    """How likely one of k answers to a question is right, from n ≥ k that were judged: (N,).

        1 − C(n − c, k) / C(n, k)    c of the n right

    Unbiased, where the share of questions with a hit among the first k is one draw of it. right
    (N, n): booleans, as `exact_match` gives them. The mean over questions is pass@k. Raises
    ValueError for k above n. Source: Chen and others 2021, equation 1.

    >>> pass_at_k(torch.tensor([[True, False, False, False], [False] * 4]), k=2)
    tensor([0.5000, 0.0000])
    """
    if not torch.is_tensor(right) or right.dtype != torch.bool or right.ndim != 2:
        got = f"{tuple(right.shape)}, {right.dtype}" if torch.is_tensor(right) else type(right)
        raise ValueError(f"pass_at_k: right must be booleans (N, n), got {got}")
    n = right.shape[1]
    whole("pass_at_k", "k", k, least=1, most=n)
    wrong = n - right.sum(1)
    # of the last k of n places, one after another: none of them is right
    places = torch.arange(n - k + 1, n + 1)
    missed = (1 - right.sum(1)[:, None] / places).clamp_min(0).prod(1)
    return torch.where(wrong < k, 1.0, 1 - missed)
