"""TokenLoss against loops over the formulas in plain Python, KDLoss and transformers' own shift."""

import math
from functools import partial

import pytest
import torch
from trainers import llama

import kdlab as kd
from kdlab import KDLoss, TokenLoss
from kdlab.losses.kd import next_token

NAN = float("nan")


def example(dtype=torch.float64, V=6):
    """Logits of student and teacher (2, 4, V) and labels, three of which don't count."""
    generator = torch.Generator().manual_seed(5)
    s, t = (2 * torch.randn(2, 4, V, dtype=dtype, generator=generator) for _ in range(2))
    return s.requires_grad_(), t, torch.tensor([[1, -100, 0, 5], [-100, 2, 3, -100]])


def softmax(row, T):
    e = [math.exp(z / T) for z in row]
    return [x / sum(e) for x in e]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def mix(p, q, share):
    return [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]


# teacher p, student q: the definitions of Agarwal et al. 2024 and Ko et al. 2024
FORMULAS = {
    "forward_kl": (kd.forward_kl, {}, kl),
    "reverse_kl": (kd.reverse_kl, {}, lambda p, q: kl(q, p)),
    "jsd": (kd.jsd, {}, lambda p, q: 0.5 * kl(p, mix(p, q, 0.5)) + 0.5 * kl(q, mix(p, q, 0.5))),
    "jsd 0.1": (
        kd.jsd,
        {"beta": 0.1},
        lambda p, q: 0.1 * kl(p, mix(p, q, 0.1)) + 0.9 * kl(q, mix(p, q, 0.1)),
    ),
    "skew_forward_kl": (kd.skew_forward_kl, {"skew": 0.3}, lambda p, q: kl(p, mix(p, q, 0.3))),
    "skew_reverse_kl": (kd.skew_reverse_kl, {"skew": 0.3}, lambda p, q: kl(q, mix(q, p, 0.3))),
    "tvd": (kd.tvd, {}, lambda p, q: sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2),
}


@pytest.mark.parametrize(
    "alpha, T, scale", [(1.0, 1.0, "T2"), (0.3, 2.0, "T2"), (0.3, 2.0, "none"), (0, 3.0, "T2")]
)
@pytest.mark.parametrize("name", FORMULAS)
def test_each_divergence_by_loops(name, alpha, T, scale):
    divergence, options, formula = FORMULAS[name]
    s, t, y = example()
    loss, expected = TokenLoss(divergence, alpha, T, scale, **options), []
    for z, w, label in zip(
        s.flatten(0, 1).tolist(), t.flatten(0, 1).tolist(), y.flatten().tolist(), strict=True
    ):
        counts, factor = label >= 0, T * T if scale == "T2" else 1
        soft, hard = (
            counts * formula(softmax(w, T), softmax(z, T)),
            -math.log(softmax(z, 1)[label]) if counts else 0.0,
        )
        expected.append(
            [alpha * factor * soft + (1 - alpha) * hard, soft, hard if alpha < 1 else NAN]
        )
    rows = loss.rows(s, t, y)
    assert list(rows) == ["loss", "soft", "hard"]
    for i, key in enumerate(rows):
        told = pytest.approx([e[i] for e in expected], abs=1e-12, nan_ok=True)
        assert rows[key].flatten().tolist() == told, key
    assert loss(s, t, y, reduction="rows").flatten().tolist() == pytest.approx(
        [e[0] for e in expected], abs=1e-12
    )
    assert loss(s, t, y).item() == pytest.approx(
        sum(e[0] for e in expected) / 5, abs=1e-12
    )  # 5 tokens count
    assert loss.weights == pytest.approx((alpha * factor, 1 - alpha))


@pytest.mark.parametrize("scale", ["T2", "none"])
@pytest.mark.parametrize("alpha, T", [(1.0, 1.0), (0.9, 4.0), (0.0, 2.0), (0.5, 0.5)])
def test_with_forward_kl_it_is_kdloss_in_value_and_gradient(alpha, T, scale):
    s, t, y = example()
    mask = torch.tensor([[True, True, False, True], [True, True, True, False]])
    for more in ({}, {"reduction": "rows"}, {"mask": mask & (y >= 0)}):
        ours, theirs = (
            kind(alpha=alpha, temperature=T, scale=scale)(s, t, y, **more)
            for kind in (TokenLoss, KDLoss)
        )
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(*(torch.autograd.grad(x.sum(), s)[0] for x in (ours, theirs)))


def test_the_defaults_are_the_forward_kl_alone():
    s, t, y = example()
    torch.testing.assert_close(TokenLoss()(s, t, y), kd.forward_kl(s, t, mask=y >= 0))
    assert TokenLoss.needs_teacher and TokenLoss().weights == (1.0, 0.0)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("bad", [NAN, math.inf, -math.inf])
def test_a_row_that_does_not_count_may_hold_anything(alpha, bad):
    s, t, y = example()
    off = (y < 0)[..., None]
    spoilt, teacher = s.detach().masked_fill(off, bad).requires_grad_(), t.masked_fill(off, bad)
    for loss in (TokenLoss(alpha=alpha), TokenLoss(kd.jsd, alpha=alpha)):
        (clean,) = torch.autograd.grad(loss(s, t, y), s)
        for found in (loss(spoilt, teacher, y), loss.rows(spoilt, teacher, y)["loss"].sum() / 5):
            torch.testing.assert_close(found, loss(s, t, y))
            (gradient,) = torch.autograd.grad(found, spoilt)
            assert (gradient.masked_select(off) == 0).all()
            torch.testing.assert_close(gradient, clean)


def test_no_row_that_counts_is_exactly_0_with_zero_gradients():
    s, t, y = example()
    loss = TokenLoss(alpha=0.5)(s, t, torch.full_like(y, -100))
    assert loss.item() == 0 and (torch.autograd.grad(loss, s)[0] == 0).all()


def test_half_batches_average_to_the_whole_and_bfloat16_is_lifted():
    s, t, y = example()
    loss, counts = TokenLoss(alpha=0.6, temperature=2.0), (y >= 0).sum(1)
    halves = torch.stack([loss(s[i], t[i], y[i]) for i in (0, 1)])
    torch.testing.assert_close((halves * counts).sum() / counts.sum(), loss(s, t, y))
    low = [x.detach().bfloat16() for x in (s, t)]
    assert loss(*low, y).dtype == torch.float32
    torch.testing.assert_close(loss(*low, y), loss(*(x.float() for x in low), y))


@pytest.mark.parametrize(
    "make, error, words",
    [
        (
            lambda: TokenLoss("forward_kl"),
            TypeError,
            "divergence must be a function such as .*, got 'forward_kl'",
        ),
        (
            lambda: TokenLoss(beta=0.5),
            TypeError,
            r"divergence must take the options given, got \['beta'\] for forward_kl",
        ),
        (
            lambda: TokenLoss(kd.jsd, skew=1, beta=1),
            TypeError,
            r"divergence must take .* got \['skew'\] for jsd",
        ),
        (
            lambda: TokenLoss(kd.jsd, reduction="rows", mask=None),
            TypeError,
            r".* got \['mask', 'reduction'\] for jsd",
        ),
        (
            lambda: TokenLoss(partial(kd.jsd), skew=1),
            TypeError,
            r".* got \['skew'\] for functools.partial",
        ),
        (lambda: TokenLoss(alpha=1.1), ValueError, r"alpha must be a number in \[0, 1\], got 1.1"),
        (lambda: TokenLoss(alpha=NAN), ValueError, r"alpha must be a number in \[0, 1\], got nan"),
        (
            lambda: TokenLoss(alpha=torch.ones(3, 1, 1)),
            ValueError,
            r"alpha must be a number in \[0, 1\], got tensor",
        ),
        (
            lambda: TokenLoss(temperature=torch.ones(3, 1)),
            ValueError,
            "temperature must be a finite number above 0, got tensor",
        ),
        (
            lambda: TokenLoss(temperature=0),
            ValueError,
            "temperature must be a finite number above 0, got 0",
        ),
        (
            lambda: TokenLoss(temperature=math.inf),
            ValueError,
            "temperature must be a finite number above 0, got inf",
        ),
        (
            lambda: TokenLoss(scale="t2"),
            ValueError,
            r"scale must be one of \['T2', 'none'\], got 't2'",
        ),
    ],
)
def test_bad_settings_are_told_when_the_loss_is_made(make, error, words):
    with pytest.raises(error, match=f"^TokenLoss: {words}"):
        make()


S, T, Y = example()


@pytest.mark.parametrize(
    "changed, error, words",
    [
        (
            {"s": S[..., :5]},
            ValueError,
            r"student_logits \(2, 4, 5\) and .* must share the vocabulary axis; .*_padding",
        ),
        (
            {"t": T[:1]},
            ValueError,
            r"student_logits \(2, 4, 6\) and teacher_logits \(1, 4, 6\) must have the same shape",
        ),
        (
            {"y": Y[:, :3]},
            ValueError,
            r"labels must have the shape of the rows \(2, 4\), got \(2, 3\)",
        ),
        ({"y": Y.float()}, TypeError, "labels must be an integer tensor, got torch.float32"),
        (
            {"y": Y.clamp_min(6)},
            ValueError,
            r"labels must lie in \[0, 6\) or be −100 \(does not count\), got 6",
        ),
        (
            {"y": Y.clamp_min(-1)},
            ValueError,
            r"labels must lie in \[0, 6\) or be −100 \(does not count\), got -1",
        ),
        (
            {"t": T * NAN},
            ValueError,
            "teacher_logits holds 30 NaN or",
        ),  # of the 5 tokens that count
        ({"s": S * -math.inf}, ValueError, "student_logits holds .* NaN or"),
        (
            {"mask": Y[0] > 0},
            ValueError,
            r"mask must have the shape of the rows \(2, 4\), got \(4,\)",
        ),
        ({"reduction": "sum"}, ValueError, "reduction must be 'mean' or 'rows', got 'sum'"),
    ],
)
def test_what_does_not_fit_is_told(changed, error, words):
    s, t, y = (({"s": S, "t": T, "y": Y} | changed)[k] for k in "sty")
    with pytest.raises(error, match=f"^TokenLoss: {words}"):
        TokenLoss(alpha=0.5)(
            s, t, y, **{k: v for k, v in changed.items() if k in ("mask", "reduction")}
        )


def test_next_token_lines_up_as_transformers_does():
    model, ids = llama(8), torch.randint(1, 32, (3, 7), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[0, 4:] = labels[1, :3] = -100
    found = model(ids, labels=labels)
    z, y = next_token(found.logits, labels)
    assert z.shape == (3, 6, 32) and y.shape == (3, 6)
    for i, j in ((0, 0), (2, 5)):
        assert torch.equal(z[i, j], found.logits[i, j]) and y[i, j] == labels[i, j + 1]
    for loss in (TokenLoss(alpha=0.0)(z, z.detach(), y), kd.HardLabels()(z, None, y)):
        torch.testing.assert_close(loss.float(), found.loss)  # transformers' own is in float32


@pytest.mark.parametrize(
    "logits, labels", [((3, 5), (3, 5)), ((3, 5, 7), (3, 4)), ((3, 5, 7), (3, 5, 1))]
)
def test_next_token_tells_what_does_not_fit(logits, labels):
    with pytest.raises(
        ValueError, match=r"^next_token: logits must be \(B, L, V\) and labels \(B, L\), got \(3, 5"
    ):
        next_token(torch.zeros(logits), torch.zeros(labels, dtype=torch.long))


@pytest.mark.parametrize("key", ["logits", "labels"])
@pytest.mark.parametrize("wrong", [None, [[1, 2]], 3])
def test_next_token_takes_tensors(key, wrong):
    with pytest.raises(TypeError, match=f"^next_token: {key} must be a tensor, got"):
        next_token(
            **{
                "logits": torch.zeros(1, 2, 3),
                "labels": torch.zeros(1, 2, dtype=torch.long),
                key: wrong,
            }
        )
