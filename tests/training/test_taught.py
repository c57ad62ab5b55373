"""Answers of a teacher as they are kept for the loop."""

import pytest
import torch

from kdlab import (
    load,
)
from kdlab.training import taught


@pytest.mark.parametrize(
    "given, kept", [("float64", "float64"), ("float32", "float32"), ("float16", "float32")]
)
def test_given_answers_are_kept_in_the_precision_they_came_in_or_float32(given, kept):
    task = load("digits", sizes=(50, 20, 20))
    z = torch.randn(50, 10, dtype=torch.float64).to(getattr(torch, given))
    found = taught.answers_of([z], [task], "train")["logits"]
    assert found.dtype == getattr(torch, kept)
    assert torch.equal(found[0].cpu(), z.to(found.dtype))
