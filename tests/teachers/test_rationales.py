"""A teacher that says the steps it was told, against plain arithmetic."""

import pytest
import torch
import torch.nn.functional as F

from kdlab.data import sums
from kdlab.losses.rationale import rationale_loss
from kdlab.teachers.outputs import hidden
from kdlab.teachers.rationales import Rationales
from tests.data.test_sums import STEPS, X


def said(teacher, x):
    """The two digits of the layer `steps`, as shares (N, 2, 10), and the answer (N, 10)."""
    layer = hidden(teacher, x, ["steps"])["steps"]
    assert layer.shape == (len(x), 20) and layer.dtype == torch.float32
    return layer.unflatten(1, (2, 10)), teacher(x)


def test_the_default_says_the_right_steps_of_every_question():
    shares, logits = said(Rationales(), X)
    right = torch.tensor(STEPS)
    assert torch.equal(shares, F.one_hot(right[:, :2], 10).float())
    assert torch.equal(logits, 10 * F.one_hot(right[:, 2], 10).float())
    assert not list(Rationales().parameters()) and not Rationales().state_dict()


def test_several_rationales_are_their_mean_and_none_is_nothing_to_learn():
    asked = sums.text(X)["input"]
    told = [
        f"1 + 2 ends in {s}. {s} · 3 ends in {p}. …" for s, p in [(3, 9), (3, 9), (3, 1), (4, 2)]
    ]
    teacher = Rationales([(asked[1234], one) for one in told])
    shares, logits = said(teacher, X[[1234, 1235]])
    assert shares[0, 0].tolist() == [0, 0, 0, 0.75, 0.25, 0, 0, 0, 0, 0]
    assert shares[0, 1].tolist() == [0, 0.25, 0.25, 0, 0, 0, 0, 0, 0, 0.5]
    assert not shares[1].any() and logits.argmax(-1).tolist() == [3, 4]
    student = torch.randn(2, 20, requires_grad=True)
    rows = rationale_loss(student, shares.flatten(1), reduction="rows")
    assert rows[1] == 0 and not torch.autograd.grad(rows.sum(), student)[0][1].any()


@pytest.mark.parametrize(
    "said, words",
    [
        ([("What?", "1 ends in 2. 2 ends in 3.")], "read: question and rationale must be as"),
        ([(sums.text(X[:1])["input"][0], "It is 3.")], "read: question and rationale must be as"),
        (["ab"], "Rationales: said must be pairs"),
        ([("one", "two", "three")], "Rationales: said must hold pairs"),
        (3, "Rationales: said must be pairs"),
    ],
)
def test_what_is_no_rationale_is_told(said, words):
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        Rationales(said)
