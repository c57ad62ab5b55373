"""Perceptrons, small convolutional networks and `PatchNet`, stacked, forward and backward by hand:
the numbers of `vmap` in less time.

For a layer h = x Wᵀ + b and the gradient g of the loss by h,

    ∂/∂W = gᵀ x,   ∂/∂b = Σ_rows g,   ∂/∂x = g W      (Rumelhart, Hinton, Williams 1986)

with every matrix product batched over R replicas and written where the optimiser reads it.
"""

import torch
from torch import nn

from kdlab.students import patchnet
from kdlab.students.builders import Dropout
from kdlab.training import convolution

SMALL_IMAGE = 256  # pixels


def layers(module, pixels=0):
    """[(name, layer)] of a network that is known here; else None (`vmap` does it).

    Known is a Sequential: convolutions and ReLUs at first or none, Flatten, then linear layers,
    ReLUs and dropout. A `PatchNet` is a layer of its own. pixels: the numbers of one input; torch's
    own convolutions are as quick on large ones, and take less memory.

    >>> layers(nn.Sequential(nn.Linear(3, 2), nn.Tanh())) is None
    True
    """
    if type(module) is patchnet.PatchNet:
        return [("", module)] if module.weight.requires_grad else None
    if type(module) is not nn.Sequential:
        return None
    flat = [i for i, m in enumerate(module) if _flattens(m)]
    if len(flat) != 1:
        return None
    images, rows = module[: flat[0]], module[flat[0] + 1 :]
    fits = all(type(m) is nn.ReLU or convolution.known(m) for m in images) and all(
        type(m) in (nn.Linear, nn.ReLU, Dropout) for m in rows
    )
    fits = fits and (not len(images) or pixels <= SMALL_IMAGE)
    weighed = [m for m in module if isinstance(m, nn.Linear | nn.Conv2d)]
    biased = all(m.bias is not None for m in weighed)
    trained = all(p.requires_grad for p in module.parameters())
    return list(module._modules.items()) if fits and biased and trained else None


def perceptron(module):
    """Whether `layers` knows it and it holds no convolution.

    >>> flat, conv = nn.Flatten(1), nn.Conv2d(1, 2, 3)
    >>> perceptron(nn.Sequential(flat, nn.Linear(3, 2))), perceptron(nn.Sequential(conv, flat))
    (True, False)
    """
    chain = layers(module)
    return bool(chain) and not any(isinstance(layer, nn.Conv2d) for _, layer in chain)


def _flattens(module):
    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)


@torch.no_grad()
def forward(chain, parameters, x, noise):
    """x (R, B, ...) → logits (R, B, C), and what `backward` needs; dropout as in training."""
    if _of_patches(chain):
        return patchnet.answer(parameters["weight"], x)
    if not _flattens(chain[0][1]):
        x = x.movedim(2, -1)  # channels last, as `convolution` takes them
    kept = []
    for name, layer in chain:
        if type(layer) is nn.Linear:
            bias, weight = parameters[f"{name}.bias"], parameters[f"{name}.weight"]
            keep, x = x, torch.baddbmm(bias[:, None], x, weight.mT)
        elif type(layer) is nn.Conv2d:
            bias, weight = parameters[f"{name}.bias"], parameters[f"{name}.weight"]
            shape = x.shape
            x, patches = convolution.forward(layer, weight, bias, x)
            keep = patches, shape
        elif type(layer) is nn.Flatten:
            keep = x.shape
            x = x.movedim(-1, 2).flatten(2) if layer is not chain[0][1] else x.flatten(2)
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
    first = next(name for name, layer in chain if type(layer) in (nn.Linear, nn.Conv2d))
    for (name, layer), keep in zip(reversed(chain), reversed(kept), strict=True):
        if type(layer) is nn.Linear:
            torch.bmm(g.mT, keep, out=grads[f"{name}.weight"])
            torch.sum(g, 1, out=grads[f"{name}.bias"])
            if name == first:
                return
            g = torch.bmm(g, parameters[f"{name}.weight"])
        elif type(layer) is nn.Conv2d:
            (patches, shape), weight = keep, parameters[f"{name}.weight"]
            own = grads[f"{name}.weight"], grads[f"{name}.bias"]
            convolution.backward(layer, patches, g, *own)
            if name == first:
                return
            g = convolution.by_input(layer, weight, patches, g, shape)
        elif type(layer) is nn.Flatten:
            R, B, H, W, C = keep
            g = g.view(R, B, C, H, W).movedim(2, -1)
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
