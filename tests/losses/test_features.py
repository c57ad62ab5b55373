"""Distances between hidden layers, against loops over pairs and triplets."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from torch.func import vmap

from kdlab.losses.features import attention_transfer, fitnets, rkd_angle, rkd_distance, similarity


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def attention_code(student, teacher, **options):
    return attention_transfer(student, teacher, variant="code", **options)


def huber(u):
    return 0.5 * u * u if abs(u) <= 1 else abs(u) - 0.5


def by_loops_fitnets(s, t):
    return [np.mean((a - b) ** 2) for a, b in zip(s, t, strict=True)]


def by_loops_attention(s, t, code=False):
    rows = []
    for a, b in zip(s, t, strict=True):
        maps = [
            [
                float(sum(abs(v) ** 2 for v in z[:, i, j]))
                for i in range(z.shape[1])
                for j in range(z.shape[2])
            ]
            for z in (a, b)
        ]
        maps = [[v / math.sqrt(sum(w * w for w in q)) for v in q] for q in maps]
        squares = [(u - v) ** 2 for u, v in zip(*maps, strict=True)]
        rows.append(sum(squares) / len(squares) if code else math.sqrt(sum(squares)))
    return rows


def by_loops_similarity(s, t):
    B, g = len(s), []
    for z in (s.reshape(B, -1), t.reshape(B, -1)):
        dots = [[float(np.dot(a, b)) for b in z] for a in z]
        g.append([[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in dots])
    return [sum((u - v) ** 2 for u, v in zip(g[0][i], g[1][i], strict=True)) / B for i in range(B)]


def by_loops_distance(s, t):
    B, d = len(s), []
    for z in (s.reshape(B, -1), t.reshape(B, -1)):
        pairs = {(i, j): math.dist(z[i], z[j]) for i, j in itertools.permutations(range(B), 2)}
        d.append({k: v / (sum(pairs.values()) / len(pairs)) for k, v in pairs.items()})
    return [
        sum(huber(d[0][i, j] - d[1][i, j]) for j in range(B) if j != i) / (B - 1) for i in range(B)
    ]


def by_loops_angle(s, t):
    B, rows = len(s), [[] for _ in s]
    for i, j, k in itertools.permutations(range(B), 3):
        cos = []
        for z in (s.reshape(B, -1), t.reshape(B, -1)):
            a, b = z[i] - z[j], z[k] - z[j]
            cos.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) or 1))
        rows[j].append(huber(cos[0] - cos[1]))
    return [np.mean(row) for row in rows]


# each with its reference and the shapes of a student's and a teacher's layer
DISTANCES = {
    "fitnets": (fitnets, by_loops_fitnets, (6, 3, 2), (6, 3, 2)),
    "attention": (attention_transfer, by_loops_attention, (6, 2, 3, 4), (6, 5, 3, 4)),
    "attention code": (
        attention_code,
        lambda s, t: by_loops_attention(s, t, code=True),
        (6, 2, 3, 4),
        (6, 5, 3, 4),
    ),
    "similarity": (similarity, by_loops_similarity, (6, 2, 3), (6, 5)),
    "distance": (rkd_distance, by_loops_distance, (6, 2, 3), (6, 5)),
    "angle": (rkd_angle, by_loops_angle, (6, 2, 3), (6, 5)),
}
each = pytest.mark.parametrize("name", DISTANCES)
relational = pytest.mark.parametrize("of", [similarity, rkd_distance, rkd_angle])


def layers_for(name, dtype=torch.float64):
    of, _, student, teacher = DISTANCES[name]
    return of, normal(*student, seed=1, dtype=dtype), normal(*teacher, seed=2, dtype=dtype)


@each
def test_loops_agree_and_rows_average_to_the_loss(name):
    of, s, t = layers_for(name)
    s[0] *= 20  # far apart, so that Huber's linear part and every normalisation count
    expected = DISTANCES[name][1](s.numpy(), t.numpy())
    np.testing.assert_allclose(of(s, t, reduction="rows").numpy(), expected, rtol=1e-9)
    assert of(s, t).item() == pytest.approx(np.mean(expected), rel=1e-9)


def test_attention_by_hand():
    # squared activations (3, 4) and (49, 0), as unit vectors (0.6, 0.8) and (1, 0)
    student = torch.tensor([[[[math.sqrt(3), 0.0]], [[0.0, 2.0]]]])
    teacher = torch.tensor([[[[-7.0, 0.0]]]])
    assert attention_transfer(student, teacher).item() == pytest.approx(math.sqrt(0.8), rel=1e-6)
    assert attention_code(student, teacher).item() == pytest.approx(0.4, rel=1e-6)


def test_the_authors_code_averages_over_other_counts():
    """The formulas of the repositories attention-transfer and RKD, written anew, and the factors of
    the docstrings."""
    s, t, B = normal(5, 3, 2, 2, seed=1), normal(5, 4, 2, 2, seed=2), 5

    def attention(a):
        return F.normalize((a**2).mean(1).reshape(B, -1))

    code = (attention(s) - attention(t)).pow(2).mean()
    torch.testing.assert_close(attention_code(s, t), code)
    paper = attention_transfer(s, t, reduction="rows")
    torch.testing.assert_close(attention_code(s, t, reduction="rows"), paper**2 / (2 * 2))

    def distances(x):
        gram = x @ x.T
        d = (gram.diagonal()[:, None] + gram.diagonal() - 2 * gram).clamp(min=1e-12).sqrt() * (
            1 - torch.eye(B)
        )
        return d / d[d > 0].mean()

    def angles(x):
        e = F.normalize(x[None] - x[:, None], dim=-1)
        return torch.bmm(e, e.transpose(1, 2))

    s, t = s.flatten(1), t.flatten(1)
    torch.testing.assert_close(
        rkd_distance(s, t) * (B - 1) / B, F.smooth_l1_loss(distances(s), distances(t))
    )
    torch.testing.assert_close(
        rkd_angle(s, t) * (B - 1) * (B - 2) / B**2, F.smooth_l1_loss(angles(s), angles(t))
    )


@each
def test_gradcheck(name):
    of, s, t = layers_for(name)
    assert gradcheck(
        lambda s, t: of(s, t, reduction="rows"), (s.requires_grad_(), t.requires_grad_())
    )


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_zero_with_zero_gradient_at_equality(name, dtype):
    of, s, _ = layers_for(name, dtype)
    (grad,) = torch.autograd.grad(of(s.requires_grad_(), s.detach().clone()), s)
    assert of(s, s.detach()).item() == 0
    assert grad.abs().max() < 1e-6


@each
def test_gradients_are_finite_and_small_beside_equal_and_empty_rows(name):
    of, s, t = layers_for(name, torch.float32)
    s[1] = s[0]
    s[2:4] = 0
    t[5] = t[4]
    grads = torch.autograd.grad(of(s.requires_grad_(), t.requires_grad_()), (s, t))
    for grad in grads:
        assert grad.isfinite().all() and 0 < grad.abs().max() < 10
    flat = torch.ones_like(s, requires_grad=True)  # every row the same
    assert torch.autograd.grad(of(flat, t.detach()), flat)[0].isfinite().all()


def test_angles_beside_equal_and_nearly_equal_rows():
    s, t = normal(6, 3, seed=1), normal(6, 5, seed=2)
    s[1] = s[0]
    expected = by_loops_angle(s.numpy(), t.numpy())  # there an angle at no distance is 0 too
    np.testing.assert_allclose(rkd_angle(s, t, reduction="rows").numpy(), expected, rtol=1e-9)
    grads = [
        torch.autograd.grad(rkd_angle(z.requires_grad_(), t), z)[0] for z in (s.clone(), 1000 * s)
    ]
    torch.testing.assert_close(grads[0], 1000 * grads[1])  # angles don't know the scale
    thin = (
        normal(200, 3, 2, seed=3, dtype=torch.float32) * torch.tensor([1e-4, 1e-4, 1000.0])[:, None]
    )
    line = torch.tensor([[0.0], [-1.0], [1.0]])
    rows = vmap(lambda z: rkd_angle(z, line, reduction="rows"))(thin)
    assert rows.max() <= huber(2.0)  # rounding puts no cosine beyond ±1


@each
def test_vmap_over_replicas_equals_one_after_another(name):
    of, _, student, teacher = DISTANCES[name]
    s, t = normal(3, *student, seed=3).requires_grad_(), normal(3, *teacher, seed=4)
    together, alone = vmap(of)(s, t), torch.stack([of(a, b) for a, b in zip(s, t, strict=True)])
    torch.testing.assert_close(together, alone)
    grads = [torch.autograd.grad(loss.sum(), s)[0] for loss in (together, alone)]
    torch.testing.assert_close(*grads)
    assert vmap(lambda a, b: of(a, b, reduction="rows"))(s, t).shape == (3, 6)
    torch.testing.assert_close(
        vmap(of, in_dims=(0, None))(s, t[0])[1], of(s[1], t[0])
    )  # one teacher for all


@each
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)]
)
def test_low_precision_is_raised_to_float32(name, dtype, tolerance):
    of, s, t = layers_for(name)
    low = of(s.to(dtype), t.to(dtype))
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(of(s, t).item(), rel=tolerance)


@each
def test_nan_is_not_hidden(name):
    of, s, t = layers_for(name)
    s[1].flatten()[0] = torch.nan
    assert of(s, t).isnan()


def test_order_of_channels_changes_nothing():
    s, t = normal(6, 5, 3, 3, seed=1), normal(6, 5, 3, 3, seed=2)
    order = torch.tensor([3, 0, 4, 1, 2])
    for of in (attention_transfer, attention_code, similarity):
        torch.testing.assert_close(of(s[:, order], t), of(s, t))
        torch.testing.assert_close(of(s, t[:, order]), of(s, t))
    assert (
        abs(fitnets(s[:, order], t) - fitnets(s, t)) > 1e-3
    )  # as it should: hints compare neuron by neuron


@relational
def test_rotation_changes_nothing(of):
    s, t = normal(6, 4, seed=1), normal(6, 5, seed=2)
    turn = torch.linalg.qr(normal(5, 5, seed=3))[0]
    torch.testing.assert_close(of(s, t @ turn), of(s, t))
    assert of(t @ turn, t).item() == pytest.approx(0, abs=1e-12)


@relational
def test_scale_changes_nothing_and_a_shift_only_similarity(of):
    s, t = normal(6, 4, seed=1), normal(6, 5, seed=2)
    torch.testing.assert_close(of(7 * s, t / 3), of(s, t))
    shifted = of(s + 2, t)
    assert (abs(shifted - of(s, t)) > 1e-3) == (of is similarity)


@relational
@pytest.mark.parametrize("B", [1, 2])
def test_the_rest_of_an_epoch_may_be_small(of, B):
    s, t = normal(B, 4, seed=1).requires_grad_(), normal(B, 5, seed=2)
    value = of(s, t)
    assert value >= 0 and torch.autograd.grad(value, s)[0].isfinite().all()
    if B == 1 or of is not similarity:  # nothing to relate
        assert value.item() == pytest.approx(0, abs=1e-12)


@each
def test_other_bad_arguments(name):
    of, s, t = layers_for(name)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'rows', got 'sum'"):
        of(s, t, reduction="sum")
    with pytest.raises(
        TypeError, match="teacher must be a floating-point tensor .*, got torch.int64"
    ):
        of(s, t.long())
    with pytest.raises(TypeError, match="student must be a floating-point tensor .*, got ndarray"):
        of(s.numpy(), t)


def test_unknown_variant():
    with pytest.raises(ValueError, match=r"variant must be one of \['paper', 'code'\], got 'both'"):
        attention_transfer(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), variant="both")
