"""The logarithm of a softmax, in float32 or better: where every loss on logits begins."""

import torch
from torch import Tensor

from kdlab.base import arguments
from kdlab.base.arguments import fits

FLOOR = -1e30  # stands for a logit of −inf, so that 0 · log 0 is 0 and its gradient finite
SHORT = (
    64  # classes: up to here torch's kernel for a last axis is slower than that for an inner one
)


def log_softmax(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """log softmax(logits / T) over the last axis, in float32 or better.

    logits: (..., V); temperature: a number or a tensor that broadcasts, for example (R, 1, 1).

    >>> log_softmax(torch.tensor([0.0, 0.0])).exp()
    tensor([0.5000, 0.5000])
    """
    arguments.logits("log_softmax", "logits", logits, "(..., V)")
    if torch.is_tensor(temperature):
        fits("log_softmax", "temperature", temperature, logits.shape)
    else:
        arguments.number("log_softmax", "temperature", temperature, above=0)
    return log_softmax_of(logits, temperature)


def log_softmax_of(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """The same of arguments that were checked before, for the loops' innermost function.

    >>> log_softmax_of(torch.tensor([0.0, 0.0]), 2.0).exp()
    tensor([0.5000, 0.5000])
    """
    logits = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
    if logits.device.type == "cpu" and logits.ndim > 1 and logits.shape[-1] <= SHORT:
        return logits.mT.log_softmax(-2).mT  # ten times faster
    return logits.log_softmax(-1)
