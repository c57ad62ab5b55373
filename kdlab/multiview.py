"""Data with several views a class, and the small network that learns some of them: where ensembles come from.

Source: Allen-Zhu and Li 2023 (arXiv 2012.09816), the data distribution and the learner of their theory. Every class
has two views, either of which names it. A network trained on examples that show both needs only one of them, and which
one it learns is decided by its initial weights; so networks differ, and they err where their view is missing.
"""

import math

import numpy as np
import torch
from torch import nn

CLASSES, WIDTH, PATCHES = 10, 64, 11
COPIES = 2  # patches that carry a view, where an example shows it
OTHERS, LEAK = 6, 0.3  # patches that carry a view of another class, and how strongly
NOISE = 0.5  # norm of the noise in a patch; a view has norm 2
SIZES = {"train": 1000, "validation": 600, "test": 1000}


def views(seed):
    """The views of world `seed`: float32 (10 classes, 2 views, 64), orthogonal to one another, each of norm 2.

    >>> views(0).shape
    (10, 2, 64)
    """
    q, _ = np.linalg.qr(np.random.default_rng([seed, 0]).standard_normal((WIDTH, 2 * CLASSES)))
    return (2 * q.T).reshape(CLASSES, 2, WIDTH).astype(np.float32)


def pools(seed):
    """World `seed`, as load("multiview", seed) splits it: ({split: (images, labels)}, class names, card).

    images: float32 (N, 1, 11 patches, 64), the patches in a random order:

        x_p = s · v + ξ_p,   s = 1 for the 2 × 2 patches of the class's own views,
                             s = 0.3 for 6 patches, each with any view of any other class, 0 for the last patch,

    with ξ_p ~ N(0, 0.5² / 64) in each dimension. Training examples show both views. Half of validation and test
    show one: the patches of the other hold noise alone. Classes are equally frequent, and so are the views missed.
    Source: Allen-Zhu and Li 2023 (the paper's own constants are asymptotic; these show its effect in seconds).

    >>> pools(0)[0]["train"][0].shape
    (1000, 1, 11, 64)
    """
    rng, v = np.random.default_rng([seed, 1]), views(seed)
    found = {split: _examples(rng, v, count, split != "train") for split, count in SIZES.items()}
    card = (f"multiview: world {seed} of generated data, {CLASSES} classes with two views each (after Allen-Zhu and Li "
            f"2023); {PATCHES} patches of {WIDTH} numbers; half of validation and test show one view")
    return found, [f"class {c}" for c in range(CLASSES)], card


def _examples(rng, views, count, half_single):
    """(images, labels); where half_single, every other example of a class misses one view, the two in turn."""
    i = np.arange(count)
    y, turn = i % CLASSES, i // CLASSES
    own = np.repeat([0, 1], COPIES)  # views of the class, as the patches carry them
    other = rng.integers(2, 2 * CLASSES, (count, OTHERS))  # counted from the class's own two
    shown = np.concatenate([np.tile(own, (count, 1)), other], 1) + 2 * y[:, None]
    strength = np.tile(np.repeat([1.0, LEAK], [2 * COPIES, OTHERS]), (count, 1))
    if half_single:
        missed = np.where(turn % 2 == 1, turn // 2 % 2, -1)
        strength[:, : 2 * COPIES] *= own != missed[:, None]
    x = rng.normal(0, NOISE / math.sqrt(WIDTH), (count, PATCHES, WIDTH))
    x[:, : shown.shape[1]] += strength[..., None] * views.reshape(-1, WIDTH)[shown % (2 * CLASSES)]
    order = rng.permuted(np.tile(np.arange(PATCHES), (count, 1)), axis=1)
    return np.take_along_axis(x, order[..., None], axis=1)[:, None].astype(np.float32), y


def strengths(x, views):
    """How strongly each view is shown: x (N, 1, P, 64), views (C, 2, 64) → (N, C, 2), the largest over the patches of

        ⟨x_p, v⟩ / ‖v‖²,   about 1 for a view of the class, 0.3 for one of another class, 0 for none.

    >>> v = views(0)
    >>> strengths(torch.as_tensor(v[3, 1]).view(1, 1, 1, -1), v)[0, 3].abs().round().tolist()
    [0.0, 1.0]
    """
    v = torch.as_tensor(views, dtype=x.dtype, device=x.device)
    return torch.einsum("nkpd,cvd->nkpcv", x, v / v.square().sum(-1, keepdim=True)).amax((1, 2))


def smoothed_relu(z):
    """Cubic near 0, then linear: 0 for z ≤ 0, z³ / 3 for z in [0, 1], z − 2 / 3 beyond. Any shape.

    Its slope z² is small near 0, so that a neuron that begins nearer to a view outruns the others to it.
    Source: Allen-Zhu and Li 2023, the smoothed ReLU with q = 3 and ρ = 1.

    >>> smoothed_relu(torch.tensor([-1.0, 0.0, 1.0, 2.0])).mul(3).tolist()
    [0.0, 0.0, 1.0, 4.0]
    """
    return z.clamp(0, 1).pow(3) / 3 + (z - 1).relu()


class PatchNet(nn.Module):
    """F_c(x) = Σ_r Σ_p smoothed_relu(⟨w_{c,r}, x_p⟩): r neurons a class, summed over the patches; no bias.

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


def patchnet(neurons=3):
    """A builder of `PatchNet`: the rows of an image are its patches, `neurons` of them look for each class.

    >>> from kdlab.tasks import load
    >>> patchnet(3)(load("multiview")).weight.shape
    torch.Size([10, 3, 64])
    """
    if not isinstance(neurons, int) or neurons < 1:
        raise ValueError(f"patchnet: neurons must be a whole number of at least 1, got {neurons!r}")

    def build(task):
        return PatchNet(task.shape[-1], len(task.classes), neurons)

    build.__name__ = f"patchnet {neurons}"
    return build
