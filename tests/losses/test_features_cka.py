"""Centred kernel alignment against its definition by kernels."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.func import vmap

from kdlab.losses.features import cka


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_gram(x, y):
    """Kornblith's definition through HSIC: kernels, the centring matrix, traces."""
    n = len(x)
    H = np.eye(n) - 1 / n
    K, L = x.reshape(n, -1) @ x.reshape(n, -1).T, y.reshape(n, -1) @ y.reshape(n, -1).T

    def hsic(a, b):
        return np.trace(a @ H @ b @ H)

    return hsic(K, L) / math.sqrt(hsic(K, K) * hsic(L, L))


@pytest.mark.parametrize("a, b", [((20, 3), (20, 4)), ((20, 3), (20, 30)), ((5, 2, 3, 3), (5, 40))])
def test_cka_is_hsic_of_centred_kernels(a, b):
    x, y = normal(*a, seed=1) + 3, normal(*b, seed=2) - 1  # off centre
    y.flatten(1)[:, 0] += x.flatten(1)[:, 0]
    assert cka(x, y).item() == pytest.approx(by_gram(x.numpy(), y.numpy()), rel=1e-9)
    assert cka(x.float(), y.float()).item() == pytest.approx(
        by_gram(x.numpy(), y.numpy()), rel=1e-5
    )
    assert cka(x.float(), y.float()).dtype == cka(x.half(), y.half()).dtype == torch.float32


@pytest.mark.parametrize("D", [4, 50])
def test_cka_of_the_same_is_one(D):
    x, turn = normal(30, D) + 5, torch.linalg.qr(normal(D, D, seed=1))[0]
    for y in (x, 100 * x, -x, x @ turn, x + 3, torch.cat([x, torch.zeros_like(x)], 1)):
        assert cka(x, y).item() == pytest.approx(1, abs=1e-12)
        assert cka(x, y) <= 1
    stretched = x * torch.arange(1.0, D + 1)
    assert cka(x, stretched) < 0.99  # not any linear map


def test_cka_of_noise_falls_with_more_examples():
    few, many = (cka(normal(n, 10, seed=1), normal(n, 10, seed=2)).item() for n in (10, 4000))
    assert many < 0.01 < 0.3 < few
    assert cka(normal(10, 3), torch.ones(10, 3)).item() == 0  # a constant layer


@pytest.mark.parametrize("D", [3, 9])
def test_cka_gradcheck_and_vmap(D):
    x, y = normal(6, D, seed=1).requires_grad_(), normal(6, 4, seed=2).requires_grad_()
    assert gradcheck(cka, (x, y))
    xs, ys = normal(3, 6, D, seed=3), normal(3, 6, 4, seed=4)
    torch.testing.assert_close(
        vmap(cka)(xs, ys), torch.stack([cka(a, b) for a, b in zip(xs, ys, strict=True)])
    )
    flat = torch.ones(6, D, requires_grad=True)
    assert torch.autograd.grad(cka(flat, y.detach()), flat)[0].isfinite().all()
