"""Exercises of lesson 09: between the two KLs, a completion's labels, the bytes of logits."""

import numpy as np
import torch

from kdlab.lessons.exercises import Exercise, Question


def _jsd(jsd):
    draw = torch.Generator().manual_seed(0)
    log_q, log_p = (
        torch.randn(3, 4, 6, dtype=torch.float64, generator=draw).log_softmax(-1) for _ in range(2)
    )

    def reference(q, p, beta):
        m = beta * p + (1 - beta) * q
        return beta * (p * np.log(p / m)).sum(-1) + (1 - beta) * (q * np.log(q / m)).sum(-1)

    q, p = log_q.exp().numpy(), log_p.exp().numpy()
    for beta in (0.5, 0.1):
        found = torch.as_tensor(jsd(log_q, log_p, beta))
        if tuple(found.shape) != (3, 4):
            return (
                "expected one number a row, shape (3, 4), "
                f"got {tuple(found.shape)}; sum over the last axis alone"
            )
        if np.allclose(found.numpy(), reference(q, p, beta)):
            continue
        if np.allclose(found.numpy(), reference(p, q, beta)):
            return "beta weights the teacher: m = beta·p + (1 − beta)·q, with p the teacher"
        if np.allclose(found.numpy(), reference(q, p, 0.5)):
            return f"with beta = {beta} it is still the divergence for 0.5"
        log_m = beta * log_p + (1 - beta) * log_q
        wrong = beta * (p * (log_p - log_m).numpy()).sum(-1) + (1 - beta) * (
            q * (log_q - log_m).numpy()
        ).sum(-1)
        if np.allclose(found.numpy(), wrong):
            return "this mixes log-probabilities; mix the probabilities, then take the logarithm"
        return (
            f"for beta = {beta} expected {reference(q, p, beta)[0, 0]:.4f} in the first row, "
            f"got {found[0, 0]:.4f}"
        )
    return ""


def _labels(labels_of):
    cases = [
        ([5, 6, 7, 8, 2, 2, 2], 3, [-100, -100, -100, 8, 2, -100, -100]),
        ([5, 2, 7, 8, 9], 3, [-100, -100, -100, 8, 9]),
        ([5, 6, 2, 2], 2, [-100, -100, 2, -100]),
    ]
    for ids, length, expected in cases:
        found = torch.as_tensor(labels_of(torch.tensor(ids), length, 2)).tolist()
        told = f"prompt of {length}, end-of-text 2, ids {ids}"
        if found == expected:
            continue
        if found[:length] != expected[:length]:
            return f"the prompt is not to be learnt: its labels are −100 ({told})"
        if 2 in ids[length:] and found[ids.index(2, length)] == -100:
            return f"the first end-of-text token was written by the student and counts ({told})"
        return (
            "what stands behind the first end-of-text is padding: −100 "
            f"({told}; expected {expected}, got {found})"
        )
    return ""


def _bytes(logit_bytes):
    found = logit_bytes(2, 3, 5)
    if found == 120:
        return ""
    return {
        30: "these are the numbers; a float32 takes 4 bytes",
        60: "a float32 takes 4 bytes, not 2",
        240: "a float32 takes 4 bytes, not 8",
    }.get(found, f"2 texts, 3 tokens, 5 words: expected 120, got {found}")


EXERCISES = (
    Exercise(
        "09.1",
        _jsd,
        (
            (
                "m = beta · p + (1 − beta) · q; its logarithm without underflow: "
                "torch.logaddexp of the logs, each plus log beta or log(1 − beta)."
            ),
            "KL(p‖m) = (log_p.exp() · (log_p − log_m)).sum(-1).",
        ),
        """
def attempt(log_q, log_p, beta=0.5):
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return beta * (log_p.exp() * (log_p - log_m)).sum(-1) + \
(1 - beta) * (log_q.exp() * (log_q - log_m)).sum(-1)
""",
        {
            "weights the teacher": (
                "def attempt(log_q, log_p, beta=0.5):\n"
                "    p, q = log_p.exp(), log_q.exp()\n"
                "    m = ((1 - beta) * p + beta * q).log()\n"
                "    return (1 - beta) * (p * (log_p - m)).sum(-1) "
                "+ beta * (q * (log_q - m)).sum(-1)"
            ),
            "log-probabilities": (
                "def attempt(log_q, log_p, beta=0.5):\n"
                "    p, q = log_p.exp(), log_q.exp()\n"
                "    m = beta * log_p + (1 - beta) * log_q\n"
                "    return beta * (p * (log_p - m)).sum(-1) "
                "+ (1 - beta) * (q * (log_q - m)).sum(-1)"
            ),
            "still the divergence": (
                "def attempt(log_q, log_p, beta=0.5):\n"
                "    p, q = log_p.exp(), log_q.exp()\n"
                "    m = ((p + q) / 2).log()\n"
                "    return ((p * (log_p - m)).sum(-1) + (q * (log_q - m)).sum(-1)) / 2"
            ),
            "one number a row": "def attempt(log_q, log_p, beta=0.5):\n    return log_q.sum()",
        },
    ),
    Exercise(
        "09.2",
        _labels,
        (
            "Start from ids.clone() and set the first prompt_length labels to −100.",
            "Find the first end-of-text behind the prompt; everything after it is −100.",
        ),
        """
def attempt(ids, prompt_length, eos):
    labels = ids.clone()
    labels[:prompt_length] = -100
    ends = (ids[prompt_length:] == eos).nonzero()
    if len(ends):
        labels[prompt_length + int(ends[0]) + 1:] = -100
    return labels
""",
        {
            "not to be learnt": "def attempt(ids, prompt_length, eos):\n    return ids.clone()",
            "counts": (
                "def attempt(ids, prompt_length, eos):\n"
                "    labels = ids.clone()\n"
                "    labels[:prompt_length] = -100\n"
                "    labels[ids == eos] = -100\n"
                "    return labels"
            ),
            "is padding": (
                "def attempt(ids, prompt_length, eos):\n"
                "    labels = ids.clone()\n"
                "    labels[:prompt_length] = -100\n"
                "    return labels"
            ),
        },
    ),
    Exercise(
        "09.3",
        _bytes,
        (
            "A number for every text, every token and every word of the vocabulary.",
            "A float32 takes 4 bytes.",
        ),
        """
def attempt(batch, length, vocabulary):
    return 4 * batch * length * vocabulary
""",
        {
            "4 bytes": (
                "def attempt(batch, length, vocabulary):\n    return batch * length * vocabulary"
            ),
            "not 2": (
                "def attempt(batch, length, vocabulary):\n"
                "    return 2 * batch * length * vocabulary"
            ),
            "expected 120": (
                "def attempt(batch, length, vocabulary):\n    return 4 * batch * vocabulary"
            ),
        },
    ),
)


QUESTIONS = {
    "09.a": Question(
        "Trained by the forward KL, where does a student with one bell put its peak?",
        ("on the taller peak", "on the nearer peak", "between the peaks", "anywhere"),
        2,
        (
            "Missing a peak costs much, and standing where the teacher puts nothing costs "
            "little: it covers both."
        ),
    ),
    "09.b": Question(
        "Which divergence teaches this student best, by its loss on unread docstrings?",
        ("reverse KL", "JSD", "forward KL", "none: the labels alone do as well"),
        2,
        (
            "Loss on unread text is itself a forward KL, from the text to the student: it "
            "punishes each word left out."
        ),
    ),
    "09.c": Question(
        (
            "The forward-KL student takes 30 steps more by the forward KL, on its own text or on"
            " the field's. After its own, its writing is"
        ),
        ("likelier to the teacher", "less likely", "the same"),
        1,
        (
            "The lesson can only guess why: perhaps, after each odd word of its own, it is told "
            "to cover all that could follow."
        ),
    ),
}
