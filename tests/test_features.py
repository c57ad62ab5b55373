"""Hidden layers: taps that leave nothing behind; distances against loops over pairs and triplets."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call, vmap

from kdlab.features import attention_transfer, cka, fitnets, projector, rkd_angle, rkd_distance, similarity, tap
from kdlab.replicas import Replicas


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
        maps = [[float(sum(abs(v) ** 2 for v in z[:, i, j])) for i in range(z.shape[1]) for j in range(z.shape[2])]
                for z in (a, b)]
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
    return [sum(huber(d[0][i, j] - d[1][i, j]) for j in range(B) if j != i) / (B - 1) for i in range(B)]


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
    "attention code": (attention_code, lambda s, t: by_loops_attention(s, t, code=True), (6, 2, 3, 4), (6, 5, 3, 4)),
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
    """The formulas of the repositories attention-transfer and RKD, written anew, and the factors of the docstrings."""
    s, t, B = normal(5, 3, 2, 2, seed=1), normal(5, 4, 2, 2, seed=2), 5

    def attention(a):
        return F.normalize((a**2).mean(1).reshape(B, -1))

    code = (attention(s) - attention(t)).pow(2).mean()
    torch.testing.assert_close(attention_code(s, t), code)
    paper = attention_transfer(s, t, reduction="rows")
    torch.testing.assert_close(attention_code(s, t, reduction="rows"), paper**2 / (2 * 2))

    def distances(x):
        gram = x @ x.T
        d = (gram.diagonal()[:, None] + gram.diagonal() - 2 * gram).clamp(min=1e-12).sqrt() * (1 - torch.eye(B))
        return d / d[d > 0].mean()

    def angles(x):
        e = F.normalize(x[None] - x[:, None], dim=-1)
        return torch.bmm(e, e.transpose(1, 2))

    s, t = s.flatten(1), t.flatten(1)
    torch.testing.assert_close(rkd_distance(s, t) * (B - 1) / B, F.smooth_l1_loss(distances(s), distances(t)))
    torch.testing.assert_close(rkd_angle(s, t) * (B - 1) * (B - 2) / B**2, F.smooth_l1_loss(angles(s), angles(t)))


@each
def test_gradcheck(name):
    of, s, t = layers_for(name)
    assert gradcheck(lambda s, t: of(s, t, reduction="rows"), (s.requires_grad_(), t.requires_grad_()))


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_zero_with_zero_gradient_at_equality(name, dtype):
    of, s, _ = layers_for(name, dtype)
    grad, = torch.autograd.grad(of(s.requires_grad_(), s.detach().clone()), s)
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
    grads = [torch.autograd.grad(rkd_angle(z.requires_grad_(), t), z)[0] for z in (s.clone(), 1000 * s)]
    torch.testing.assert_close(grads[0], 1000 * grads[1])  # angles don't know the scale
    thin = normal(200, 3, 2, seed=3, dtype=torch.float32) * torch.tensor([1e-4, 1e-4, 1000.0])[:, None]
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
    torch.testing.assert_close(vmap(of, in_dims=(0, None))(s, t[0])[1], of(s[1], t[0]))  # one teacher for all


@each
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)])
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
    assert abs(fitnets(s[:, order], t) - fitnets(s, t)) > 1e-3  # as it should: hints compare neuron by neuron


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


def by_gram(x, y):
    """Kornblith's definition through HSIC: kernels, the centring matrix, traces."""
    n = len(x)
    H = np.eye(n) - 1 / n
    K, L = x.reshape(n, -1) @ x.reshape(n, -1).T, y.reshape(n, -1) @ y.reshape(n, -1).T

    def hsic(a, b):
        return np.trace(a @ H @ b @ H)

    return hsic(K, L) / math.sqrt(hsic(K, K) * hsic(L, L))


@pytest.mark.parametrize("a, b", [((20, 3), (20, 4)), ((20, 3), (20, 30)), ((5, 2, 3, 3), (5, 40))])
def test_cka_is_hsic_of_centred_kernels(a, b):
    x, y = normal(*a, seed=1) + 3, normal(*b, seed=2) - 1  # off centre
    y.flatten(1)[:, 0] += x.flatten(1)[:, 0]
    assert cka(x, y).item() == pytest.approx(by_gram(x.numpy(), y.numpy()), rel=1e-9)
    assert cka(x.float(), y.float()).item() == pytest.approx(by_gram(x.numpy(), y.numpy()), rel=1e-5)
    assert cka(x.float(), y.float()).dtype == cka(x.half(), y.half()).dtype == torch.float32


@pytest.mark.parametrize("D", [4, 50])
def test_cka_of_the_same_is_one(D):
    x, turn = normal(30, D) + 5, torch.linalg.qr(normal(D, D, seed=1))[0]
    for y in (x, 100 * x, -x, x @ turn, x + 3, torch.cat([x, torch.zeros_like(x)], 1)):
        assert cka(x, y).item() == pytest.approx(1, abs=1e-12)
        assert cka(x, y) <= 1
    stretched = x * torch.arange(1.0, D + 1)
    assert cka(x, stretched) < 0.99  # not any linear map


def test_cka_of_noise_falls_with_more_examples():
    few, many = (cka(normal(n, 10, seed=1), normal(n, 10, seed=2)).item() for n in (10, 4000))
    assert many < 0.01 < 0.3 < few
    assert cka(normal(10, 3), torch.ones(10, 3)).item() == 0  # a constant layer


@pytest.mark.parametrize("D", [3, 9])
def test_cka_gradcheck_and_vmap(D):
    x, y = normal(6, D, seed=1).requires_grad_(), normal(6, 4, seed=2).requires_grad_()
    assert gradcheck(cka, (x, y))
    xs, ys = normal(3, 6, D, seed=3), normal(3, 6, 4, seed=4)
    torch.testing.assert_close(vmap(cka)(xs, ys), torch.stack([cka(a, b) for a, b in zip(xs, ys, strict=True)]))
    flat = torch.ones(6, D, requires_grad=True)
    assert torch.autograd.grad(cka(flat, y.detach()), flat)[0].isfinite().all()


@pytest.mark.parametrize("of, s, t, words", [
    (fitnets, (8, 16), (8, 32), "fitnets: student (8, 16) and teacher (8, 32) must have one shape; "
                                "bring the student to it with projector((16,), (32,))"),
    (fitnets, (8, 4, 6, 6), (8, 8, 3, 3), "projector((4, 6, 6), (8, 3, 3))"),
    (fitnets, (8, 5, 16), (8, 5, 32), "projector((16,), (32,))"),
    (fitnets, (8, 6), (8, 2, 2, 3), "flatten both (nn.Flatten) and bring the student to it with "
                                    "projector((6,), (12,))"),
    (fitnets, (8, 5, 16), (8, 4, 16), "flatten both (nn.Flatten)"),
    (attention_transfer, (8, 4, 6, 6), (8, 8, 3, 3), "must have one h and w; bring the student to it with "
                                                     "projector((4, 6, 6), (8, 3, 3))"),
    (attention_transfer, (8, 4), (8, 4), "must be maps (B, C, h, w)"),
    (fitnets, (8,), (8,), "student must be a layer (B, ...), got (8,)"),
    (cka, (8,), (8, 1), "x must be a layer (B, ...), got (8,)"),
    *[(of, (8, 2, 2, 2), (7, 2, 2, 2), "(8, 2, 2, 2) and " + key + " (7, 2, 2, 2) must have one batch size")
      for of, key in [(fitnets, "teacher"), (attention_transfer, "teacher"), (similarity, "teacher"),
                      (rkd_distance, "teacher"), (rkd_angle, "teacher"), (cka, "y")]],
])
def test_shapes_that_do_not_fit(of, s, t, words):
    with pytest.raises(ValueError) as error:
        of(torch.zeros(s), torch.zeros(t))
    assert words in str(error.value) and str(error.value).startswith(of.__name__ + ": ")


def test_the_offered_projector_mends_it():
    for s, t in [((8, 16), (8, 32)), ((8, 4, 6, 6), (8, 8, 3, 3)), ((8, 5, 16), (8, 5, 32))]:
        with pytest.raises(ValueError) as error:
            fitnets(torch.zeros(s), torch.ones(t))
        offered = eval(str(error.value).split("with ")[1], {"projector": projector})
        assert fitnets(offered(torch.zeros(s)), torch.ones(t)).isfinite()


@each
def test_other_bad_arguments(name):
    of, s, t = layers_for(name)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'rows', got 'sum'"):
        of(s, t, reduction="sum")
    with pytest.raises(TypeError, match="teacher must be a floating-point tensor .*, got torch.int64"):
        of(s, t.long())
    with pytest.raises(TypeError, match="student must be a floating-point tensor .*, got ndarray"):
        of(s.numpy(), t)


def test_unknown_variant():
    with pytest.raises(ValueError, match="variant must be 'paper' or 'code', got 'both'"):
        attention_transfer(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), variant="both")


@pytest.mark.parametrize("s, t", [((16,), (32,)), ((4, 6, 6), (8, 6, 6)), ((4, 7, 5), (2, 3, 4)),
                                  ((4, 3, 3), (8, 6, 6)), ((4, 8, 2), (8, 4, 4)), (torch.Size([3]), [5])])
def test_projector_reaches_the_shape_and_learns(s, t):
    module, x = projector(s, t), normal(2, *s, dtype=torch.float32).requires_grad_()
    out = module(x)
    assert out.shape == (2, *t)
    out.square().sum().backward()
    assert x.grad.abs().sum() > 0 and all(p.grad.abs().sum() > 0 for p in module.parameters())


def test_projector_by_hand():
    mixed = projector((2, 2, 2), (1, 1, 1))
    nn.init.constant_(mixed[1].weight, 2.0)
    nn.init.constant_(mixed[1].bias, 1.0)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, 4.0]]]])
    assert mixed(x).item() == 2 * (3 + 1) + 1  # the means of the two channels
    repeated = projector((1, 1, 2), (1, 2, 4))
    nn.init.constant_(repeated[0].weight, 1.0)
    nn.init.constant_(repeated[0].bias, 0.0)
    assert repeated(torch.tensor([[[[1.0, 5.0]]]])).tolist() == [[[[1, 1, 5, 5], [1, 1, 5, 5]]]]
    sequence = projector((3,), (4,))
    assert sequence(torch.zeros(2, 7, 3)).shape == (2, 7, 4)
    assert isinstance(projector((4, 6, 6), (8, 6, 6)), nn.Conv2d)  # nothing to resize


@pytest.mark.parametrize("s, t", [((4, 8), (4, 9)), ((4,), (4, 2, 2)), ((), ()), ((0,), (3,)), ((4.0,), (3,))])
def test_projector_refuses_other_shapes(s, t):
    with pytest.raises(ValueError) as error:
        projector(s, t)
    assert f"projector: student_shape {s} and teacher_shape {t} must both be vectors (D,)" in str(error.value)


def network(seed=0):
    torch.manual_seed(seed)
    inner = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), inner, nn.Linear(5, 2)).double()


def hooks(model):
    return sum(len(m._forward_hooks) for m in model.modules())


def test_tap_collects_what_the_layers_give():
    model, x = network(), normal(6, 3)
    with tap(model, ["1", "2", "2.0"]) as layers:
        assert layers == {}
        model(x)
    hidden = (x @ model[0].weight.T + model[0].bias).clamp_min(0)
    inner = hidden @ model[2][0].weight.T + model[2][0].bias
    for name, expected in {"1": hidden, "2.0": inner, "2": inner.tanh()}.items():
        torch.testing.assert_close(layers[name], expected)
    assert set(layers) == {"1", "2", "2.0"}
    layers["1"].sum().backward()  # not detached
    assert model[0].weight.grad.abs().sum() > 0
    with tap(model, "0") as one:
        model(x)
        model(2 * x)  # each pass fills it anew
    torch.testing.assert_close(one["0"], 2 * x @ model[0].weight.T + model[0].bias)


def test_hooks_are_gone_in_every_case():
    model, x = network(), normal(6, 3)
    with tap(model, ["0", "1"]) as layers:
        assert hooks(model) == 2
        model(x)
    assert hooks(model) == 0
    before = layers["0"]
    model(x + 1)
    assert layers["0"] is before  # a later pass fills nothing
    with pytest.raises(KeyError, match="mine"), tap(model, "0"):
        raise KeyError("mine")
    assert hooks(model) == 0
    with pytest.raises(RuntimeError), tap(model, ["0", "3"]) as layers:
        model(normal(6, 4))  # the forward pass itself fails
    assert hooks(model) == 0 and layers == {}
    with pytest.raises(ValueError), tap(model, ["0", "nothing"]):
        pass
    assert hooks(model) == 0


def test_taps_nest_and_leave_other_hooks_alone():
    model, x, seen = network(), normal(6, 3), []
    handle = model[0].register_forward_hook(lambda *_: seen.append(1))
    with tap(model, ["0", "1"]) as outer:
        with tap(model, "1") as inner:
            model(x)
        assert hooks(model) == 3
        first = inner["1"]
        model(x + 1)
    assert inner["1"] is first and not torch.equal(outer["1"], first)
    assert set(outer) == {"0", "1"} and set(inner) == {"1"}
    assert hooks(model) == 1 and len(seen) == 2
    handle.remove()


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(ValueError) as error, tap(network(), ["0", "2.7", "relu"]):
        pass
    assert str(error.value) == ("tap: names ['2.7', 'relu'] are not in the model; "
                                "expected names from ['0', '1', '2', '2.0', '2.1', '3']")


class Pair(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.inner, self.give = nn.Identity(), give
        self.inner.forward = lambda x: self.give(x)

    def forward(self, x):
        self.inner(x)
        return x


@pytest.mark.parametrize("give", [lambda x: (x + 1, x), lambda x: [x + 1], lambda x: {"a": x + 1, "b": x},
                                  lambda x: (None, x + 1, x)])
def test_the_first_tensor_of_several(give):
    model, x = Pair(give), normal(2, 3)
    with tap(model, "inner") as layers:
        model(x)
    torch.testing.assert_close(layers["inner"], x + 1)


@pytest.mark.parametrize("give", [lambda x: None, lambda x: (), lambda x: "text"])
def test_a_layer_without_a_tensor_is_an_error(give):
    model = Pair(give)
    with pytest.raises(TypeError, match="'inner' must give a tensor or a tuple with one, got"), tap(model, "inner"):
        model(normal(2, 3))
    assert hooks(model) == 0


def test_transformers_blocks():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2)).eval()
    tokens = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad(), tap(model, ["transformer.h.0", "transformer.h.0.attn", "transformer"]) as layers:
        hidden = model(tokens, output_hidden_states=True).hidden_states
    torch.testing.assert_close(layers["transformer.h.0"], hidden[1])
    torch.testing.assert_close(layers["transformer"], hidden[2])  # its output is a dictionary
    assert layers["transformer.h.0.attn"].shape == (1, 4, 8)  # and this one's a tuple


def test_replicas_under_vmap_agree_with_each_model_alone():
    models = [network(seed) for seed in range(3)]
    stack, x = Replicas(models, seeds=range(3)), normal(3, 6, 3)

    def one(parameters, buffers, x):
        with tap(stack.base, ["1", "2.0"]) as layers:
            return functional_call(stack.base, (parameters, buffers), (x,)), dict(layers)

    leaves = {k: v.clone().requires_grad_() for k, v in stack.parameters.items()}
    logits, layers = vmap(one)(leaves, stack.buffers, x)
    assert hooks(stack.base) == 0
    torch.testing.assert_close(logits, stack.forward(x))
    teacher = normal(6, 7)
    loss = vmap(rkd_distance, in_dims=(0, None))(layers["2.0"], teacher)
    grads = dict(zip(leaves, torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True), strict=True))
    for r, model in enumerate(models):
        with tap(model, ["1", "2.0"]) as alone:
            model(x[r])
        for name in alone:
            torch.testing.assert_close(layers[name][r], alone[name])
        rkd_distance(alone["2.0"], teacher).backward()
        torch.testing.assert_close(grads["0.weight"][r], model[0].weight.grad)
    assert grads["3.weight"] is None  # behind the tap
