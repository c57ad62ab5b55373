"""Who learns: builders of small models. A builder is any function task → nn.Module.

A builder, not a model, is what `train` and `distill` take: each replica is built afresh from its own seed.
"""

import math
from pathlib import Path, PurePath

import torch
from torch import nn

from .arguments import number, text, whole
from .lab import course_files, device, hub_reachable, locate

CONFIGS = ("config.json", "adapter_config.json")  # a model's own, or that of an adapter on another


class Dropout(nn.Module):
    """Dropout whose randomness can be handed in, so that each replica draws from its own generator.

    x: (B, ...) → the same shape; in training each value is zeroed with probability p and the rest scaled by
    1 / (1 − p). `noise`, set by `replicas.py`, holds uniform numbers of x's shape; empty, it is drawn here.
    Source: Srivastava et al. 2014.

    >>> Dropout(0.5).eval()(torch.ones(1, 3))
    tensor([[1., 1., 1.]])
    """

    def __init__(self, p=0.5):
        super().__init__()
        self.p = number("Dropout", "p", p, low=0, below=1)
        self.register_buffer("noise", torch.empty(0), persistent=False)

    def forward(self, x):
        self.shape = tuple(x.shape)  # replicas.py reads the shape once to know what to draw
        if not self.training:
            return x
        noise = self.noise if self.noise.numel() else torch.rand_like(x)
        return torch.where(noise < self.p, 0.0, x / (1 - self.p))


def mlp(*hidden, dropout=0.0):
    """A multi-layer perceptron: flatten, then `hidden` ReLU layers, then one logit a class.

    Built for a task, it maps x (B, ...) → logits (B, C). `mlp()` without widths is a linear classifier.

    >>> from kdlab.tasks import load
    >>> mlp(64)(load("digits"))
    Sequential(
      (0): Flatten(start_dim=1, end_dim=-1)
      (1): Linear(in_features=64, out_features=64, bias=True)
      (2): ReLU()
      (3): Linear(in_features=64, out_features=10, bias=True)
    )
    """
    hidden = [whole("mlp", "hidden", width, least=1) for width in hidden]
    number("mlp", "dropout", dropout, low=0, below=1)

    def build(task):
        widths = [math.prod(task.shape), *hidden]
        layers = [nn.Flatten(1)]
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(a, b), nn.ReLU()] + ([Dropout(dropout)] if dropout else [])
        return nn.Sequential(*layers, nn.Linear(widths[-1], len(task.classes)))

    build.__name__ = "mlp " + "-".join(map(str, hidden)) + (f" dropout {dropout}" if dropout else "")
    return build


def convnet(*channels, dropout=0.0):
    """A small convolutional network: 3×3 convolutions with ReLU, the image halved after each but the first.

    Built for a task, it maps x (B, c, height, width) → logits (B, C). dropout: on the last hidden layer.

    >>> from kdlab.tasks import load
    >>> convnet(8, 16)(load("digits"))(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    if not channels:
        raise ValueError("convnet: channels must be whole numbers of at least 1, got none")
    channels = [whole("convnet", "channels", c, least=1) for c in channels]
    number("convnet", "dropout", dropout, low=0, below=1)

    def build(task):
        depth, height, width = task.shape
        layers, before = [], depth
        for i, c in enumerate(channels):
            stride = 1 if i == 0 else 2
            height, width = math.ceil(height / stride), math.ceil(width / stride)
            layers += [nn.Conv2d(before, c, 3, stride=stride, padding=1), nn.ReLU()]
            before = c
        layers += [nn.Flatten(1)] + ([Dropout(dropout)] if dropout else [])
        return nn.Sequential(*layers, nn.Linear(before * height * width, len(task.classes)))

    build.__name__ = "convnet " + "-".join(map(str, channels)) + (f" dropout {dropout}" if dropout else "")
    return build


def language_model(name, dtype=None):
    """A causal language model and its tokenizer by directory or hub id: (model in eval mode, tokenizer).

    dtype: of its weights, such as torch.float32 for a student that is to be trained; None keeps
    the checkpoint's own.

    Looks, in order, for a directory `name`, KDLAB_MODELS/`name`, a model of that name in data/teachers, the local hub
    cache and the hub. Weights load as safetensors only, and no code that comes with a model is run. Raises
    FileNotFoundError where nothing is found, listing every place tried, and where a directory or
    the hub has no such model; TypeError or ValueError for what is no name and no dtype.

    >>> language_model("no/such-model")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    FileNotFoundError: language_model: can't find the model 'no/such-model'. Looked at: ...
    """
    return _pretrained("language_model", name, "AutoModelForCausalLM", dtype=dtype)


def text_classifier(name, **options):
    """A sequence classifier and its tokenizer, as `language_model`; options go to from_pretrained
    (num_labels, dtype, …).

    >>> model, tokenizer = text_classifier("docs_bert")
    >>> len(model.config.id2label)
    8
    """
    return _pretrained("text_classifier", name, "AutoModelForSequenceClassification", **options)


def _pretrained(caller, name, kind, dtype=None, **options):
    name = text(caller, "name", str(name) if isinstance(name, PurePath) else name)
    options |= {} if dtype is None else {"dtype": _float_dtype(caller, dtype)}
    where, tried = locate(name, "KDLAB_MODELS")
    own = course_files() / "data" / "teachers" / name
    if not isinstance(where, Path) and own.is_dir():  # comes with the course
        where = own
    if where is None and not hub_reachable():
        places = "; ".join([*tried[:-1], "the course's data/teachers", tried[-1]])
        raise FileNotFoundError(
            f"{caller}: can't find the model {name!r}. Looked at: {places}; the hub (not reachable). "
            "Set KDLAB_MODELS to a directory that holds it, or connect once; name must be a "
            "directory or a hub id.")
    if isinstance(where, Path) and not any((where / f).is_file() for f in CONFIGS):
        raise FileNotFoundError(f"{caller}: name must be a model, with a {' or '.join(CONFIGS)}, "
                                f"got the directory {str(where)!r} without one")
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    place = str(where or name)
    loader = getattr(transformers, kind)
    try:
        model = loader.from_pretrained(
            place, use_safetensors=True, trust_remote_code=False, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except OSError as error:  # no such id on the hub, or files that are missing
        raise FileNotFoundError(f"{caller}: name must be a model with safetensors and a tokenizer, "
                                f"got {name!r}: {error}") from error
    return model.eval().to(device()), tokenizer


def _float_dtype(caller, dtype):
    """The dtype as transformers takes it; "float32" and "auto" are taken too."""
    if isinstance(dtype, str) and dtype == "auto":
        return dtype
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"{caller}: dtype must be a floating-point dtype such as torch.float32, or "
                         f"None, got {dtype!r}")
    return found
