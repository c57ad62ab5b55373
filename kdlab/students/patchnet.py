"""The network of the multi-view theory: each class looks at each patch."""

import math

import torch
from torch import nn

from kdlab.students.builders import Builder


def smoothed_relu(z):
    """Cubic near 0, then linear: 0 for z ≤ 0, z³ / 3 for z in [0, 1], z − 2 / 3 beyond. Any shape.

    Its slope z² is small near 0, so that a neuron that begins nearer to a view outruns the others
    to it. Source: Allen-Zhu and Li 2023, the smoothed ReLU with q = 3 and ρ = 1.

    >>> smoothed_relu(torch.tensor([-1.0, 0.0, 1.0, 2.0])).mul(3).tolist()
    [0.0, 0.0, 1.0, 4.0]
    """
    return z.clamp(0, 1).pow(3) / 3 + (z - 1).relu()


class PatchNet(nn.Module):
    """F_c(x) = Σ_r Σ_p smoothed_relu(⟨w_{c,r}, x_p⟩): r neurons a class, no bias.

    x (B, k, P, d) → logits (B, C); weight (C, r, d), drawn from N(0, 1/d).
    Source: Allen-Zhu and Li 2023, the learner network.

    >>> PatchNet(64, 10, 3)(torch.zeros(2, 1, 11, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(self, width, classes, neurons):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, neurons, width) / math.sqrt(width))

    def forward(self, x):
        z = x.flatten(1, -2) @ self.weight.flatten(0, 1).T  # (B, P, C·r)
        return smoothed_relu(z).sum(1).unflatten(-1, self.weight.shape[:2]).sum(-1)


@torch.no_grad()
def answer(weight, x):
    """R networks' logits, and what `slope` needs: (R, C, r, d), (R, B, k, P, d) → (R, B, C), kept.

    >>> answer(torch.zeros(2, 10, 3, 64), torch.zeros(2, 5, 1, 11, 64))[0].shape
    torch.Size([2, 5, 10])
    """
    R, classes, neurons, _ = weight.shape
    patches = x.flatten(1, -2)  # (R, B·P, d)
    z = torch.bmm(patches, weight.flatten(1, 2).mT)
    bent = z.clamp(0, 1)
    steep = bent.square()  # the smoothed ReLU's slope
    height = z.sub_(1).relu_().addcmul_(steep, bent, value=1 / 3)
    height = height.view(R, x.shape[1], -1, classes * neurons).sum(2)
    return height.unflatten(-1, (classes, neurons)).sum(-1), (patches, steep)


@torch.no_grad()
def slope(kept, g, out):
    """Write the gradient by the weights into `out` (R, C, r, d), given g, that by the logits."""
    patches, steep = kept
    by_neuron = g.repeat_interleave(out.shape[2], -1)[:, :, None]
    steep.view(len(g), g.shape[1], -1, by_neuron.shape[-1]).mul_(by_neuron)
    torch.bmm(steep.mT, patches, out=out.flatten(1, 2))


def patchnet(neurons: int = 3) -> Builder:
    """A builder of `PatchNet`: an image's rows are its patches, `neurons` look for each class.

    >>> from kdlab.data.tasks import load
    >>> patchnet(3)(load("multiview")).weight.shape
    torch.Size([10, 3, 64])
    """
    if not isinstance(neurons, int) or neurons < 1:
        raise ValueError(f"patchnet: neurons must be a whole number of at least 1, got {neurons!r}")

    def build(task):
        return PatchNet(task.shape[-1], len(task.classes), neurons)

    build.__name__ = f"patchnet {neurons}"
    return build
