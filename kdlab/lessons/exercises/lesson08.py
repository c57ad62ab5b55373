"""Exercises of lesson 08: TinyBERT's attention loss without padding, MiniLM's value relation."""

import numpy as np
import torch

from kdlab.lessons.exercises import Exercise, Question


def _attention(loss):
    draw = torch.Generator().manual_seed(0)
    S, T = (torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=draw) for _ in range(2))
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    expected = np.array([((S - T)[b, :, :n, :n] ** 2).mean().item() for b, n in enumerate((3, 2))])
    found = torch.as_tensor(loss(S, T, mask), dtype=torch.float64)
    if tuple(found.shape) != (2,):
        return f"expected one number a sentence, shape (2,), got {tuple(found.shape)}"
    if np.allclose(found.numpy(), expected):
        return ""
    if np.allclose(found.numpy(), ((S - T) ** 2).mean((1, 2, 3))):
        return "padding counts in this mean: leave out pairs in which either token is padding"
    if np.allclose(
        found.numpy(), [((S - T)[b, :, :, :n] ** 2).mean().item() for b, n in enumerate((3, 2))]
    ):
        return "padded tokens must not count as those who attend (rows) either: mask both axes"
    if np.allclose(
        found.numpy(),
        [((S - T)[b, :, :n, :n] ** 2).sum().item() / 48 for b, n in enumerate((3, 2))],
    ):
        return "divide by the number of pairs that count, not by that of all pairs"
    return f"expected {expected[0]:.4f} for the first sentence, got {found[0]:.4f}"


def _relation(relation):
    V = torch.randn(2, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    v = V.numpy().reshape(2, 5, 3, 4).transpose(0, 2, 1, 3)

    def softmax(z, axis=-1):
        e = np.exp(z - z.max(axis, keepdims=True))
        return e / e.sum(axis, keepdims=True)

    scores = v @ v.transpose(0, 1, 3, 2)
    found = torch.as_tensor(relation(V, 3), dtype=torch.float64)
    if tuple(found.shape) != (2, 3, 5, 5):
        return f"expected (B, heads, L, L) = (2, 3, 5, 5), got {tuple(found.shape)}"
    found = found.numpy()
    if np.allclose(found, softmax(scores / 2)):
        return ""
    if np.allclose(found, scores / 2):
        return "these are the scores; the relation is their softmax over the last axis"
    if np.allclose(found, softmax(scores)):
        return "divide the scores by the square root of a head's width first"
    if np.allclose(found, softmax(scores / np.sqrt(12))):
        return "the width under the root is that of one head, H / heads"
    wrong = V.numpy().reshape(2, 3, 5, 4)
    if np.allclose(found, softmax(wrong @ wrong.transpose(0, 1, 3, 2) / 2)):
        return (
            "cut the width into heads, not the positions: "
            "unflatten(-1, (heads, -1)), then transpose(1, 2)"
        )
    return "the relation differs from softmax(V Vᵀ / √d) of each head"


EXERCISES = (
    Exercise(
        "08.1",
        _attention,
        (
            (
                "A pair counts where both tokens are real: "
                "mask[:, None, :, None] · mask[:, None, None, :]."
            ),
            (
                "Sum the squared differences that count, "
                "and divide by how many there are (heads · n²)."
            ),
        ),
        """
def attempt(student, teacher, mask):
    pairs = (mask[:, None, :, None] * mask[:, None, None, :]).expand_as(student)
    return ((student - teacher).square() * pairs).sum((1, 2, 3)) / pairs.sum((1, 2, 3))
""",
        {
            "padding counts": (
                "def attempt(student, teacher, mask):\n"
                "    return (student - teacher).square().mean((1, 2, 3))"
            ),
            "mask both": (
                "def attempt(student, teacher, mask):\n"
                "    pairs = mask[:, None, None, :].expand_as(student)\n"
                "    return ((student - teacher).square() * pairs).sum((1, 2, 3)) "
                "/ pairs.sum((1, 2, 3))"
            ),
            "pairs that count": (
                "def attempt(student, teacher, mask):\n"
                "    pairs = mask[:, None, :, None] * mask[:, None, None, :]\n"
                "    return ((student - teacher).square() * pairs).mean((1, 2, 3))"
            ),
            "one number a sentence": (
                "def attempt(student, teacher, mask):\n"
                "    return (student - teacher).square().mean()"
            ),
        },
    ),
    Exercise(
        "08.2",
        _relation,
        (
            (
                "Cut the width into heads: "
                "v.unflatten(-1, (heads, -1)).transpose(1, 2) is (B, heads, L, d)."
            ),
            "softmax(v @ v.mT / √d) over the last axis.",
        ),
        """
def attempt(values, heads):
    v = values.unflatten(-1, (heads, -1)).transpose(1, 2)
    return (v @ v.mT / v.shape[-1] ** 0.5).softmax(-1)
""",
        {
            "their softmax": (
                "def attempt(values, heads):\n"
                "    v = values.unflatten(-1, (heads, -1)).transpose(1, 2)\n"
                "    return v @ v.mT / v.shape[-1] ** 0.5"
            ),
            "square root": (
                "def attempt(values, heads):\n"
                "    v = values.unflatten(-1, (heads, -1)).transpose(1, 2)\n"
                "    return (v @ v.mT).softmax(-1)"
            ),
            "one head": (
                "def attempt(values, heads):\n"
                "    v = values.unflatten(-1, (heads, -1)).transpose(1, 2)\n"
                "    return (v @ v.mT / values.shape[-1] ** 0.5).softmax(-1)"
            ),
            "not the positions": (
                "def attempt(values, heads):\n"
                "    B, L, H = values.shape\n"
                "    v = values.reshape(B, heads, L, H // heads)\n"
                "    return (v @ v.mT / v.shape[-1] ** 0.5).softmax(-1)"
            ),
        },
    ),
)


QUESTIONS = {
    "08.a": Question(
        (
            "Two of the teacher's four blocks, taught for 64 short steps. How much of its "
            "accuracy is gone?"
        ),
        ("next to nothing", "about five points", "about fifteen", "half"),
        0,
        (
            "This teacher has more blocks than its task needs, and the ones that stay bring what"
            " it learnt along."
        ),
    ),
    "08.b": Question(
        "On the three fields, the specialist beside the generalist of its size:",
        ("behind", "can't be told apart", "ahead"),
        1,
        (
            "Both keep most of what the teacher knows of the three fields, and four samples "
            "can't part them."
        ),
    ),
}
