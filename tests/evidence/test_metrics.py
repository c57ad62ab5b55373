"""Metrics against sklearn, scipy and cases worked by hand; leading axes (replicas) against one
model at a time."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.metrics import accuracy_score, log_loss

from kdlab import accuracy, agreement, ece, entropy, nll, parameters
from kdlab.data.tasks import load
from kdlab.students.builders import convnet, mlp


def batch(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, generator=g), torch.randint(shape[-1], shape[:-1], generator=g)


def ece_by_bins(probabilities, labels, bins=15):
    """Guo et al. 2017, eq. 5, one bin and one row at a time."""
    total = 0.0
    for b in range(bins):
        inside = [
            (p.max(), p.argmax() == y)
            for p, y in zip(probabilities, labels, strict=True)
            if b / bins < p.max() <= (b + 1) / bins
        ]
        if inside:
            confidence, right = np.mean(inside, axis=0)
            total += len(inside) / len(labels) * abs(right - confidence)
    return total


def test_accuracy_and_nll_are_sklearns():
    z, y = batch(200, 5)
    p = special.softmax(z.double().numpy(), -1)
    assert accuracy(z, y).item() == pytest.approx(accuracy_score(y, p.argmax(-1)))
    assert nll(z, y).item() == pytest.approx(log_loss(y, p, labels=range(5)), rel=1e-5)
    assert nll(z.double(), y).item() == pytest.approx(log_loss(y, p, labels=range(5)), rel=1e-12)
    coarse = z.bfloat16()
    expected = log_loss(y, special.softmax(coarse.double().numpy(), -1), labels=range(5))
    assert nll(coarse, y).dtype == torch.float32 and nll(coarse, y).item() == pytest.approx(
        expected, rel=1e-5
    )


def test_ece_by_hand():
    # four rows at confidence 0.9, three of them right; two at 0.6, both right: too sure, then not
    # sure enough
    p = torch.tensor([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    y = torch.tensor([0, 0, 0, 1, 1, 1])
    assert ece(p.log(), y).item() == pytest.approx(4 / 6 * 0.15 + 2 / 6 * 0.4, abs=1e-6)
    assert ece(p.log(), y, bins=1).item() == pytest.approx(
        5 / 6 - 0.8, abs=1e-6
    )  # in one bin the two cancel


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_ece_by_a_loop_over_the_bins(bins):
    z, _ = batch(300, 4, seed=1)
    y = z.softmax(-1).multinomial(1, generator=torch.Generator().manual_seed(0))[
        :, 0
    ]  # too sure here, unsure there
    expected = ece_by_bins(special.softmax(z.numpy(), -1), y.numpy(), bins)
    assert expected > 0.001 and ece(z, y, bins).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("T", [0.5, 1.0, 8.0])
def test_entropy_is_scipys_also_where_a_class_is_ruled_out(T):
    z, _ = batch(50, 6)
    z[:10, 2] = -math.inf
    expected = stats.entropy(special.softmax(z.numpy() / T, -1), axis=-1).mean()
    assert entropy(z, T).item() == pytest.approx(expected, rel=1e-5)


def test_agreement_counts_rows_of_one_mind():
    one = torch.tensor([[3.0, 1.0, 0.0], [0.0, 9.0, 1.0], [0.0, 1.0, 2.0], [5.0, 4.0, 0.0]])
    other = torch.tensor([[9.0, 8.0, 7.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert agreement(one, other).item() == 0.5


def test_leading_axes_are_one_model_at_a_time():
    z, y = batch(2, 3, 40, 5)
    other, _ = batch(2, 3, 40, 5, seed=1)
    for metric, second in [(accuracy, y), (nll, y), (ece, y), (agreement, other)]:
        alone = torch.tensor([[metric(z[i, j], second[i, j]) for j in range(3)] for i in range(2)])
        torch.testing.assert_close(metric(z, second), alone)
    torch.testing.assert_close(
        entropy(z), torch.tensor([[entropy(z[i, j]) for j in range(3)] for i in range(2)])
    )
    for metric in (accuracy, nll, ece):  # labels (N,) shared by every replica
        shared = torch.stack([metric(z[0, j], y[0, 0]) for j in range(3)])
        torch.testing.assert_close(metric(z[0], y[0, 0]), shared)


def test_parameters_by_hand():
    task = load("digits")
    assert parameters(mlp(32, 16)(task)) == (64 * 32 + 32) + (32 * 16 + 16) + (16 * 10 + 10)
    assert parameters(convnet(8, 16)(task)) == (9 * 8 + 8) + (9 * 8 * 16 + 16) + (
        4 * 4 * 16 * 10 + 10
    )
