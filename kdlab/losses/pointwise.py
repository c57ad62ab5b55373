"""F.kl_div written out for `vmap`, which has no rule for torch's."""

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class PointwiseKL(TorchFunctionMode):
    """Inside, F.kl_div is written out: torch's has no rule for `vmap`, which then loops over it.

    `called` says whether it was called.

    >>> log_q, p = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]])
    >>> with PointwiseKL():
    ...     print(round(F.kl_div(log_q, p, reduction="sum").item(), 4))
    0.6931
    """

    def __init__(self):
        super().__init__()
        self.called = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.called |= func is F.kl_div
        return (_kl_div if func is F.kl_div else func)(*args, **(kwargs or {}))


def _kl_div(input, target, size_average=None, reduce=None, reduction="mean", log_target=False):
    """torch.nn.functional.kl_div in operations that `vmap` knows; what is rare is left to it."""
    ends = {
        "none": lambda rows: rows,
        "sum": torch.sum,
        "mean": torch.mean,
        "batchmean": lambda rows: rows.sum() / len(input),
    }
    if reduction not in ends or size_average is not None or reduce is not None:
        return F.kl_div(input, target, size_average, reduce, reduction, log_target)
    if log_target:
        return ends[reduction](target.exp() * (target - input))
    return ends[reduction](torch.xlogy(target, target) - target * input)
