"""kdlab.teachers.sparse against loops over the formulas in float64, and against every draw there
is."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kdlab import forward_kl, jsd, reverse_kl
from kdlab.losses import divergences
from kdlab.teachers.cache import build
from kdlab.teachers.sparse import Head, Samples, TopK, counted, log_tail, sample, top_k

LM = Path(__file__).parents[2] / "data" / "teachers" / "topics_lm"
EVERY = ("forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl", "tvd")


def logits(*shape, seed=0, scale=3.0):
    return scale * torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def probabilities(z, T=1.0):
    """softmax(z / T) of one row, as a list."""
    powers = [math.exp((v - max(z)) / T) for v in z]
    return [p / sum(powers) for p in powers]


def pair(*shape, seed=0):
    return logits(*shape, seed=seed).requires_grad_(), logits(*shape, seed=seed + 1)


def test_top_k_keeps_the_likeliest_with_their_true_log_probabilities():
    z = logits(2, 3, 9)
    kept = top_k(z, 4, temperature=1.5)
    assert kept.indices.shape == kept.log_probs.shape == (2, 3, 4) and kept.tail.shape == (2, 3)
    assert top_k(z, 9).tail.isclose(torch.tensor(divergences.FLOOR).double()).all()
    for row in itertools.product(range(2), range(3)):
        p = probabilities(z[row].tolist(), 1.5)
        first = sorted(range(9), key=lambda v: -p[v])
        assert kept.indices[row].tolist() == first[:4]
        assert kept.log_probs[row].tolist() == pytest.approx([math.log(p[v]) for v in first[:4]])
        assert kept.tail[row].item() == pytest.approx(math.log(sum(p[v] for v in first[4:])))


@pytest.mark.parametrize("T", [1.0, 2.5])
def test_the_three_treatments_by_their_formulas(T):
    student, teacher = pair(5, 8)
    kept = top_k(teacher, 3, T)
    expected = {"tail": 0.0, "renormalise": 0.0, "truncate": 0.0}
    for z, y in zip(student.tolist(), teacher.tolist(), strict=True):
        q, p = probabilities(z, T), probabilities(y, T)
        K = sorted(range(8), key=lambda v: -p[v])[:3]
        of_p, of_q = sum(p[v] for v in K), sum(q[v] for v in K)
        truncated = sum(p[v] * math.log(p[v] / q[v]) for v in K)
        expected["truncate"] += truncated / 5
        expected["tail"] += (truncated + (1 - of_p) * math.log((1 - of_p) / (1 - of_q))) / 5
        expected["renormalise"] += sum(p[v] / of_p * math.log(p[v] / of_p / q[v]) for v in K) / 5
    for cut, value in expected.items():
        assert kept.forward_kl(student, cut).item() == pytest.approx(value, rel=1e-9), cut
        rows = kept.forward_kl(student, cut, reduction="rows")
        assert rows.shape == (5,) and rows.mean().item() == pytest.approx(value, rel=1e-9)
        assert torch.autograd.gradcheck(lambda z, cut=cut: kept.forward_kl(z, cut), student)


def test_on_the_kept_logits_the_gradient_is_the_full_one_and_on_the_others_its_sum():
    student, teacher = pair(4, 12)
    kept = top_k(teacher, 5, 2.0)
    (full,), (cut,) = (
        torch.autograd.grad(loss, student)
        for loss in (forward_kl(student, teacher, 2.0), kept.forward_kl(student))
    )
    torch.testing.assert_close(cut.gather(1, kept.indices), full.gather(1, kept.indices))
    torch.testing.assert_close(cut.sum(1), full.sum(1))
    assert (cut - full).abs().max() > 1e-3
    # what the student keeps of its own: inside the tail the gradient is proportional to q
    share = (cut / (student / 2).softmax(1)).scatter(1, kept.indices, torch.nan)
    assert (
        torch.nan_to_num(share, 9.0).amin(1) - torch.nan_to_num(share, -9.0).amax(1)
    ).abs().max() < 1e-12


@pytest.mark.parametrize("name", EVERY)
@given(st.integers(0, 9999), st.integers(1, 7), st.floats(0.1, 20))
def test_buckets_never_say_more_than_the_whole(name, seed, k, scale):
    student, teacher = (
        logits(3, 7, seed=seed, scale=scale),
        logits(3, 7, seed=seed + 1, scale=scale),
    )
    kept, divergence = top_k(teacher, k, 2.0), getattr(divergences, name)
    whole = divergence(student, teacher, temperature=2.0, reduction="rows")
    found = divergence(*kept.buckets(student), reduction="rows")
    assert (found <= whole + 1e-9).all()
    if k >= 6:  # nothing is left, or a single token
        torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-9)
    assert divergence(*top_k(teacher, k, 2.0).buckets(teacher)).item() < 1e-12


def test_renormalising_and_truncating_go_wrong():
    teacher = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()
    kept = top_k(teacher, 2)
    confident = torch.tensor(
        [[4 / 7, 3 / 7, 1e-9, 1e-9]], dtype=torch.float64
    ).log()  # has lost the tail
    assert kept.forward_kl(teacher) < 1e-12 < 1 < kept.forward_kl(confident)
    assert (
        kept.forward_kl(confident, "renormalise")
        < 1e-8
        < 0.3
        < kept.forward_kl(teacher, "renormalise")
    )
    assert all(
        rows.exp().sum().item() == pytest.approx(1)
        for rows in kept.buckets(teacher, renormalise=True)
    )
    truncated = 0.7 * math.log(0.7)
    assert (
        kept.forward_kl(confident, "truncate").item() == pytest.approx(truncated, abs=1e-8)
        and truncated < -0.2
    )
    assert kept.forward_kl(confident, "truncate", reduction="rows").item() == pytest.approx(
        truncated, abs=1e-8
    )
    exact = teacher.clone().requires_grad_()
    kept.forward_kl(
        exact, "truncate"
    ).backward()  # even the right student is pushed on: −p + q Σ_K p
    torch.testing.assert_close(
        exact.grad, torch.tensor([[-0.12, -0.09, 0.14, 0.07]], dtype=torch.float64)
    )
    assert reverse_kl(*kept.buckets(teacher)) < 1e-12
    assert reverse_kl(*kept.buckets(teacher, renormalise=True)) > 1e20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "case", ["k is V", "sure teacher", "sure student", "ruled out", "one token"]
)
def test_an_empty_or_tiny_tail_gives_finite_gradients(case, dtype):
    student, teacher = torch.randn(3, 6), torch.randn(3, 6)
    if case.startswith("sure"):
        (teacher if case == "sure teacher" else student)[:, 0] = 400.0
    if case == "ruled out":
        student[:, [0, 5]], teacher[:, 2:] = -torch.inf, -torch.inf
    student = student.to(dtype).requires_grad_()
    kept = top_k(teacher.to(dtype), {"k is V": 6, "one token": 5}.get(case, 3))
    kept = TopK(kept.indices.short(), kept.log_probs.half(), kept.tail.half())  # as stored
    # the reverse KL to what the teacher rules out is truly infinite
    others = [jsd] if case == "ruled out" else [jsd, reverse_kl]
    for divergence in (forward_kl, *others, lambda q, p: kept.forward_kl(student, "truncate")):
        loss = divergence(*kept.buckets(student))
        (grad,) = torch.autograd.grad(loss, student)
        assert (
            loss.dtype == torch.float32 and torch.isfinite(loss) and torch.isfinite(grad).all()
        ), (loss, grad)


def test_a_tail_far_below_the_rounding_of_1_is_still_right():
    z = torch.tensor([[0.0, -60.0, -61.0]])
    kept = top_k(z, 1)
    assert kept.tail.item() == pytest.approx(math.log(math.exp(-60) + math.exp(-61)), rel=1e-6)
    student, _ = kept.buckets(z)
    assert student[0, 1].item() == pytest.approx(kept.tail.item(), rel=1e-6)


@given(st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=9))
def test_log_tail_is_what_is_not_listed(weights):
    p = [w / sum(weights) for w in weights]
    found = log_tail(torch.tensor(p[1:], dtype=torch.float64).log())
    assert found.exp().item() == pytest.approx(p[0], abs=1e-12)


def test_log_tail_of_everything_is_the_floor_and_of_little_is_precise():
    assert (log_tail(torch.tensor([[0.0, -1e9], [-0.25, -1.0]])) == divergences.FLOOR).all()
    assert log_tail(torch.tensor([-30.0])).item() == pytest.approx(-math.exp(-30), rel=1e-5, abs=0)


@pytest.mark.parametrize("tau", [1.0, 2.0, 0.7])
def test_over_every_draw_the_cross_entropy_and_its_gradient_are_the_full_ones(tau, monkeypatch):
    student, teacher, T = logits(3).requires_grad_(), logits(3, seed=5, scale=1.0), 1.5
    p, r = probabilities(teacher.tolist(), T), probabilities(teacher.tolist(), T * tau)
    mean, total = 0.0, 0.0
    for draw in itertools.product(range(3), repeat=2):
        monkeypatch.setattr(
            torch, "multinomial", lambda proposal, n, draw=draw, **_: torch.tensor([draw])
        )
        drawn, chance = sample(teacher, 2, T, tau), r[draw[0]] * r[draw[1]]
        mean = mean + chance * drawn.cross_entropy(student)
        total += chance * drawn.weights.sum().item()
    full = -(torch.tensor(p, dtype=torch.float64) * (student / T).log_softmax(0)).sum()
    assert mean.item() == pytest.approx(full.item()) and total == pytest.approx(1)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student) for loss in (mean, full)))
    assert (full - forward_kl(student, teacher, T)).item() == pytest.approx(
        -sum(v * math.log(v) for v in p)
    )


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_tokens_come_as_often_as_the_proposal_says(tau):
    teacher, n = logits(2, 5, seed=3, scale=1.0), 40_000
    drawn = sample(teacher, n, 1.5, tau, torch.Generator().manual_seed(0))
    for row in range(2):
        r, p = (probabilities(teacher[row].tolist(), 1.5 * t) for t in (tau, 1))
        for v in range(5):
            here = drawn.indices[row] == v
            assert here.double().mean().item() == pytest.approx(
                r[v], abs=5 * math.sqrt(r[v] * (1 - r[v]) / n)
            )
            assert drawn.weights[row][here].tolist()[:1] == pytest.approx([p[v] / r[v] / n])
    assert torch.equal(
        sample(teacher, n, 1.5, tau, torch.Generator().manual_seed(0)).indices, drawn.indices
    )
    assert sample(torch.tensor([99.0, 0, 0]), 3).indices.tolist() == [0, 0, 0]


@pytest.mark.parametrize("loss", ["tail", "renormalise", "truncate", "samples"])
def test_a_masked_row_may_hold_anything_and_halves_average_to_the_whole(loss):
    student, teacher = pair(4, 6)
    kept = top_k(teacher, 2) if loss != "samples" else sample(teacher, 3)
    values = kept.log_probs if loss != "samples" else kept.weights

    def mean(z, rows, **options):
        of = (
            TopK(kept.indices[rows], values[rows], kept.tail[rows])
            if loss != "samples"
            else Samples(kept.indices[rows], values[rows])
        )
        return (
            of.cross_entropy(z, **options)
            if loss == "samples"
            else of.forward_kl(z, loss, **options)
        )

    halves = (mean(student[:2], slice(2)) + mean(student[2:], slice(2, 4))) / 2
    torch.testing.assert_close(mean(student, slice(4)), halves)
    alone = mean(student[1:3], slice(1, 3))
    (expected,) = torch.autograd.grad(alone, student)
    values[0], values[3], kept.indices[0] = torch.nan, torch.inf, -7
    wild = student.detach().clone()
    wild[0], wild[3] = torch.nan, torch.inf
    wild.requires_grad_()
    found = mean(wild, slice(4), mask=(mask := torch.tensor([False, True, True, False])))
    torch.testing.assert_close((found, *torch.autograd.grad(found, wild)), (alone, expected))
    assert mean(wild, slice(4), mask=mask, reduction="rows")[[0, 3]].tolist() == [0, 0]
    assert mean(wild, slice(4), mask=mask & False).item() == 0


@pytest.mark.parametrize("bias", [False, True])
def test_a_head_gives_the_logits_of_a_language_model_back_also_from_a_cache(bias, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(LM, use_safetensors=True).eval()
    if bias:
        model.lm_head.bias = nn.Parameter(torch.randn(512))
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
    head, kept = Head.of(model), top_k(out.logits, 8, 2.0)
    rows = {
        "hidden": out.hidden_states[-1],
        "indices": kept.indices.short(),
        "log_probs": kept.log_probs,
        "tail": kept.tail,
    }
    found = build(tmp_path, [0, 1], lambda which: {name: t[which] for name, t in rows.items()}, {})[
        [1, 0]
    ]
    torch.testing.assert_close(head(found.pop("hidden")), out.logits.flip(0), rtol=1e-6, atol=1e-6)
    student, again = torch.randn(2, 6, 512), TopK(**found, temperature=2.0)
    torch.testing.assert_close(again.forward_kl(student), kept.forward_kl(student.flip(0)))
    assert not head.weight.requires_grad
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(
        ValueError, match=r"Head.of: model must end .* sets \['final_logit_softcapping'\]"
    ):
        Head.of(model)


Z, Y = torch.zeros(2, 5), top_k(torch.zeros(2, 5), 3)


@pytest.mark.parametrize(
    "act, error, words",
    [
        (
            lambda: top_k(Z.long(), 2),
            TypeError,
            r"logits must be a floating-point tensor \(..., V\), got torch.int64",
        ),
        (
            lambda: top_k([1.0], 1),
            TypeError,
            r"top_k: logits must be a floating-point tensor \(..., V\), got list",
        ),
        (lambda: top_k(Z / 0, 1), ValueError, "top_k: logits holds 10 NaN or [+]inf values"),
        (
            lambda: top_k(Z - torch.inf, 1),
            ValueError,
            "top_k: logits rules out every token in 2 rows",
        ),
        *[
            (
                lambda k=k: top_k(Z, k),
                ValueError,
                f"k must be a whole number from 1 to V = 5, got {k}",
            )
            for k in (0, 6, 2.0)
        ],
        (
            lambda: top_k(Z, 1, 0),
            ValueError,
            "top_k: temperature must be above 0 and finite, got 0",
        ),
        (lambda: sample(Z, 0), ValueError, "sample: n must be a whole number of at least 1, got 0"),
        (lambda: sample(Z, 1, 1, -1), ValueError, "sample: temperature must be above 0"),
        (
            lambda: TopK(Y.indices, Y.log_probs[:1], Y.tail),
            ValueError,
            r"TopK: .* got \(2, 3\), \(1, 3\) and \(2,\)",
        ),
        (
            lambda: Samples(Y.indices, Y.log_probs[:, :1]),
            ValueError,
            r"Samples: .* got \(2, 3\) and \(2, 1\)",
        ),
        (
            lambda: Y.forward_kl(Z, "rest"),
            ValueError,
            "cut must be 'tail', 'renormalise' or 'truncate', got 'rest'",
        ),
        (
            lambda: Y.forward_kl(Z, reduction="sum"),
            ValueError,
            "reduction must be 'mean' or 'rows', got 'sum'",
        ),
        (
            lambda: Y.buckets(Z[:1]),
            ValueError,
            r"student_logits must have the teacher's rows \(2,\), got \(1, 5\)",
        ),
        (
            lambda: Y.buckets(Z, torch.ones(2, 5)),
            ValueError,
            r"mask must have the shape of the rows \(2,\), got \(2, 5\)",
        ),
        (
            lambda: Y.buckets(Z[:, :2]),
            ValueError,
            r"indices must lie in \[0, 2\), the student's vocabulary, got ",
        ),
        (lambda: Head(Z)(Z[:, :4]), ValueError, r"Head: hidden must be \(..., 5\), got \(2, 4\)"),
    ],
)
def test_what_does_not_fit_is_told(act, error, words):
    with pytest.raises(error, match=words):
        act()


# --- draws as a distribution ---


@given(st.integers(1, 9), st.integers(0, 12), st.integers(0, 2**31))
def test_counted_draws_are_their_shares_and_tokens_that_were_not_drawn(n, more, seed):
    V = n + more
    g = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, V, (2, 3, n), generator=g)
    kept = counted(Samples(drawn, torch.full(drawn.shape, 1 / n), 2.0), V)
    assert kept.sampled and kept.temperature == 2.0 and (kept.tail.exp() == 0).all()
    shares = torch.zeros(2, 3, V).scatter(-1, kept.indices, kept.log_probs.exp())
    wanted = torch.stack([torch.bincount(row, minlength=V) for row in drawn.reshape(6, n)]) / n
    torch.testing.assert_close(shares.reshape(6, V), wanted)
    for row in kept.indices.reshape(6, n).tolist():
        assert len(set(row)) == n and 0 <= min(row) <= max(row) < V


def test_counted_wants_even_draws_and_room_for_all():
    even = Samples(torch.zeros(1, 4, dtype=torch.long), torch.full((1, 4), 0.25))
    with pytest.raises(ValueError, match="V must be at least the 4 draws a row, got 3"):
        counted(even, 3)
    skewed = sample(torch.randn(3, 9), 4, proposal_temperature=2.0)
    with pytest.raises(ValueError, match="drawn must be drawn from the teacher itself"):
        counted(skewed, 9)
