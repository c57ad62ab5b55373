"""Models inside others: LoRA and other adapters, `torch.compile`, data parallelism, a user's own.

A wrapper's `forward(*args, **kwargs)` names nothing; what the model takes stands further in.
"""

import inspect
from contextlib import contextmanager

import torch


def inside(model):
    """The one model of `transformers` that wrappers stand around, or else the model itself.

    >>> from transformers import BertConfig, BertModel
    >>> bert = BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    >>> inside(torch.nn.DataParallel(torch.compile(bert))) is bert
    True
    """
    from transformers import PreTrainedModel

    found, level = [], [model]
    while level and not found:
        found = [m for m in level if isinstance(m, PreTrainedModel)]
        level = [child for m in level if _hides(m) for child in m.children()]
    return found[0] if len(found) == 1 else model


def takes(model):
    """The names that a model's forward takes, also through wrappers: a set, or None if unreadable.

    Of a forward with `**kwargs` these are its own names and those of the modules within that the
    rest goes to.

    >>> sorted(takes(torch.nn.Linear(2, 2)))
    ['input']
    >>> takes(torch.nn.DataParallel(torch.nn.Linear(2, 2))) is None
    True
    """
    from transformers import PreTrainedModel

    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    parameters = inspect.signature(model.forward).parameters.values()
    own = {p.name for p in parameters if p.kind not in kinds}
    if isinstance(model, PreTrainedModel) or not _hides(model):
        return own
    within = [takes(m) for m in model.children() if isinstance(m, PreTrainedModel) or _hides(m)]
    within = [names for names in within if names is not None]
    return own.union(*within) if within else None


def _hides(model):
    """True where forward takes any name, `**kwargs`."""
    parameters = inspect.signature(model.forward).parameters.values()
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def compiled(model):
    """True where `torch.compile` runs the model or a part: hooks set later are not seen there.

    >>> compiled(torch.compile(torch.nn.Linear(2, 2))), compiled(torch.nn.Linear(2, 2))
    (True, False)
    """
    return any(
        "_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules()
    )


@contextmanager
def evaluating(model):
    """Eval mode and no gradients inside; every module's own mode is put back, also after an error.

    >>> layer = torch.nn.Dropout()
    >>> with evaluating(layer):
    ...     layer.training
    False
    >>> layer.training
    True
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
