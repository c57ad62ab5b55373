"""F.kl_div written out, against torch's own."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from values import logits

from kdlab.losses.pointwise import PointwiseKL

C = 5


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean", "batchmean"])
def test_the_written_out_divergence_is_torch_s(reduction, log_target):
    target = torch.eye(C, dtype=torch.float64)[:, :4].softmax(0) if log_target else torch.eye(C)
    q = logits(C, target.shape[1]).requires_grad_()
    found = []
    for written_out in (True, False):
        if written_out:
            with PointwiseKL():
                value = F.kl_div(q, target, reduction=reduction, log_target=log_target)
        else:
            value = F.kl_div(q, target, reduction=reduction, log_target=log_target)
        found.append((value, *torch.autograd.grad(value.sum(), q)))
    torch.testing.assert_close(*found)


def test_a_stack_of_students_is_one_operation():
    q, p = logits(3, 4, C).log_softmax(-1), logits(3, 4, C, seed=1).softmax(-1)

    def summed(q, p):
        return F.kl_div(q, p, reduction="sum")

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns where it goes through a stack one by one
        with PointwiseKL():
            found = torch.func.vmap(summed)(q, p)
    torch.testing.assert_close(
        found, torch.stack([summed(*pair) for pair in zip(q, p, strict=True)])
    )


def test_it_says_whether_it_was_called():
    with PointwiseKL() as idle:
        logits(2, C).softmax(-1)
    with PointwiseKL() as asked:
        F.kl_div(logits(2, C), torch.eye(2, C), reduction="sum")
    assert not idle.called and asked.called


def test_what_is_rare_is_left_to_torch():
    with PointwiseKL(), pytest.raises(ValueError, match="median is not a valid value"):
        F.kl_div(logits(2, C), torch.eye(2, C), reduction="median")
