"""The loss of rationales against torch's cross-entropy."""

import pytest
import torch
import torch.nn.functional as F

from kdlab.losses.rationale import rationale_loss


def test_rationale_loss_is_two_cross_entropies():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(7, 20, dtype=torch.float64, generator=generator, requires_grad=True)
    digits = torch.randint(10, (7, 2), generator=generator)
    teacher = F.one_hot(digits, 10).flatten(1).double()
    expected = sum(
        F.cross_entropy(student[:, 10 * i : 10 * i + 10], digits[:, i], reduction="none")
        for i in (0, 1)
    )
    torch.testing.assert_close(rationale_loss(student, teacher, reduction="rows"), expected)
    torch.testing.assert_close(rationale_loss(student, teacher), expected.mean())
    (ours,) = torch.autograd.grad(rationale_loss(student, teacher), student)
    (theirs,) = torch.autograd.grad(expected.mean(), student)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "student, teacher, options, words",
    [
        (
            (4, 10),
            (4, 20),
            {},
            r"student and teacher must be digits \(B, 20\), got \(4, 10\) and \(4, 20\)",
        ),
        ((4, 12), (4, 12), {}, "student and teacher must be digits"),
        ((4, 20), (4, 20), {"reduction": "sum"}, "reduction must be 'mean' or 'rows', got 'sum'"),
    ],
)
def test_what_does_not_fit_is_told(student, teacher, options, words):
    with pytest.raises(ValueError, match=f"^rationale_loss: {words}"):
        rationale_loss(torch.zeros(student), torch.zeros(teacher), **options)
