"""Many students as one model: their weights stacked, each with its own data order and dropout."""

import contextlib
import copy
import math

import torch
from torch import nn
from torch.func import functional_call, vmap

from kdlab.losses.hidden import Tapped
from kdlab.students.builders import Dropout
from kdlab.training import backprop


class Replicas:
    """R models of one architecture with stacked weights, run by one `vmap`.

    `parameters`: {name: (R, *shape)}; of what `backprop` knows they are on a CPU parts of one
    `block` (R, P), which an optimiser moves at once.

    modules: R nn.Modules of the same shapes. seeds: R integers; replica r draws its data order and
    dropout masks from its own generators, so that it equals the same model trained alone with that
    seed. Raises ValueError for shapes that differ, tied weights (`vmap` would untie them silently)
    and torch's own dropout (its masks come from one shared generator: use
    kdlab.students.builders.Dropout).

    >>> stack = Replicas([nn.Linear(3, 2), nn.Linear(3, 2)], seeds=[0, 1])
    >>> stack.forward(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 2])
    """

    def __init__(self, modules, seeds):
        _check_modules(modules)
        first = modules[0]
        self.base = copy.deepcopy(first)
        named = [dict(m.named_parameters()) for m in modules]
        self.parameters = {k: torch.stack([p[k].detach() for p in named]) for k in named[0]}
        self.block = None
        kinds = {(p.dtype, p.device.type) for p in self.parameters.values()}
        if backprop.layers(first) and len(kinds) == 1 and next(iter(kinds))[1] == "cpu":
            self.block, self.parameters = backprop.in_one_block(self.parameters)
        named = [dict(m.named_buffers()) for m in modules]
        self.buffers = {k: torch.stack([b[k].detach() for b in named]) for k in named[0]}
        self.dropouts = [name for name, m in first.named_modules() if isinstance(m, Dropout)]
        self.noise_shapes = None
        self.seeds = list(seeds)
        self.device = next(iter(self.parameters.values())).device
        self.orders = [torch.Generator().manual_seed(s) for s in seeds]
        self.masks = (
            [torch.Generator(self.device).manual_seed(s) for s in seeds] if self.dropouts else []
        )

    def __len__(self):
        return len(self.seeds)

    def forward(self, x, parameters=None):
        """x (R, B, ...) → logits (R, B, C), or all that `base` returns, in its mode."""

        def one(parameters, buffers, x):
            return functional_call(self.base, (parameters, buffers), (x,))

        buffers = self.buffers
        if self.base.training:
            buffers = buffers | self.noise(x)
        return vmap(one)(parameters or self.parameters, buffers, x)

    def noise(self, x):
        """Uniform numbers for each dropout layer, from each replica's generator; {} without."""
        if not self.dropouts:
            return {}
        # one pass of one replica tells the shape of each dropout's input
        if self.noise_shapes is None:
            # in train mode it would draw from the shared generator
            probe = copy.deepcopy(self.base).eval()
            with torch.no_grad():
                probe(x[0])
            self.noise_shapes = {
                name: probe.get_submodule(name).shape[1:] for name in self.dropouts
            }
        return {
            f"{name}.noise": torch.stack(
                [torch.rand(x.shape[1], *shape, generator=g, device=x.device) for g in self.masks]
            )
            for name, shape in self.noise_shapes.items()
        }

    @torch.no_grad()
    def evaluate(self, x, batch=4096, parameters=None):
        """Logits in eval mode, x (R, N, ...) → (R, N, C); afterwards back in train mode."""
        self.base.eval()
        try:
            return torch.cat(
                [self.forward(part, parameters) for part in x.split(batch, dim=1)], dim=1
            )
        finally:
            self.base.train()

    def module(self, r):
        """Replica r as an nn.Module with weights of its own, in eval mode; a `Tapped` one bare.

        >>> Replicas([nn.Linear(3, 2)], seeds=[0]).module(0)
        Linear(in_features=3, out_features=2, bias=True)
        """
        state = {k: v[r].clone() for k, v in (self.parameters | self.buffers).items()}
        module = copy.deepcopy(self.base).eval()
        module.load_state_dict({k: v for k, v in state.items() if k in module.state_dict()})
        return module.student if isinstance(module, Tapped) else module

    def snapshot(self):
        """The students as they are now, for `module` alone: their training goes on without it.

        >>> stack = Replicas([nn.Linear(3, 2)], seeds=[0])
        >>> kept = stack.snapshot()
        >>> _ = stack.parameters["bias"].fill_(5.0)
        >>> kept.module(0).bias.max().item() < 5
        True
        """
        kept = copy.copy(self)
        kept.block = None
        kept.parameters, kept.buffers = (
            {k: v.clone() for k, v in own.items()} for own in (self.parameters, self.buffers)
        )
        return kept

    def orders_of_epoch(self, rows):
        """A fresh permutation of `rows` row numbers for each replica, (R, rows)."""
        return torch.stack([torch.randperm(rows, generator=g) for g in self.orders]).to(self.device)


def _check_modules(modules):
    """The errors for what `vmap` would stack wrongly, and silently."""
    first = modules[0]
    shapes = [{name: p.shape for name, p in m.named_parameters()} for m in modules]
    for other in shapes:
        if other != shapes[0]:
            raise ValueError(
                "Replicas: modules must have parameters of the same names and shapes, "
                f"got {_words(shapes[0])} and {_words(other)}"
            )
    tied = {name for name, _ in first.named_parameters(remove_duplicate=False)} - set(shapes[0])
    if tied:
        raise ValueError(
            "Replicas: modules must not tie weights, "
            f"got {sorted(tied)} tied to another parameter; give each layer its own"
        )
    stock = [
        name for name, m in first.named_modules() if isinstance(m, nn.modules.dropout._DropoutNd)
    ]
    if stock:
        raise ValueError(
            f"Replicas: module {stock[0]!r} is torch's dropout; "
            "use kdlab.students.builders.Dropout instead"
        )


def _words(shapes):
    return {name: tuple(shape) for name, shape in shapes.items()}


def small(module):
    """Whether its matrices are too small to be worth a second thread.

    >>> small(nn.Linear(64, 64)), small(nn.Linear(784, 800))
    (True, False)
    """
    return sum(p.numel() for p in module.parameters()) < 100_000


@contextlib.contextmanager
def threads_for(replicas, pixels=math.inf):
    """On a CPU, one thread for small replicas: waking a second costs more than it saves.

    pixels: the numbers of one input; a convolution has work for two threads on large ones alone."""
    before = torch.get_num_threads()
    single = len(replicas) == 1 and pixels <= backprop.SMALL_IMAGE
    short = single or backprop.layers(replicas.base, pixels)
    alone = replicas.device.type == "cpu" and small(replicas.base) and short
    torch.set_num_threads(1 if alone else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
