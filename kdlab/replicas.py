"""Many students as one model: R copies of an architecture in one stack of weights, trained step by step."""

import contextlib
import copy
import itertools
import math

import torch
from torch import nn
from torch.func import functional_call, vmap

from . import backprop
from .hidden import Tapped
from .models import Dropout

OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class Replicas:
    """R models of one architecture with stacked weights, `parameters` {name: (R, *shape)}, run by one `vmap`.

    modules: R nn.Modules of the same shapes. seeds: R integers; replica r draws its data order and dropout
    masks from its own generators, so that it equals the same model trained alone with that seed.
    Raises ValueError for shapes that differ, tied weights (`vmap` would untie them silently) and torch's own
    dropout (its masks come from one shared generator: use kdlab.models.Dropout).

    >>> stack = Replicas([nn.Linear(3, 2), nn.Linear(3, 2)], seeds=[0, 1])
    >>> stack.forward(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 5, 2])
    """

    def __init__(self, modules, seeds):
        first = modules[0]
        shapes = [{name: p.shape for name, p in m.named_parameters()} for m in modules]
        for other in shapes:
            if other != shapes[0]:
                raise ValueError(f"Replicas: modules must have parameters of the same names and shapes, "
                                 f"got {_words(shapes[0])} and {_words(other)}")
        tied = {name for name, _ in first.named_parameters(remove_duplicate=False)} - set(shapes[0])
        if tied:
            raise ValueError(f"Replicas: modules must not tie weights, got {sorted(tied)} tied to another "
                             "parameter; give each layer its own")
        stock = [name for name, m in first.named_modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
        if stock:
            raise ValueError(f"Replicas: module {stock[0]!r} is torch's dropout; use kdlab.models.Dropout instead")
        self.base = copy.deepcopy(first)
        named = [dict(m.named_parameters()) for m in modules]
        self.parameters = {k: torch.stack([p[k].detach() for p in named]) for k in named[0]}
        named = [dict(m.named_buffers()) for m in modules]
        self.buffers = {k: torch.stack([b[k].detach() for b in named]) for k in named[0]}
        self.dropouts = [name for name, m in first.named_modules() if isinstance(m, Dropout)]
        self.noise_shapes = None
        self.seeds = list(seeds)
        self.device = next(iter(self.parameters.values())).device
        self.orders = [torch.Generator().manual_seed(s) for s in seeds]
        self.masks = [torch.Generator(self.device).manual_seed(s) for s in seeds] if self.dropouts else []

    def __len__(self):
        return len(self.seeds)

    def forward(self, x, parameters=None):
        """x (R, B, ...) → logits (R, B, C), or all that `base` returns, in its mode (train or eval)."""
        def one(parameters, buffers, x):
            return functional_call(self.base, (parameters, buffers), (x,))

        buffers = self.buffers
        if self.base.training:
            buffers = buffers | self.noise(x)
        return vmap(one)(parameters or self.parameters, buffers, x)

    def noise(self, x):
        """Uniform numbers for each dropout layer, a batch from each replica's own generator; {} without dropout."""
        if not self.dropouts:
            return {}
        if self.noise_shapes is None:  # one pass of one replica tells the shape of each dropout's input
            probe = copy.deepcopy(self.base).eval()  # in train mode it would draw from the shared generator
            with torch.no_grad():
                probe(x[0])
            self.noise_shapes = {name: probe.get_submodule(name).shape[1:] for name in self.dropouts}
        return {f"{name}.noise": torch.stack([torch.rand(x.shape[1], *shape, generator=g, device=x.device)
                                              for g in self.masks]) for name, shape in self.noise_shapes.items()}

    @torch.no_grad()
    def evaluate(self, x, batch=4096, parameters=None):
        """Logits in eval mode, x (R, N, ...) → (R, N, C); afterwards the students are back in train mode."""
        self.base.eval()
        try:
            return torch.cat([self.forward(part, parameters) for part in x.split(batch, dim=1)], dim=1)
        finally:
            self.base.train()

    def module(self, r):
        """Replica r as an ordinary nn.Module with its own copy of the weights, in eval mode; a `Tapped` student bare.

        >>> Replicas([nn.Linear(3, 2)], seeds=[0]).module(0)
        Linear(in_features=3, out_features=2, bias=True)
        """
        state = {k: v[r].clone() for k, v in (self.parameters | self.buffers).items()}
        module = copy.deepcopy(self.base).eval()
        module.load_state_dict({k: v for k, v in state.items() if k in module.state_dict()})
        return module.student if isinstance(module, Tapped) else module

    def orders_of_epoch(self, rows):
        """A fresh permutation of `rows` row numbers for each replica, (R, rows)."""
        return torch.stack([torch.randperm(rows, generator=g) for g in self.orders]).to(self.device)


def _words(shapes):
    return {name: tuple(shape) for name, shape in shapes.items()}


@contextlib.contextmanager
def threads_for(replicas):
    """On a CPU, one thread where each replica is small: waking a second one costs more than it saves."""
    before = torch.get_num_threads()
    size = sum(v[0].numel() for v in replicas.parameters.values())
    small = replicas.device.type == "cpu" and size < 100_000 and backprop.layers(replicas.base)
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Stepper:
    """One optimiser over the stacked weights of a `Replicas`, with a learning rate a replica and cosine decay.

    lr_t = lr · ½ (1 + cos(π t / steps)), or lr with schedule="constant". `clip` bounds each replica's own
    gradient norm. The optimisers are torch's ("adam", "adamw", "sgd"); further options (momentum,
    weight_decay) are passed on. Replicas of one learning rate share a call, so sort them by it.
    """

    def __init__(self, replicas, lr, steps, optimiser="adam", schedule="cosine", clip=None, **options):
        if optimiser not in OPTIMISERS:
            raise ValueError(f"optimiser must be one of {sorted(OPTIMISERS)}, got {optimiser!r}")
        if schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule must be 'cosine' or 'constant', got {schedule!r}")
        if clip is not None and not clip > 0:
            raise ValueError(f"clip must be above 0, or None, got {clip!r}")
        self.replicas, self.steps, self.schedule, self.clip, self.t = replicas, steps, schedule, clip, 0
        self.chain = backprop.layers(replicas.base)
        learns = [k for k, p in replicas.base.named_parameters() if p.requires_grad]  # a frozen weight stays
        self.grads = {k: torch.zeros_like(replicas.parameters[k]) for k in learns}
        groups, at = [], 0
        for rate, same in itertools.groupby(lr):
            rows = slice(at, at + len(list(same)))
            parts = [replicas.parameters[k][rows] for k in learns]
            for part, grad in zip(parts, self.grads.values(), strict=True):
                part.grad = grad[rows]
            groups.append({"params": parts, "lr": rate, "base": rate})
            at = rows.stop
        self.optimiser = OPTIMISERS[optimiser](groups, fused=True, **options)

    def step(self, x, loss_of):
        """One step on x (R, B, ...): loss_of(logits) → terms {"loss": (R, B), …}, returned detached."""
        terms = (self._by_hand if self.chain else self._by_vmap)(x, loss_of)
        if self.clip:
            norm = sum(g.flatten(1).square().sum(1) for g in self.grads.values()).sqrt()
            scale = (self.clip / norm.clamp_min(1e-12)).clamp_max(1)
            for g in self.grads.values():
                g.mul_(scale.view(-1, *[1] * (g.ndim - 1)))
        if self.schedule == "cosine":
            for group in self.optimiser.param_groups:
                group["lr"] = group["base"] * 0.5 * (1 + math.cos(math.pi * self.t / self.steps))
        self.optimiser.step()
        self.t += 1
        return {k: v.detach() for k, v in terms.items()}

    def _by_vmap(self, x, loss_of):
        """The gradients of any architecture, by autograd through `vmap`."""
        leaves = {k: self.replicas.parameters[k].detach().requires_grad_() for k in self.grads}
        terms = loss_of(self.replicas.forward(x, self.replicas.parameters | leaves))
        total = terms["loss"].mean(-1).sum()  # replicas share no weight: the sum's gradient is each one's own
        torch._foreach_copy_(list(self.grads.values()), torch.autograd.grad(total, list(leaves.values())))
        return terms

    def _by_hand(self, x, loss_of):
        """The same for a multi-layer perceptron: autograd through the loss alone, the rest in closed form."""
        parameters = self.replicas.parameters
        logits, kept = backprop.forward(self.chain, parameters, x, self.replicas.noise(x))
        terms = loss_of(logits.requires_grad_())
        g, = torch.autograd.grad(terms["loss"].mean(-1).sum(), logits)
        backprop.backward(self.chain, parameters, self.grads, kept, g)
        return terms
