"""Exercises of lesson 06: an attention map, a similarity matrix, and centred kernel alignment."""

import numpy as np
import torch

from kdlab.lessons.exercises import Exercise, Question


def _layer(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def attention(layer):
    """Each image's map of squared activations (B, C, H, W) → (B, H · W), of length 1."""
    q = layer.square().sum(1).flatten(1)
    return q / q.norm(dim=1, keepdim=True)


def _attention(attention):
    A = _layer(3, 4, 2, 5)
    expected = np.stack(
        [(a**2).sum(0).ravel() / np.sqrt(((a**2).sum(0) ** 2).sum()) for a in A.numpy()]
    )
    found = torch.as_tensor(attention(A), dtype=torch.float64)
    if found.shape == (3, 2, 5):
        found = found.flatten(1)
    if found.shape != (3, 10):
        return f"expected one number a pixel, shape (3, 10), got {tuple(found.shape)}"
    lengths = found.norm(dim=1)
    if not torch.allclose(lengths, torch.ones(3, dtype=torch.float64)):
        return f"each image's map must have length 1, got {[round(v, 3) for v in lengths.tolist()]}"
    plain = A.sum(1).flatten(1)
    if torch.allclose(found, plain / plain.norm(dim=1, keepdim=True)):
        return "square before you sum: positive and negative channels must not cancel"
    if torch.allclose(found, torch.nn.functional.normalize(A.abs().sum(1).flatten(1), dim=1)):
        return "this sums absolute values; the map sums squares"
    return (
        ""
        if np.allclose(found.numpy(), expected)
        else "the map differs from the sum of squared channels"
    )


def _gram(gram):
    Q = _layer(4, 3, 2)
    rows = Q.flatten(1).numpy()
    expected = rows @ rows.T
    found = torch.as_tensor(gram(Q), dtype=torch.float64)
    if found.shape != (4, 4):
        return f"expected one number for each two images, shape (4, 4), got {tuple(found.shape)}"
    if np.allclose(found.numpy(), expected):
        return "the rows are not normalised: each must have length 1"
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    if np.allclose(found.numpy(), unit @ unit.T):
        return (
            "you normalised the images before Q Qᵀ, which gives cosines; "
            "the rows of Q Qᵀ are what is normalised"
        )
    if np.allclose(found.numpy().sum(1), 1):
        return "each row must have length 1 (the root of its sum of squares), not sum to 1"
    if np.allclose(found.numpy(), expected / np.linalg.norm(expected, axis=0, keepdims=True)):
        return "you normalised the columns; the paper normalises each row"
    right = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    return (
        "" if np.allclose(found.numpy(), right) else "the matrix differs from the normalised Q Qᵀ"
    )


def _cka(cka):
    x, y = _layer(20, 6), _layer(20, 3, seed=1)
    y = y + x[:, :3] + 2.0

    def reference(a, b):
        n = len(a)
        H = np.eye(n) - 1 / n
        K, L = H @ a @ a.T @ H, H @ b @ b.T @ H
        return (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum())

    found, expected = float(cka(x, y)), reference(x.numpy(), y.numpy())
    if abs(found - expected) < 1e-6:
        return ""
    K, L = x.numpy() @ x.numpy().T, y.numpy() @ y.numpy().T
    if abs(found - (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum())) < 1e-6:
        return "the features are not centred: subtract each column's mean over the images first"
    if abs(found - expected**0.5) < 1e-6:
        return "this is its square root: ‖·‖_F of the cross term is squared"
    a, b = x.numpy() - x.numpy().mean(), y.numpy() - y.numpy().mean()
    if (
        abs(
            found - np.linalg.norm(b.T @ a) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
        )
        < 1e-6
    ):
        return (
            "you subtracted one mean of all numbers: each column has its own mean over the images, "
            "x.mean(0)"
        )
    return f"expected {expected:.4f}, got {found:.4f}"


EXERCISES = (
    Exercise(
        "06.1",
        _attention,
        (
            "Square the layer and sum over the channels, dimension 1.",
            "Then flatten(1) and divide by the norm.",
        ),
        attention,
        {
            "length 1": "def attempt(layer):\n    return layer.square().sum(1).flatten(1)",
            "square before": (
                "def attempt(layer):\n"
                "    q = layer.sum(1).flatten(1)\n"
                "    return q / q.norm(dim=1, keepdim=True)"
            ),
            "absolute values": (
                "def attempt(layer):\n    return F.normalize(layer.abs().sum(1).flatten(1), dim=1)"
            ),
            "one number a pixel": "def attempt(layer):\n    return layer.square().sum((2, 3))",
        },
    ),
    Exercise(
        "06.2",
        _gram,
        (
            "Flatten each image's layer to a row of Q (B, D); Q @ Q.T compares every two images.",
            "torch.nn.functional.normalize(…, dim=1) makes each row's length 1.",
        ),
        """
def attempt(layer):
    q = layer.flatten(1)
    return torch.nn.functional.normalize(q @ q.T, dim=1)
""",
        {
            "not normalised": "def attempt(layer):\n    q = layer.flatten(1)\n    return q @ q.T",
            "cosines": (
                "def attempt(layer):\n"
                "    q = F.normalize(layer.flatten(1), dim=1)\n"
                "    return q @ q.T"
            ),
            "not sum to 1": (
                "def attempt(layer):\n"
                "    q = layer.flatten(1)\n"
                "    g = q @ q.T\n"
                "    return g / g.sum(1, keepdim=True)"
            ),
            "columns": (
                "def attempt(layer):\n"
                "    q = layer.flatten(1)\n"
                "    return F.normalize(q @ q.T, dim=0)"
            ),
            "each two images": "def attempt(layer):\n    q = layer.flatten(1)\n    return q.T @ q",
        },
    ),
    Exercise(
        "06.3",
        _cka,
        (
            "Centre both: x − x.mean(0).",
            "‖yᵀx‖²_F / (‖xᵀx‖_F · ‖yᵀy‖_F); torch's .norm() of a matrix is ‖·‖_F.",
        ),
        """
def attempt(x, y):
    x, y = x - x.mean(0), y - y.mean(0)
    return (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
""",
        {
            "not centred": (
                "def attempt(x, y):\n"
                "    return (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())"
            ),
            "its own mean": (
                "def attempt(x, y):\n"
                "    x, y = x - x.mean(), y - y.mean()\n"
                "    return (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())"
            ),
            "square root": (
                "def attempt(x, y):\n"
                "    x, y = x - x.mean(0), y - y.mean(0)\n"
                "    return (y.T @ x).norm() / ((x.T @ x).norm() * (y.T @ y).norm()) ** 0.5"
            ),
        },
    ),
)


QUESTIONS = {
    "06.a": Question(
        "Which one helps this student most?",
        (
            "the logits",
            "the hidden layer's values (FitNets)",
            "the attention maps",
            "relations between images",
        ),
        0,
        "Ten numbers an image, but they are about the very question that is asked.",
    ),
}
