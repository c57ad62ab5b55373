"""A loss across vocabularies against the cheapest matching, and widths that are padded."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from tiny_models import fast, tokenizer
from tokenizers import models
from torch.autograd import gradcheck

from kdlab import forward_kl, tvd
from kdlab.data.tokenizers import align
from kdlab.losses.uld import mask_padding, uld


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("wide, narrow", [(9, 7), (7, 9), (7, 7), (9, 5)])
def test_padding_takes_no_probability_and_no_gradient(wide, narrow):
    s, t = normal(2, 3, wide, seed=1).requires_grad_(), normal(2, 3, narrow, seed=2)
    a, b = (z.detach().numpy()[..., :5] for z in (s, t))
    log_q, log_p = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (a, b))
    expected = (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()
    loss = forward_kl(*mask_padding(s, t, 5))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    (grad,) = torch.autograd.grad(loss, s)
    assert (grad[..., 5:] == 0).all() and (grad[..., :5] != 0).all()
    pad = [
        F.pad(z, (0, 9 - z.shape[-1])).masked_fill(torch.arange(9) >= 5, -torch.inf) for z in (s, t)
    ]
    assert loss.item() == pytest.approx(forward_kl(*pad).item(), rel=1e-12)


@pytest.mark.parametrize("size", [0, 7, 2.5, "5", None])
def test_a_vocabulary_that_cannot_be_is_refused(size):
    with pytest.raises(
        ValueError,
        match=r"vocab_size must be .* from 1 to the narrower of the widths \(8, 6\), got",
    ):
        mask_padding(torch.zeros(2, 8), torch.zeros(2, 6), size)


def by_assignment(s, t, temperature=1.0):
    """One pair of positions: the cheapest matching of the two vocabularies, found by a solver and
    not by sorting."""
    q, p = (np.exp(z / temperature) for z in (s, t))
    q, p = (np.pad(x / x.sum(), (0, max(len(q), len(p)) - len(x))) for x in (q, p))
    cost = np.abs(p[:, None] - q[None, :])
    return cost[linear_sum_assignment(cost)].sum()


def by_loops(s, t, keep_s, keep_t, temperature):
    left, right = (
        [[row for row, k in zip(*text, strict=True) if k] for text in zip(z, keep, strict=True)]
        for z, keep in ((s, keep_s), (t, keep_t))
    )
    return [
        [by_assignment(x, y, temperature) for x, y in zip(*text, strict=False)]
        for text in zip(left, right, strict=True)
    ]


@pytest.mark.parametrize("sizes", [(5, 9, 4, 6), (9, 5, 6, 4), (7, 7, 5, 5)])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_uld_is_the_cheapest_matching(sizes, temperature):
    V_s, V_t, L_s, L_t = sizes
    s, t = normal(3, L_s, V_s, seed=3), 2 * normal(3, L_t, V_t, seed=4)
    keep_s, keep_t = normal(3, L_s, seed=5) > -0.5, normal(3, L_t, seed=6) > -0.5
    keep_s[0], keep_s[1, 1:], keep_s[1, :1] = True, False, True
    expected = by_loops(s.numpy(), t.numpy(), keep_s, keep_t, temperature)
    assert len({len(row) for row in expected}) > 1  # texts of several lengths
    mean = np.mean(list(itertools.chain(*expected)))
    assert uld(s, t, keep_s, keep_t, temperature).item() == pytest.approx(mean, rel=1e-9)
    rows = uld(s, t, keep_s, keep_t, temperature, reduction="rows")
    assert rows.shape == (3, min(L_s, L_t))
    for row, found in zip(expected, rows, strict=True):
        assert found.tolist() == pytest.approx(row + [0.0] * (len(found) - len(row)), rel=1e-9)
    whole = by_loops(s.numpy(), t.numpy(), keep_s | True, keep_t | True, temperature)
    assert uld(s, t, temperature=temperature).item() == pytest.approx(np.mean(whole), rel=1e-9)
    assert uld(s[None], t[None], keep_s[None], keep_t[None], temperature).item() == pytest.approx(
        mean
    )


def test_uld_sees_how_sure_and_never_of_what():
    assert uld(
        torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[0.4, 0.6]]).log()
    ).item() == pytest.approx(0.4)
    z = normal(2, 5, 11)
    assert (
        uld(z, z[..., torch.randperm(11, generator=torch.Generator().manual_seed(0))]).item()
        < 1e-15
    )
    other = normal(2, 5, 11, seed=1)
    assert (
        0 < uld(z, other) < 2 * tvd(z, other)
    )  # twice the total variation is the price of the pairing by token


def test_gradients_and_positions_that_do_not_count():
    keep = torch.tensor([[True, False, True], [True, True, False]])
    assert gradcheck(
        lambda z: uld(z, normal(2, 4, 6, seed=1), keep, temperature=1.7),
        normal(2, 3, 5).requires_grad_(),
    )
    s, t = normal(2, 4, 5, dtype=torch.float32), normal(2, 5, 5, seed=1, dtype=torch.float32)
    keep_s, keep_t = (
        torch.tensor([[1, 1, 0, 1]] * 2).bool(),
        torch.tensor([[0, 1, 1, 0, 1]] * 2).bool(),
    )
    expected = uld(s[keep_s].view(2, 3, 5), t[keep_t].view(2, 3, 5))
    s, t = (
        s.masked_fill(~keep_s[..., None], torch.nan).requires_grad_(),
        t.masked_fill(~keep_t[..., None], torch.inf),
    )
    loss, nothing = uld(s, t, keep_s, keep_t), uld(s, t, keep_s & False, keep_t)
    assert loss.item() == pytest.approx(expected.item()) and nothing.item() == 0
    grad, none = (torch.autograd.grad(z, s)[0] for z in (loss, nothing))
    assert torch.isfinite(grad).all() and (grad[~keep_s] == 0).all() and (grad[keep_s] != 0).any()
    assert (none == 0).all()


def test_ruled_out_tokens_and_half_precision():
    s = torch.tensor([[1.0, -torch.inf, 0.5]], dtype=torch.bfloat16, requires_grad=True)
    loss = uld(s, torch.tensor([[2.0, 0.0]], dtype=torch.bfloat16))
    assert loss.dtype == torch.float32 and torch.isfinite(torch.autograd.grad(loss, s)[0]).all()
    assert loss.item() == pytest.approx(
        2 * (torch.tensor([0.5, 2.0]).sigmoid().diff().item()), rel=1e-5
    )


Z = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (
            (Z[0, 0], Z),
            TypeError,
            r"uld: student_logits must be a floating-point tensor \(..., L, V\), got",
        ),
        ((Z, Z.long()), TypeError, "uld: teacher_logits must be a floating-point tensor"),
        ((Z, Z[:1]), ValueError, "must hold as many texts"),
        (
            (Z, Z, torch.ones(2, 2)),
            ValueError,
            r"uld: student_mask must have the shape .* \(2, 3\), got \(2, 2\)",
        ),
        ((Z, Z, None, [True]), ValueError, "uld: teacher_mask must .* got list"),
        ((Z, Z, None, None, 0.0), ValueError, "uld: temperature must be above 0"),
        ((Z, Z / 0), ValueError, "uld: teacher_logits holds 24 NaN"),
    ],
)
def test_bad_input_of_uld_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        uld(*arguments)


def test_uld_at_the_ends_of_real_spans():
    text = "The cat sat on Ünï 2024's mat.\n\n  def f(x):"
    letters = fast(models.BPE({c: i for i, c in enumerate(set(text))}, []))
    cuts = [t(text, return_offsets_mapping=True)["offset_mapping"] for t in (tokenizer(), letters)]
    spans = align(*cuts)
    assert len(spans) < len(cuts[0]) < len(cuts[1])  # ü is two tokens
    assert "".join(text[cuts[0][s[0]][0] : cuts[0][s[-1]][1]] for s, _ in spans) == text
    at_s, at_t = ([*at] for at in zip(*[(s[-1], t[-1]) for s, t in spans], strict=True))
    z, y = normal(len(cuts[0]), 20), normal(len(cuts[1]), 30, seed=1)
    expected = np.mean(
        [by_assignment(z[i].numpy(), y[j].numpy()) for i, j in zip(at_s, at_t, strict=True)]
    )
    assert uld(z[at_s], y[at_t]).item() == pytest.approx(expected, rel=1e-9)
    assert abs(uld(z, y).item() - expected) > 1e-4  # pairing by order is another thing


def test_what_only_looks_like_a_mask_is_refused_by_uld():
    for mask in (torch.full((2, 3), -100), torch.zeros(2, 3)):
        with pytest.raises(
            (TypeError, ValueError), match="^uld: teacher_mask must hold true and false"
        ):
            uld(Z, Z, None, mask)


@pytest.mark.parametrize(
    "changes",
    [
        {"student_logits": [[0.0]]},
        {"teacher_logits": None},
        {"teacher_logits": torch.tensor(0.0)},
        {"vocab_size": True},
    ],
)
def test_the_wrong_argument_of_mask_padding_is_named(changes):
    with pytest.raises((TypeError, ValueError), match=f"^mask_padding: {next(iter(changes))} must"):
        mask_padding(**{"student_logits": Z, "teacher_logits": Z, "vocab_size": 3} | changes)
