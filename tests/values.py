"""Logits that are drawn, and a value with its gradient, for the tests of losses."""

import torch


def logits(*shape, seed=0, dtype=torch.float64):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value_and_grad(of, z, *args, **options):
    z = z.clone().requires_grad_()
    value = of(z, *args, **options)
    return value.detach(), *torch.autograd.grad(value, z)
