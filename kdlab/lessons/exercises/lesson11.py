"""Exercises of lesson 11: a divergence from the top few, and a loss across two vocabularies."""

import numpy as np
import torch

from kdlab.lessons.exercises import Exercise, Question


def _tail(tail_kl):
    draw = torch.Generator().manual_seed(0)
    log_p, log_q = (2 * torch.randn(4, 9, dtype=torch.float64, generator=draw) for _ in range(2))
    log_p, log_q = log_p.log_softmax(-1), log_q.log_softmax(-1)
    top, ids = log_p.topk(3)
    P, Q = top.exp().numpy(), log_q.gather(-1, ids).exp().numpy()
    kept, rest_p, rest_q = (P * np.log(P / Q)).sum(-1), 1 - P.sum(-1), 1 - Q.sum(-1)
    expected = kept + rest_p * np.log(rest_p / rest_q)
    found = torch.as_tensor(tail_kl(log_q, ids, top), dtype=torch.float64)
    if tuple(found.shape) != (4,):
        return f"expected one number a row, shape (4,), got {tuple(found.shape)}"
    if np.allclose(found.numpy(), expected, atol=1e-5):
        return _in_float32(tail_kl)
    if np.allclose(found.numpy(), kept):
        return "the rest is missing: without it this is no divergence and can fall below 0"
    scaled = P / P.sum(-1, keepdims=True)
    if np.allclose(found.numpy(), (scaled * np.log(scaled / Q)).sum(-1)):
        return (
            "don't scale the teacher's few to sum to 1: "
            "that asks the student to give everything else nothing"
        )
    if np.allclose(found.numpy(), kept + rest_p * np.log(rest_p)):
        return "compare the teacher's rest with the student's: log(rest_p / rest_q)"
    return f"expected {expected[0]:.4f} for the first row, got {found[0]:.4f}"


def _in_float32(tail_kl):
    """A model's own numbers: float32, and rows of which the top few hold all but a rounding."""
    draw = torch.Generator().manual_seed(1)
    log_q, log_p = (12 * torch.randn(400, 9, generator=draw) for _ in range(2))
    log_q, log_p = log_q.log_softmax(-1), log_p.log_softmax(-1)
    top, ids = log_p.topk(3)
    found = torch.as_tensor(tail_kl(log_q, ids, top)).float()
    if found.isfinite().all():
        return ""
    return (
        f"of 400 rows in float32, {int((~found.isfinite()).sum())} are NaN or infinite: a sum "
        "of probabilities can reach 1 there, or pass it; keep what is left above 0 with clamp_min"
    )


def _uld(uld):
    p = torch.tensor([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]], dtype=torch.float64)
    q = torch.tensor([[0.1, 0.1, 0.2, 0.6], [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
    expected = np.array([0.1 + 0.0 + 0.0 + 0.1, 0.1 + 0.05 + 0.05 + 0.1])
    found = torch.as_tensor(uld(q, p), dtype=torch.float64)
    if tuple(found.shape) != (2,):
        return f"expected one number a row, shape (2,), got {tuple(found.shape)}"
    if np.allclose(found.numpy(), expected):  # and with the student's the smaller one
        turned = torch.as_tensor(uld(p, q), dtype=torch.float64)
        same = tuple(turned.shape) == (2,) and np.allclose(turned.numpy(), expected)
        return (
            ""
            if same
            else "where the student's vocabulary is the smaller one, pad the student's instead"
        )
    if np.allclose(found.numpy(), [0.1, 0.2]):
        return "the larger vocabulary's last words are left out: pad the smaller one with zeros"
    if np.allclose(found.numpy(), (torch.nn.functional.pad(p, (0, 1)) - q).abs().sum(-1)):
        return "sort both first: the ids of two vocabularies mean different words"
    if np.allclose(found.numpy(), expected / 4):
        return "sum over the vocabulary, don't average"
    return f"expected {np.round(expected, 2).tolist()}, got {np.round(found.numpy(), 2).tolist()}"


EXERCISES = (
    Exercise(
        "11.1",
        _tail,
        (
            "What is kept: (top.exp() · (top − log_q.gather(-1, ids))).sum(-1).",
            (
                "The rest: 1 − Σ exp, for the teacher and for the student; "
                "its term is rest_p · log(rest_p / rest_q)."
            ),
        ),
        """
def attempt(log_q, ids, top):
    mine = log_q.gather(-1, ids)
    kept = (top.exp() * (top - mine)).sum(-1)
    # in float32 a sum of probabilities may end above 1: what is left is never below a tiny number
    rest_p, rest_q = ((1 - part.exp().sum(-1)).clamp_min(1e-6) for part in (top, mine))
    return kept + rest_p * (rest_p / rest_q).log()
""",
        {
            "rest is missing": (
                "def attempt(log_q, ids, top):\n"
                "    return (top.exp() * (top - log_q.gather(-1, ids))).sum(-1)"
            ),
            "don't scale": (
                "def attempt(log_q, ids, top):\n"
                "    top = top.log_softmax(-1)\n"
                "    return (top.exp() * (top - log_q.gather(-1, ids))).sum(-1)"
            ),
            "compare the teacher's": (
                "def attempt(log_q, ids, top):\n"
                "    rest = 1 - top.exp().sum(-1)\n"
                "    return (top.exp() * (top - log_q.gather(-1, ids))).sum(-1) + rest * rest.log()"
            ),
            "clamp_min": (
                "def attempt(log_q, ids, top):\n"
                "    mine = log_q.gather(-1, ids)\n"
                "    kept = (top.exp() * (top - mine)).sum(-1)\n"
                "    p, q = 1 - top.exp().sum(-1), 1 - mine.exp().sum(-1)\n"
                "    return kept + p * (p / q).log()"
            ),
            "one number a row": (
                "def attempt(log_q, ids, top):\n"
                "    return (top.exp() * (top - log_q.gather(-1, ids))).sum()"
            ),
        },
    ),
    Exercise(
        "11.2",
        _uld,
        (
            "torch.sort(…, descending=True).values throws the ids away.",
            "Pad the smaller one with zeros: torch.nn.functional.pad(p, (0, how many)).",
        ),
        """
def attempt(q, p):
    size = max(q.shape[-1], p.shape[-1])
    q, p = (torch.nn.functional.pad(x.sort(-1, descending=True).values, (0, size - x.shape[-1])) \
for x in (q, p))
    return (q - p).abs().sum(-1)
""",
        {
            "smaller one, pad the student's": (
                "def attempt(q, p):\n"
                "    q, p = (x.sort(-1, descending=True).values for x in (q, p))\n"
                "    p = torch.nn.functional.pad(p, (0, q.shape[-1] - p.shape[-1]))\n"
                "    return (q - p).abs().sum(-1)"
            ),
            "sort both": (
                "def attempt(q, p):\n"
                "    p = torch.nn.functional.pad(p, (0, q.shape[-1] - p.shape[-1]))\n"
                "    return (q - p).abs().sum(-1)"
            ),
            "left out": (
                "def attempt(q, p):\n"
                "    q, p = (x.sort(-1, descending=True).values for x in (q, p))\n"
                "    return (q[..., :p.shape[-1]] - p).abs().sum(-1)"
            ),
            "don't average": (
                "def attempt(q, p):\n"
                "    q, p = (x.sort(-1, descending=True).values for x in (q, p))\n"
                "    p = torch.nn.functional.pad(p, (0, q.shape[-1] - p.shape[-1]))\n"
                "    return (q - p).abs().mean(-1)"
            ),
            "one number a row": (
                "def attempt(q, p):\n    return (q.sum(-1) - p.sum(-1)).abs().sum()"
            ),
        },
    ),
)


QUESTIONS = {
    "11.a": Question(
        (
            "With 2,000 questions the labels alone teach about a third of the answers. And with "
            "rationales?"
        ),
        ("no better", "a few points better", "ten points and more"),
        2,
        (
            "The answer as a function of four digits looks random; each step is a table of a "
            "hundred entries."
        ),
    ),
    "11.b": Question(
        "What is the teacher's text worth, as plain text, against as much human text?",
        ("more: it is cleaner", "as much", "less"),
        2,
        "Half a million parameters write with mistakes, and a student believes all of them. So it "
        "was on these four fields; others could not tell.",
    ),
    "11.c": Question(
        "Taught on what the teacher writes from nothing, how does the student do on one field?",
        (
            "about as well as with the field's beginnings",
            "clearly worse, but better than the base student",
            "no better than the base student",
        ),
        0,
        (
            "Sixteen tokens set the tone, but what the student needs first is how docstrings are"
            " written at all."
        ),
    ),
}
