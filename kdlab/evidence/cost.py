"""What a model costs to keep and to ask: size, FLOPs, time, memory, money."""

import contextlib
import statistics
import time
import weakref
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kdlab.base.arguments import instance, number, rows_of, whole
from kdlab.base.wrapped import evaluating

HOUR, MILLION, NAN = 3600, 1_000_000, float("nan")


def costs(
    models: Mapping[str, Any],
    x: Any,
    calls: int = 100,
    warm_up: int = 10,
    price: float | None = None,
) -> pd.DataFrame:
    """What each model costs, on this machine and these inputs → a table, a row a model.

    models: {name: an nn.Module, or any function of x, such as an exported model's}. x: inputs
    (N, …), or a tokenizer's dictionary of them; the first row is asked alone, all N together.
    calls: how often each is timed, after warm_up calls that are not. The models take turns, so that
    what else the machine does slows all alike. price: dollars an hour for this machine.

        parameters    how many numbers are learnt or kept as weights
        on_disk       bytes as safetensors, tied weights once
        resident      bytes of weights and buffers in memory
        flops         for one row: a multiplication and an addition are two; what is masked counts;
                      NaN where weights are quantised, whose products are none of floats
        latency_ms    of one row alone, the median; latency_95_ms: of 95 in 100 calls
        rows_a_second with all N together
        peak          bytes in use while N rows are answered, weights and inputs included, other
                      models not; on a CPU without what a kernel takes inside
        dollars       a million rows at that price, N asked together, never idle
        where         the device, and a CPU's threads

    A function has no weights to look at: its numbers from parameters to flops, and the peak on a
    CPU, are NaN, but for the size of a file (`OnnxModel`). On a GPU times come from its own events.
    Raises TypeError or ValueError for other arguments.

    >>> net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    >>> found = costs({"net": net}, torch.zeros(8, 64), calls=5)
    >>> found.loc["net", ["parameters", "flops", "resident"]].astype(int).tolist()
    [2410, 4736, 9640]
    """
    instance("costs", "models", models, Mapping, "a dictionary {name: model}")
    for name, model in models.items():
        if not callable(model):
            raise TypeError(f"costs: models[{name!r}] must be a model or a function, got {model!r}")
    count = rows_of("costs", "x", x)
    whole("costs", "calls", calls, least=1)
    whole("costs", "warm_up", warm_up)
    if price is not None:
        number("costs", "price", price, low=0)
    own = {name: _on(x, device_of(model)) for name, model in models.items()}
    for name, model in models.items():
        _try(name, model, _take(own[name], 1))
    rows = {name: _of_weights(model, own[name]) for name, model in models.items()}
    with contextlib.ExitStack() as modes:
        modes.enter_context(torch.no_grad())
        for model in models.values():
            if isinstance(model, nn.Module):
                modes.enter_context(evaluating(model))
        one = {name: _take(own[name], 1) for name in models}
        alone = _timed(models, one, calls, warm_up)
        several = _timed(models, own, max(1, calls // 10), max(1, warm_up // 10))
        for name, model in models.items():
            seconds = statistics.median(several[name])
            rows[name] |= {
                "latency_ms": 1000 * statistics.median(alone[name]),
                "latency_95_ms": 1000 * _quantile(alone[name], 0.95),
                "rows_a_second": count / seconds,
                "peak": peak(model, own[name]),
                "dollars": (NAN if price is None else price) / HOUR * MILLION * seconds / count,
                "where": _where(device_of(model)),
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def flops(model: nn.Module, x: Any) -> int:
    """Floating-point operations of one answer to all of x, as torch counts them.

    A multiplication and an addition are two. Attention counts whole, masked or not, as it is where
    no kernel skips the half that a causal mask hides.

    >>> flops(nn.Linear(64, 32), torch.zeros(1, 64))
    4096
    """
    instance("flops", "model", model, nn.Module, "a model")
    # fused attention has no count on a CPU, and another elsewhere
    with FlopCounterMode(display=False) as counter, evaluating(model), sdpa_kernel(SDPBackend.MATH):
        _ask(model, _on(x, device_of(model)))
    return counter.get_total_flops()


def bytes_on_disk(model: nn.Module) -> int:
    """The size of a model's weights as a file of safetensors, those that are tied once.

    Quantised weights (of torchao) count as what they are made of.

    >>> bytes_on_disk(nn.Linear(10, 10)) - 4 * 110 < 200
    True
    """
    from safetensors.torch import save

    instance("bytes_on_disk", "model", model, nn.Module, "a model")
    parts = {
        (part.data_ptr(), part.shape, part.dtype): (f"{name}.{i}", part)
        for name, value in model.state_dict().items()
        for i, part in enumerate(_plain(value))
    }
    return len(save({name: part.detach().cpu().contiguous() for name, part in parts.values()}))


def bytes_resident(model: nn.Module) -> int:
    """The memory of a model's weights and buffers, those that are shared once.

    >>> layer = nn.Linear(10, 10)
    >>> bytes_resident(nn.Sequential(layer, layer))
    440
    """
    instance("bytes_resident", "model", model, nn.Module, "a model")
    held = (part for t in [*model.parameters(), *model.buffers()] for part in _plain(t))
    stores = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in held}
    return sum(stores.values())


def _plain(tensor):
    """The tensors that one is made of: itself, or of a quantised one its numbers and scales."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in _plain(getattr(tensor, name))]


def _of_weights(model, x):
    if not isinstance(model, nn.Module):
        unknown = dict.fromkeys(("parameters", "on_disk", "resident", "flops"), NAN)
        return unknown | {"on_disk": getattr(model, "nbytes", NAN)}
    quantised = any(_plain(t)[0] is not t for t in [*model.parameters(), *model.buffers()])
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "on_disk": bytes_on_disk(model),
        "resident": bytes_resident(model),
        "flops": NAN if quantised else flops(model, _take(x, 1)),
    }


# --- inputs ---


def _try(name, model, x):
    """The error that says that a model can't be asked this at all."""
    context = evaluating(model) if isinstance(model, nn.Module) else torch.no_grad()
    try:
        with context:
            _ask(model, x)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ValueError(f"costs: x must be what {name!r} takes, but it says: {error}") from error


def _take(x, count):
    return {k: v[:count] for k, v in x.items()} if isinstance(x, Mapping) else x[:count]


def _on(x, device):
    return {k: v.to(device) for k, v in x.items()} if isinstance(x, Mapping) else x.to(device)


def device_of(model: Any) -> torch.device:
    """Where a model's weights lie; the CPU for a function."""
    if isinstance(model, nn.Module):
        for tensor in [*model.parameters(), *model.buffers()]:
            return tensor.device
    return torch.device("cpu")


def _ask(model, x):
    return model(**x) if isinstance(x, Mapping) else model(x)


# --- measures ---


def _timed(models, x, calls, warm_up):
    """{name: seconds of each call}, the models in turn."""
    found: dict = {name: [] for name in models}
    for call in range(warm_up + calls):
        for name, model in models.items():
            seconds = _seconds(model, x[name])
            if call >= warm_up:
                found[name].append(seconds)
    return found


def _seconds(model, x):
    if device_of(model).type != "cuda":
        began = time.perf_counter()
        _ask(model, x)
        return time.perf_counter() - began
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    _ask(model, x)
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1000


def _quantile(seconds, share):
    return float(torch.tensor(seconds, dtype=torch.double).quantile(share))


def peak(model: Any, x: Any) -> float:
    """Bytes in use at most while a model answers: its weights, its inputs and what it makes.

    What else lies on the device, such as the other models of the table, does not count.
    """
    device = device_of(model)
    if not isinstance(model, nn.Module):
        return NAN
    inputs = sum(part.nbytes for part in (x.values() if isinstance(x, Mapping) else [x]))
    made = _made_on_gpu if device.type == "cuda" else _made_on_cpu
    return bytes_resident(model) + inputs + made(model, x, device)


def _made_on_gpu(model, x, device):
    """What the allocator held at most beyond what it held before, weights and inputs included."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _ask(model, x)
    return torch.cuda.max_memory_allocated(device) - before


def _made_on_cpu(model, x, device):
    with Live() as live:
        _ask(model, x)
    return live.most


class Live(TorchDispatchMode):
    """The bytes that operations inside have handed out and that are still held, at most."""

    def __init__(self):
        super().__init__()
        self.now, self.most, self.known = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {part.untyped_storage()._cdata for part in _leaves((args, kwargs))}
        found = func(*args, **(kwargs or {}))
        for part in _leaves(found):
            storage = part.untyped_storage()
            if storage._cdata not in self.known | given:  # a view, or written in place
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return found

    def _freed(self, key, size):
        self.known.discard(key)
        self.now -= size


def _leaves(found):
    """The plain tensors in whatever an operation takes or gives."""
    tensors = (leaf for leaf in tree_leaves(found) if torch.is_tensor(leaf))
    return [part for tensor in tensors for part in _plain(tensor)]


def _where(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type.upper()}, {threads} thread{'s' if threads > 1 else ''}"
