"""Tensors, lists and rows at the edge: the value comes back, or an error that says what came."""

import math

import numpy as np
import pytest
import torch

from kdlab.base import arguments, plain_arguments
from kdlab.base.arguments import broadcasts, fits, labels, listed, logits, number_or_tensor, rows_of


def test_the_plain_ones_are_offered_here_too():
    plain = ["instance", "number", "one_of", "place", "share", "text", "whole"]
    assert all(getattr(arguments, name) is getattr(plain_arguments, name) for name in plain)


@pytest.mark.parametrize(
    "value", [2, 0.5, np.float32(0.5), torch.tensor(0.5), torch.ones(2, 1, 1), np.ones((3, 1))]
)
def test_a_number_or_one_a_replica_comes_back_as_a_number_or_a_tensor(value):
    found = number_or_tensor("f", "key", value, low=0, high=2)
    assert torch.is_tensor(found) or type(found) in (int, float)
    assert np.array_equal(found, value)


@pytest.mark.parametrize(
    "value, options, words",
    [
        (True, {}, "be at least -inf and finite, got True"),
        (math.inf, {"low": 0}, "be at least 0 and finite, got inf"),
        (0, {"above": 0}, "be above 0 and finite, got 0"),
        (torch.tensor([[1.0], [3.0]]), {"low": 0, "high": 2}, r"lie in \[0, 2\], got tensor"),
        (torch.tensor([[math.nan]]), {}, "be at least -inf and finite, got tensor"),
        (torch.tensor([]), {}, "be at least -inf and finite, got tensor"),
        (torch.tensor([True]), {}, "be at least -inf and finite, got tensor"),
        (torch.ones(1, 2), {}, r"be a number or a tensor \(..., 1\), got the shape \(1, 2\)"),
    ],
)
def test_what_is_no_such_number_is_named(value, options, words):
    with pytest.raises(ValueError, match=f"^f: key must {words}"):
        number_or_tensor("f", "key", value, **options)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (1, 4), (2, 3, 4), (2, 1, 1), (5, 4)])
def test_what_broadcasts_is_what_torch_expands(shape):
    whole = (2, 3, 4)
    try:
        torch.zeros(shape).expand(whole)
        expands = True
    except RuntimeError:
        expands = False
    assert broadcasts(shape, whole) is expands


def test_only_a_tensor_must_fit():
    fits("f", "key", "anything", (2, 3))
    fits("f", "key", torch.ones(2, 1), (2, 3))
    with pytest.raises(ValueError, match=r"^f: key must broadcast to the logits \(2, 3\), got"):
        fits("f", "key", torch.ones(2), (2, 3))


@pytest.mark.parametrize("value", ["ab", (1, 2), {1: 2}, range(2), torch.ones(2), np.ones(2), 3])
def test_a_list_is_what_holds_things_and_is_no_text(value):
    if isinstance(value, (str, torch.Tensor, int)):
        with pytest.raises(TypeError, match=f"^f: key must be pairs, got {type(value).__name__}$"):
            listed("f", "key", value, "pairs")
    else:
        assert listed("f", "key", value) == list(value)


def test_rows_are_counted_in_a_tensor_or_in_several_that_agree():
    ids = torch.zeros(3, 8)
    assert rows_of("f", "x", ids) == rows_of("f", "x", {"ids": ids, "mask": ids[:, :1]}) == 3
    for wrong in ([], {}, torch.tensor(3.0), {"ids": [1, 2]}):
        with pytest.raises(TypeError, match=r"^f: x must be a tensor \(N, …\) or a dictionary"):
            rows_of("f", "x", wrong)
    for wrong in (ids[:0], {"ids": ids, "mask": ids[:2]}):
        with pytest.raises(ValueError, match="^f: x must hold at least one row, the same in all"):
            rows_of("f", "x", wrong)


@pytest.mark.parametrize(
    "value, words",
    [
        ([1.0], r"be a tensor of numbers \(..., C\), got list"),
        (torch.ones(2, dtype=torch.bool), "be a tensor of numbers .*, got torch.bool"),
        (torch.ones(2, dtype=torch.complex64), "be a tensor of numbers .*, got torch.complex64"),
        (torch.tensor(1.0), r"have the shape \(..., C\), got \(\)"),
        (torch.ones(2, 0), r"have the shape \(..., C\), got \(2, 0\)"),
    ],
)
def test_logits_have_a_class_or_more(value, words):
    with pytest.raises((TypeError, ValueError), match=f"^f: z must {words}"):
        logits("f", "z", value)
    assert logits("f", "z", (right := torch.ones(2, 1))) is right


@pytest.mark.parametrize(
    "value, words",
    [
        ([0, 1], "be a tensor of whole numbers .*, got list"),
        (torch.zeros(2), "be a tensor of whole numbers .*, got torch.float32"),
        (torch.ones(2, dtype=torch.bool), "be a tensor of whole numbers .*, got torch.bool"),
        (torch.zeros(3, dtype=torch.long), r"have a label for each row \(3, 2\) of the logits"),
    ],
)
def test_labels_are_whole_numbers_one_a_row(value, words):
    with pytest.raises((TypeError, ValueError), match=f"^f: y must {words}"):
        labels("f", "y", value, rows=(3, 2))
    assert labels("f", "y", (right := torch.zeros(3, 1, dtype=torch.uint8)), (3, 2)) is right
