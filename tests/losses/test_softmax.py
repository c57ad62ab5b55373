"""The logarithm of a softmax against scipy, by either kernel."""

import numpy as np
import pytest
import torch
from scipy import special
from values import logits, value_and_grad

from kdlab.losses.softmax import FLOOR, SHORT, log_softmax, log_softmax_of


@pytest.mark.parametrize("V", [2, SHORT, SHORT + 1, 300])  # a short last axis takes another kernel
def test_log_softmax_both_kernels(V):
    z, weight = logits(2, 3, V), logits(2, 3, V, seed=1)
    np.testing.assert_allclose(
        log_softmax(z, 2.0).numpy(), special.log_softmax(z.numpy() / 2, -1), atol=1e-12
    )
    ours = value_and_grad(lambda z: (log_softmax(z, 2.0) * weight).sum(), z)[1]
    p = special.softmax(z.numpy() / 2, -1)
    by_hand = (weight.numpy() - p * weight.numpy().sum(-1, keepdims=True)) / 2
    np.testing.assert_allclose(ours.numpy(), by_hand, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_no_float64_is_computed_in_float32(dtype):
    z = logits(4, 7).to(dtype)
    found = log_softmax(z, 3.0)
    assert found.dtype == torch.float32
    expected = special.log_softmax(z.double().numpy() / 3, -1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_a_temperature_a_replica_is_each_replica_s_own():
    z, T = logits(2, 3, 4), torch.tensor([1.0, 5.0], dtype=torch.float64)[:, None, None]
    alone = torch.stack([log_softmax(z[r], T[r].item()) for r in range(2)])
    torch.testing.assert_close(log_softmax(z, T), alone)
    assert torch.equal(log_softmax_of(z, T), log_softmax(z, T))


def test_a_class_ruled_out_by_the_floor_weighs_nothing_and_has_a_finite_gradient():
    z = torch.tensor([[0.0, 1.0, FLOOR]], dtype=torch.float64)

    def entropy(z):
        log_p = log_softmax(z)
        return -(log_p.exp() * log_p).sum()

    value, gradient = value_and_grad(entropy, z)
    alone, short = value_and_grad(entropy, z[:, :2])
    torch.testing.assert_close((value, gradient[:, :2]), (alone, short))
    assert gradient[0, 2] == 0


@pytest.mark.parametrize(
    "z, T, words",
    [
        ([1.0], 1.0, "logits must be a tensor of numbers"),
        (torch.zeros(2, 0), 1.0, "logits must have the shape"),
        (torch.zeros(2, 3), 0, "temperature must be a finite number above 0, got 0"),
        (torch.zeros(2, 3), torch.ones(2), "temperature must broadcast to the logits"),
    ],
)
def test_what_does_not_fit_is_named(z, T, words):
    with pytest.raises((TypeError, ValueError), match=f"^log_softmax: {words}"):
        log_softmax(z, T)
