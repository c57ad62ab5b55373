"""A stack of perceptrons, or of `PatchNet`, forward and backward by hand: the numbers of `vmap` in
half the time or less.

For a layer h = x Wᵀ + b and the gradient g of the loss by h,

    ∂/∂W = gᵀ x,   ∂/∂b = Σ_rows g,   ∂/∂x = g W      (Rumelhart, Hinton, Williams 1986)

with every matrix product batched over R replicas and written where the optimiser reads it.
"""

import torch
from torch import nn

from kdlab.students import patchnet
from kdlab.students.builders import Dropout


def layers(module):
    """[(name, layer)] if the module is Flatten, then layers known here; else None (`vmap` does it).

    A `PatchNet` is a layer of its own.

    >>> layers(nn.Sequential(nn.Linear(3, 2), nn.Tanh())) is None
    True
    """
    if type(module) is patchnet.PatchNet:
        return [("", module)] if module.weight.requires_grad else None
    if type(module) is not nn.Sequential or not all(
        type(m) in (nn.Linear, nn.ReLU, Dropout) for m in module[1:]
    ):
        return None
    first = module[0]
    flat = type(first) is nn.Flatten and first.start_dim == 1 and first.end_dim == -1
    biased = all(m.bias is not None for m in module if type(m) is nn.Linear)
    trained = all(p.requires_grad for p in module.parameters())
    return list(module._modules.items())[1:] if flat and biased and trained else None


@torch.no_grad()
def forward(chain, parameters, x, noise):
    """x (R, B, ...) → logits (R, B, C), and what `backward` needs; dropout as in training."""
    if _of_patches(chain):
        return patchnet.answer(parameters["weight"], x)
    x, kept = x.flatten(2), []
    for name, layer in chain:
        if type(layer) is nn.Linear:
            keep, x = (
                x,
                torch.baddbmm(
                    parameters[f"{name}.bias"][:, None], x, parameters[f"{name}.weight"].mT
                ),
            )
        elif type(layer) is nn.ReLU:
            keep = x = x.relu()
        else:
            keep = (noise[f"{name}.noise"] >= layer.p).to(x.dtype) / (1 - layer.p)
            x = x * keep
        kept.append(keep)
    return x, kept


@torch.no_grad()
def backward(chain, parameters, grads, kept, g):
    """Write each parameter's gradient into `grads`, given g, the gradient by the logits."""
    if _of_patches(chain):
        return patchnet.slope(kept, g, grads["weight"])
    first = next(name for name, layer in chain if type(layer) is nn.Linear)
    for (name, layer), keep in zip(reversed(chain), reversed(kept), strict=True):
        if type(layer) is nn.Linear:
            torch.bmm(g.mT, keep, out=grads[f"{name}.weight"])
            torch.sum(g, 1, out=grads[f"{name}.bias"])
            if name == first:
                return
            g = torch.bmm(g, parameters[f"{name}.weight"])
        elif type(layer) is nn.ReLU:
            g = torch.ops.aten.threshold_backward(g, keep, 0)
        else:
            g = g * keep


def _of_patches(chain):
    return type(chain[0][1]) is patchnet.PatchNet


def in_one_block(parameters):
    """{name: (R, *shape)} → all of them in one tensor (R, P), and the same names as parts of it.

    >>> block, parts = in_one_block({"a": torch.zeros(2, 3), "b": torch.ones(2, 1, 2)})
    >>> block.shape, parts["b"].shape
    (torch.Size([2, 5]), torch.Size([2, 1, 2]))
    """
    block = torch.cat([p.flatten(1) for p in parameters.values()], 1)
    return block, views(block, parameters)


def views(block, parameters):
    """The parts of a block (R, P) that lie where these parameters do, {name: (R, *shape)}."""
    sizes = [p[0].numel() for p in parameters.values()]
    parts = zip(parameters.items(), block.split(sizes, 1), strict=True)
    return {name: part.view(p.shape) for (name, p), part in parts}
