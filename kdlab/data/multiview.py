"""Data with several views a class, of which a network learns some: where ensembles come from.

Source: Allen-Zhu and Li 2023 (arXiv 2012.09816), the data distribution and the learner of their
theory. Every class has two views, either of which names it. A network trained on examples that show
both needs only one of them, and which one it learns is decided by its initial weights; so networks
differ, and they err where their view is missing."""

import math

import numpy as np
import torch

CLASSES, WIDTH, PATCHES = 10, 64, 11
COPIES = 2  # patches that carry a view, where an example shows it
OTHERS, LEAK = 6, 0.3  # patches that carry a view of another class, and how strongly
NOISE = 0.5  # norm of the noise in a patch; a view has norm 2
SIZES = {"train": 1000, "validation": 600, "test": 1000}


def views(seed):
    """The views of world `seed`: float32 (10 classes, 2 views, 64), orthogonal, each of norm 2.

    Twenty of the 63 Walsh patterns, 8 × 8 pictures of stripes and checks, with signs drawn at
    random. Which orthogonal vectors they are makes no difference to a network whose first weights
    and whose noise know no direction; these can be seen.

    >>> v = views(0)
    >>> v.shape, sorted(set(v.flatten().tolist()))
    ((10, 2, 64), [-0.25, 0.25])
    """
    rng, side = np.random.default_rng([seed, 0]), math.isqrt(WIDTH)
    patterns = np.ones((1, 1))
    while len(patterns) < WIDTH:  # Hadamard's matrices, each twice as wide as the one before
        patterns = np.kron([[1, 1], [1, -1]], patterns)
    patterns = patterns[1:]  # the first has no pattern
    chosen = patterns[rng.permutation(len(patterns))[: 2 * CLASSES]]
    signs = rng.choice([-1, 1], (2 * CLASSES, 1))
    return (2 / side * signs * chosen).reshape(CLASSES, 2, WIDTH).astype(np.float32)


def pools(seed):
    """World `seed`, as load("multiview", seed) splits it: ({split: (x, y)}, class names, card).

    images: float32 (N, 1, 11 patches, 64), the patches in a random order:

        x_p = s · v + ξ_p,   s = 1 for the 2 × 2 patches of the class's own views,
                             s = 0.3 for 6 patches, each with a view v of another class,
                             s = 0 for the last patch,

    with any view of any other class, and ξ_p ~ N(0, 0.5² / 64) in each dimension. Training examples
    show both views. Half of validation and test show one: the patches of the other hold noise
    alone. Classes are equally frequent, and so are the views missed. Source: Allen-Zhu and Li 2023
    (the paper's own constants are asymptotic; these show its effect in seconds).

    >>> pools(0)[0]["train"][0].shape
    (1000, 1, 11, 64)
    """
    rng, v = np.random.default_rng([seed, 1]), views(seed)
    found = {split: _examples(rng, v, count, split != "train") for split, count in SIZES.items()}
    card = (
        f"multiview: world {seed} of generated data, "
        f"{CLASSES} classes with two views each (after Allen-Zhu and Li 2023); "
        f"{PATCHES} patches of {WIDTH} numbers; half of validation and test show one view"
    )
    return found, [f"class {c}" for c in range(CLASSES)], card


def _examples(rng, views, count, half_single):
    """(images, labels); half_single: every other example of a class misses a view, each in turn."""
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
    """How strongly each view is shown: x (N, 1, P, 64), views (C, 2, 64) → (N, C, 2).

        max_p ⟨x_p, v⟩ / ‖v‖²

    About 1 for a view of the class, 0.3 for one of another class, 0 for none.

    >>> v = views(0)
    >>> strengths(torch.as_tensor(v[3, 1]).view(1, 1, 1, -1), v)[0, 3].abs().round().tolist()
    [0.0, 1.0]
    """
    v = torch.as_tensor(views, dtype=x.dtype, device=x.device)
    return torch.einsum("nkpd,cvd->nkpcv", x, v / v.square().sum(-1, keepdim=True)).amax((1, 2))
