"""Distances between hidden layers, how alike two layers are, a projector from shape to shape.

A distance takes a student's layer and a teacher's for one batch, (B, ...), the student's first, and
gives the mean of its rows, or with reduction="rows" the rows (B,). Replicas: `torch.func.vmap` it
over their axis."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdlab.base.arguments import one_of
from kdlab.losses.divergences import reduce_rows

DIRECT = (  # for equal rows a distance of exactly 0, with zero gradients
    "donot_use_mm_for_euclid_dist"
)


def _check(name, student, teacher, keys=("student", "teacher")):
    """Both layers in float32 or better; or the error that says what came and what was expected."""
    for key, x in zip(keys, (student, teacher), strict=True):
        if not torch.is_tensor(x) or not x.is_floating_point():
            kind = x.dtype if torch.is_tensor(x) else type(x).__name__
            raise TypeError(f"{name}: {key} must be a floating-point tensor (B, ...), got {kind}")
        if x.ndim < 2:
            raise ValueError(f"{name}: {key} must be a layer (B, ...), got {tuple(x.shape)}")
    if len(student) != len(teacher):
        raise ValueError(
            f"{name}: {keys[0]} {tuple(student.shape)} and {keys[1]} {tuple(teacher.shape)} must "
            "have one batch size; expected the same rows in the same order"
        )
    return (x if x.dtype == torch.float64 else x.float() for x in (student, teacher))


def _misfit(name, student, teacher, expected):
    """The error for shapes that differ, with the projector that mends it."""
    s, t, before = tuple(student.shape[1:]), tuple(teacher.shape[1:]), ""
    if len(s) == len(t) == 2 and s[0] == t[0]:
        s, t = s[1:], t[1:]  # (L, H): one linear map for every position
    elif len(s) != len(t) or len(s) not in (1, 3):
        before, s, t = "flatten both (nn.Flatten) and ", (math.prod(s),), (math.prod(t),)
    return ValueError(
        f"{name}: student {tuple(student.shape)} and teacher {tuple(teacher.shape)} must "
        f"have {expected}; {before}bring the student to it with projector({s}, {t})"
    )


def _unit(x):
    """x / ‖x‖ over the last axis; 0, with zero gradients, where x is 0."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.where(norm == 0, 0.0, x / torch.where(norm == 0, 1.0, norm))


def fitnets(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Hints: the mean squared difference of two layers of one shape.

        mean_d (s_d − t_d)²,   s = r(student's layer), r learnt

    student, teacher: (B, ...), of one shape (else ValueError); r is a `projector`. The paper has ½
    of the sum over d; the mean doesn't grow with the layer. Source: Romero et al. 2015, eq. 3.

    >>> fitnets(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]])).item()
    2.0
    """
    s, t = _check("fitnets", student, teacher)
    if s.shape != t.shape:
        raise _misfit("fitnets", s, t, "one shape")
    return reduce_rows("fitnets", (s - t).square().flatten(1).mean(-1), reduction=reduction)


def attention_transfer(
    student: Tensor, teacher: Tensor, variant: str = "paper", reduction: str = "mean"
) -> Tensor:
    """Where the layers look: the distance between two maps of squared activation, of length 1.

        paper: ‖Q̂_S − Q̂_T‖₂,   code: mean over pixels of (Q̂_S − Q̂_T)²
        Q̂ = Q / ‖Q‖₂,   Q = Σ_c A_c²

    student, teacher: maps (B, C, h, w); the channels may differ, h and w not (ValueError). An empty
    map stays 0. The authors' "code" is the square of their "paper" over h · w: a weight for one
    doesn't suit the other. Source: Zagoruyko, Komodakis 2017, eq. 2 (without its β/2), and their
    repository attention-transfer.

    >>> left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    >>> attention_transfer(left, right), attention_transfer(left, right, variant="code")
    (tensor(1.4142), tensor(1.))
    """
    name = "attention_transfer"
    s, t = _check(name, student, teacher)
    one_of(name, "variant", variant, ["paper", "code"])
    if s.ndim != 4 or t.ndim != 4:
        raise ValueError(
            f"{name}: student {tuple(s.shape)} "
            f"and teacher {tuple(t.shape)} must be maps (B, C, h, w)"
        )
    if s.shape[2:] != t.shape[2:]:
        raise _misfit(name, s, t, "one h and w")
    gap = _unit(s.square().sum(1).flatten(1)) - _unit(t.square().sum(1).flatten(1))
    rows = torch.linalg.vector_norm(gap, dim=-1) if variant == "paper" else gap.square().mean(-1)
    return reduce_rows(name, rows, reduction=reduction)


def similarity(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Similarity-preserving: what is alike for the teacher should be alike for the student.

        ‖G_S − G_T‖²_F / B²,   G[i, :] = G̃[i, :] / ‖G̃[i, :]‖₂,   G̃ = Q Qᵀ

    student, teacher: (B, ...), each flattened to Q (B, D); only B must agree. Row i of the result
    is Σ_j (G_S − G_T)²_ij / B: it depends on the rows beside it, as in every relational loss.
    Source: Tung, Mori 2019, eq. 2 to 4.

    >>> round(similarity(torch.eye(2), torch.tensor([[1.0], [1.0]])).item(), 4)
    0.2929
    """
    s, t = _check("similarity", student, teacher)
    g_s, g_t = (_unit(q @ q.mT) for q in (s.flatten(1), t.flatten(1)))
    return reduce_rows("similarity", (g_s - g_t).square().mean(-1), reduction=reduction)


def rkd_distance(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Relational: the student keeps the teacher's distances between examples, up to a scale.

        mean_{i ≠ j} ℓ(d_S(i, j) / μ_S − d_T(i, j) / μ_T),   μ = mean_{i ≠ j} d(i, j)

    ℓ is Huber's loss (½ u² up to |u| = 1, then |u| − ½), d the Euclidean distance. student,
    teacher: (B, ...), each flattened to (B, D); only B must agree. Both means run over the
    B (B − 1) pairs i ≠ j, also those at distance 0; row i of the result is the mean over j. One row
    has no pair, which gives 0. The authors' code averages ℓ over all B² pairs, (B − 1) / B of this,
    and leaves distances of 0 out of μ. Source: Park, Kim, Lu, Cho 2019, section 3.2.1 (there a
    sum).

    >>> line = torch.tensor([[0.0], [1.0], [2.0]])
    >>> rkd_distance(10 * line, line).item(), round(rkd_distance(line ** 2, line).item(), 4)
    (0.0, 0.0469)
    """

    def relative(x):
        d = torch.cdist(x, x, compute_mode=DIRECT)
        mean = d.sum() / (len(x) * others)
        return d / torch.where(mean == 0, 1.0, mean)

    s, t = _check("rkd_distance", student, teacher)
    others = max(len(s) - 1, 1)
    rows = (
        F.huber_loss(relative(s.flatten(1)), relative(t.flatten(1)), reduction="none").sum(-1)
        / others
    )
    return reduce_rows("rkd_distance", rows, reduction=reduction)


def rkd_angle(student: Tensor, teacher: Tensor, reduction: str = "mean") -> Tensor:
    """Relational: the student keeps the angles of the triangles of the teacher's examples.

        mean_{i, j, k} ℓ(cos_S(i, j, k) − cos_T(i, j, k))
        cos(i, j, k) = ⟨e_ij, e_kj⟩,   e_ij = (x_i − x_j) / ‖x_i − x_j‖

    j is the vertex, ℓ Huber's loss; arguments as in `rkd_distance`. The mean runs over the
    B (B − 1) (B − 2) triplets of three places; row j of the result over those with vertex j. Beside
    an equal row there is no angle and cos counts as 0. The authors' code averages over all B³
    triplets, (B − 1) (B − 2) / B² of this. Memory grows as B³. Source: Park, Kim, Lu, Cho 2019,
    section 3.2.2 (there a sum).

    >>> right = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> line = torch.tensor([[0.0], [1.0], [2.0]])
    >>> round(rkd_angle(3 - 2 * right, right).item(), 4), round(rkd_angle(line, right).item(), 4)
    (0.0, 0.5833)
    """

    def cosines(x):
        d = torch.cdist(x, x, compute_mode=DIRECT)
        of_j, squares = d[:, :, None] * d[:, None, :], d.square()
        # the law of cosines: without the (B, B, D) tensor of differences
        cos = (squares[:, :, None] + squares[:, None, :] - squares) / (
            2 * torch.where(of_j == 0, 1.0, of_j)
        )
        return torch.where(of_j == 0, 0.0, cos).clamp(-1, 1)

    s, t = _check("rkd_angle", student, teacher)
    B = len(s)
    distinct = ~torch.eye(B, dtype=torch.bool, device=s.device)  # i = j and k = j are 0 already
    terms = F.huber_loss(cosines(s.flatten(1)), cosines(t.flatten(1)), reduction="none")
    rows = torch.where(distinct, terms, 0.0).sum((-1, -2)) / max((B - 1) * (B - 2), 1)
    return reduce_rows("rkd_angle", rows, reduction=reduction)


def cka(x: Tensor, y: Tensor) -> Tensor:
    """Linear centred kernel alignment in [0, 1]: how alike two layers see the same N examples.

        ‖Yᵀ X‖²_F / (‖Xᵀ X‖_F ‖Yᵀ Y‖_F),   columns centred

    x, y: (N, ...), each flattened to (N, D); only N must agree. 1 where y is x turned, mirrored or
    scaled; 0 where one of them is constant. With N not far above D even noise scores high: use many
    examples. Computed in float64, by (N, N) matrices if D > N. Source: Kornblith et al. 2019,
    section 3 and table 1.

    >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(cka(x, 5 * x.flip(-1)).item(), 4), round(cka(x, x[:, :1]).item(), 4)
    (1.0, 0.7071)
    """
    x, y = _check("cka", x, y, keys=("x", "y"))
    # Apple's GPUs have no float64
    exact = torch.float32 if x.device.type == "mps" else torch.float64
    a, b = (z - z.mean(0) for z in (x.flatten(1).to(exact), y.flatten(1).to(exact)))
    if max(a.shape[1], b.shape[1]) > len(a):
        aa, bb = a @ a.mT, b @ b.mT
        shared = (aa * bb).sum()
    else:
        aa, bb, shared = a.mT @ a, b.mT @ b, (b.mT @ a).square().sum()
    size = torch.linalg.matrix_norm(aa) * torch.linalg.matrix_norm(bb)
    return (
        torch.where(size == 0, 0.0, shared / torch.where(size == 0, 1.0, size))
        .clamp(0, 1)
        .to(x.dtype)
    )


def projector(student_shape: Sequence[int], teacher_shape: Sequence[int]) -> nn.Module:
    """A learnt module that brings a student's layer to the shape of the teacher's.

    student_shape, teacher_shape: without the batch axis. Vectors (D,): nn.Linear, for (..., D).
    Maps (C, h, w): a 1×1 convolution, and where h or w differ adaptive average pooling to the
    teacher's, which repeats pixels where the teacher's map is larger. Raises ValueError for other
    shapes. Source: Romero et al. 2015, section 2.2: the regressor.

    >>> projector((16, 8, 8), (32, 4, 4))(torch.zeros(2, 16, 8, 8)).shape
    torch.Size([2, 32, 4, 4])
    """
    s, t = tuple(student_shape), tuple(teacher_shape)
    if (
        len(s) != len(t)
        or len(s) not in (1, 3)
        or not all(isinstance(n, int) and n > 0 for n in s + t)
    ):
        raise ValueError(
            f"projector: student_shape {s} and teacher_shape {t} must both be vectors (D,) "
            "or both maps (C, h, w), without the batch axis; expected whole numbers above 0"
        )
    if len(s) == 1:
        return nn.Linear(s[0], t[0])
    mix, resize = nn.Conv2d(s[0], t[0], 1), nn.AdaptiveAvgPool2d(t[1:])
    if s[1:] == t[1:]:
        return mix
    # the two commute: mix where there are fewer pixels
    return (
        nn.Sequential(resize, mix)
        if math.prod(t[1:]) < math.prod(s[1:])
        else nn.Sequential(mix, resize)
    )
