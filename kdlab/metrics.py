"""How good: accuracy, NLL, ECE, agreement, for one model or for many replicas at once."""

import torch

from .divergences import log_softmax


def accuracy(logits, labels):
    """Share of rows whose largest logit is the label: (..., N, C), (..., N) → (...).

    >>> accuracy(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])).item()
    0.5
    """
    return (logits.argmax(-1) == labels).float().mean(-1)


def nll(logits, labels):
    """Mean negative log-likelihood of the labels in nats: (..., N, C), (..., N) → (...).

    >>> round(nll(torch.zeros(1, 4), torch.tensor([0])).item(), 4)
    1.3863
    """
    index = labels.expand(logits.shape[:-1])[..., None]
    return -log_softmax(logits).gather(-1, index)[..., 0].mean(-1)


def ece(logits, labels, bins=15):
    """Expected calibration error in [0, 1]: |confidence − accuracy|, averaged over equal bins of confidence.

        Σ_b (n_b / N) · |acc(b) − conf(b)|

    (..., N, C), (..., N) → (...). Source: Guo, Pleiss, Sun, Weinberger 2017, eq. 5.

    >>> ece(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])).item()
    0.0
    """
    confidence, guess = log_softmax(logits).exp().max(-1)
    gap = confidence - (guess == labels).float()
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bins are (a, b]
    sums = torch.zeros(*gap.shape[:-1], bins, device=gap.device).scatter_add(-1, bin_of, gap)
    return sums.abs().sum(-1) / gap.shape[-1]


def agreement(logits, other):
    """Share of rows on which two models choose the same class: (..., N, C), (..., N, C) → (...).

    >>> agreement(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item()
    1.0
    """
    return (logits.argmax(-1) == other.argmax(-1)).float().mean(-1)


def entropy(logits, temperature=1.0):
    """Mean entropy of softmax(logits / T) in nats: (..., N, C) → (...).

        −Σ_v p(v) log p(v)

    >>> round(entropy(torch.zeros(1, 4)).item(), 4)
    1.3863
    """
    return torch.special.entr(log_softmax(logits, temperature).exp()).sum(-1).mean(-1)  # 0 log 0 is 0


def parameters(model):
    """Number of weights a model learns.

    >>> parameters(torch.nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for p in model.parameters())
