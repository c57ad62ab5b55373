"""The theory's network against a plain loop, its activation by its definition."""

import math

import pytest
import torch

from kdlab import load
from kdlab.students.patchnet import PatchNet, patchnet, smoothed_relu
from kdlab.training.replicas import Replicas


def test_smoothed_relu_in_its_three_parts():
    z = torch.tensor([-2.0, -0.5, 0.0, 0.5, 1.0, 1.5, 4.0], dtype=torch.float64)
    expected = [0, 0, 0, 0.125 / 3, 1 / 3, 1.5 - 2 / 3, 4 - 2 / 3]
    torch.testing.assert_close(smoothed_relu(z), torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(smoothed_relu, z[[0, 1, 3, 5, 6]].requires_grad_())


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_smoothed_relu_and_its_slope_have_no_jump(at):
    z = torch.tensor([at - 1e-7, at, at + 1e-7], dtype=torch.float64, requires_grad=True)
    y = smoothed_relu(z)
    (slope,) = torch.autograd.grad(y.sum(), z)
    assert (y - y[1]).abs().max() < 2e-7 and (
        slope - at
    ).abs().max() < 1e-6  # the slope is 0 at 0 and 1 at 1


def test_the_network_is_a_sum_over_neurons_and_patches():
    torch.manual_seed(0)
    net, x = PatchNet(4, 3, 2).double(), 2 * torch.randn(5, 1, 6, 4, dtype=torch.float64)
    logits, w = net(x).detach(), net.weight.detach()
    assert logits.shape == (5, 3)
    regions = set()
    for b in range(5):
        for c in range(3):
            total = 0.0
            for r in range(2):
                for p in range(6):
                    z = sum(float(w[c, r, i]) * float(x[b, 0, p, i]) for i in range(4))
                    total += 0 if z <= 0 else z**3 / 3 if z <= 1 else z - 2 / 3
                    regions.add(z > 0 and 1 + (z > 1))
            assert logits[b, c].item() == pytest.approx(total, abs=1e-12)
    assert regions == {0, 1, 2}  # every part of the activation was met


def test_the_builder_knows_the_task_and_draws_weights_of_variance_1_over_d():
    task, build = load("multiview"), patchnet(40)
    assert build.__name__ == "patchnet 40" and patchnet().__name__ == "patchnet 3"
    torch.manual_seed(0)
    net = build(task)
    assert [tuple(p.shape) for p in net.parameters()] == [(10, 40, 64)]
    assert net.weight.std().item() == pytest.approx(1 / math.sqrt(64), rel=0.02)  # se 0.4 %
    assert not torch.equal(build(task).weight, net.weight)


def test_stacked_networks_equal_each_alone():
    torch.manual_seed(0)
    nets, x = [PatchNet(64, 10, 3) for _ in range(4)], torch.randn(4, 7, 1, 11, 64)
    stacked = Replicas(nets, seeds=range(4)).forward(x)
    torch.testing.assert_close(
        stacked, torch.stack([net(own) for net, own in zip(nets, x, strict=True)])
    )


@pytest.mark.parametrize("neurons", [0, -1, 2.5, "3"])
def test_bad_arguments_are_named(neurons):
    with pytest.raises(
        ValueError,
        match=f"^patchnet: neurons must be a whole number of at least 1, got {neurons!r}",
    ):
        patchnet(neurons)
