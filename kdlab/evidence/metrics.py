"""How good: accuracy, NLL, ECE, agreement, for one model or for many replicas at once.

Every row counts: where one can't be judged, the mean is NaN, never a number that looks like a
result. That is where a logit is NaN or +inf, where a row is −inf throughout, or where a label is no
class (−100 is none). A single −inf is a class ruled out, and legal. Nothing waits for the device,
so all work under `vmap`.
"""

import torch
from torch import Tensor, nn

from kdlab.base import arguments
from kdlab.losses.divergences import log_softmax


def sound(logits: Tensor) -> Tensor:
    """True where each row's largest logit is a finite number: (..., N, C) → (...).

    NaN beside other logits makes the largest one NaN; argmax alone would name a class all the same.

    >>> sound(torch.tensor([[[1.0, -torch.inf]], [[1.0, torch.nan]]]))
    tensor([ True, False])
    """
    return logits.amax(-1).isfinite().all(-1)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows whose largest logit is the label: (..., N, C), (..., N) → (...).

    NaN where a logit is NaN or +inf, or a label is no class: a diverged model has no accuracy.

    >>> accuracy(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])).item()
    0.5
    >>> accuracy(torch.full((2, 10), torch.nan), torch.tensor([0, 1])).item()
    nan
    """
    _check("accuracy", logits, labels)
    peak, guess = logits.max(-1)
    return _where(peak.isfinite() & _known(logits, labels), guess == labels)


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of the labels in nats: (..., N, C), (..., N) → (...).

    +inf where a label is ruled out by a logit of −inf; NaN where a logit is NaN or +inf, or a label
    is no class.

    >>> round(nll(torch.zeros(1, 4), torch.tensor([0])).item(), 4)
    1.3863
    """
    _check("nll", logits, labels)
    index = labels.long().clamp(0, logits.shape[-1] - 1).expand(logits.shape[:-1])[..., None]
    return _where(_known(logits, labels), -log_softmax(logits).gather(-1, index)[..., 0])


def ece(logits: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    """Expected calibration error in [0, 1]: how far confidence is from accuracy, bin by bin.

        Σ_b (n_b / N) · |acc(b) − conf(b)|

    (..., N, C), (..., N) → (...). NaN where a logit is NaN or +inf, or a label is no class.
    Source: Guo, Pleiss, Sun, Weinberger 2017, eq. 5.

    >>> ece(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])).item()
    0.0
    """
    _check("ece", logits, labels)
    arguments.whole("ece", "bins", bins, least=1)
    gap, bin_of = gaps(logits, labels, bins)
    empty = torch.zeros(*gap.shape[:-1], bins, dtype=gap.dtype, device=gap.device)
    sums = empty.scatter_add(-1, bin_of, gap)
    found = sums.abs().sum(-1) / gap.shape[-1]
    return torch.where((gap.isfinite() & _known(logits, labels)).all(-1), found, torch.nan)


def gaps(logits: Tensor, labels: Tensor, bins: int = 15) -> tuple[Tensor, Tensor]:
    """How sure a row is minus whether it is right, and its bin of confidence: two of (..., N).

    >>> gaps(torch.tensor([[0.0, 0.0], [0.0, 9.0]]), torch.tensor([0, 0]), bins=4)
    (tensor([-0.5000,  0.9999]), tensor([1, 3]))
    """
    confidence, guess = log_softmax(logits).exp().max(-1)
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bins are (a, b]
    return confidence - (guess == labels).float(), bin_of


def agreement(logits: Tensor, other: Tensor) -> Tensor:
    """Share of rows on which two models choose the same class: (..., N, C), (..., N, C) → (...).

    NaN where a logit of either is NaN or +inf.

    >>> agreement(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])).item()
    1.0
    """
    arguments.logits("agreement", "logits", logits, "(..., N, C)")
    arguments.logits("agreement", "other", other, "(..., N, C)")
    a, b = logits.shape, other.shape
    if a[-1] != b[-1] or not (arguments.broadcasts(a, b) or arguments.broadcasts(b, a)):
        raise ValueError(
            f"agreement: other must hold the same rows and classes as logits {tuple(a)}, "
            f"got the shape {tuple(b)}"
        )
    (peak, guess), (peak_of_other, guess_of_other) = logits.max(-1), other.max(-1)
    return _where(peak.isfinite() & peak_of_other.isfinite(), guess == guess_of_other)


def entropy(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Mean entropy of softmax(logits / T) in nats: (..., N, C) → (...).

        −Σ_v p(v) log p(v)

    NaN where a logit is NaN or +inf. temperature: a number above 0, or a tensor that broadcasts.

    >>> round(entropy(torch.zeros(1, 4)).item(), 4)
    1.3863
    """
    arguments.logits("entropy", "logits", logits, "(..., N, C)")
    if not torch.is_tensor(temperature):
        arguments.number("entropy", "temperature", temperature, above=0)
    elif not arguments.broadcasts(temperature.shape, logits.shape):
        raise ValueError(
            f"entropy: temperature must broadcast to logits {tuple(logits.shape)}, "
            f"got the shape {tuple(temperature.shape)}"
        )
    # 0 log 0 is 0
    return torch.special.entr(log_softmax(logits, temperature).exp()).sum(-1).mean(-1)


def parameters(model: nn.Module) -> int:
    """Number of weights a model learns.

    >>> parameters(torch.nn.Linear(3, 2))
    8
    """
    arguments.instance("parameters", "model", model, torch.nn.Module, "an nn.Module")
    return sum(p.numel() for p in model.parameters())


def _check(name, logits, labels):
    arguments.logits(name, "logits", logits, "(..., N, C)")
    arguments.labels(name, "labels", labels, logits.shape[:-1])


def _known(logits, labels):
    """Which labels are classes."""
    return (labels >= 0) & (labels < logits.shape[-1])


def _where(judged, rows):
    """The mean over rows (..., N) → (...), NaN where one of them can't be judged."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return torch.where(judged, rows, torch.nan).mean(-1)
