"""A convolution of every replica as one batched matrix product over its patches (im2col).

Images are (R, B, H, W, C) here, channels last, so that a patch's row of pixels lies in one piece;
R replicas, B images each. For the patches P (R, B·h·w, k·k·C) and the kernel K (R, k·k·C, out)

    h = P K + b,   ∂/∂K = Pᵀ g,   ∂/∂P = g Kᵀ

Source: Chellapilla, Puri, Simard 2006.
"""

import torch
import torch.nn.functional as F
from torch import nn


def known(layer):
    """Whether this layer is a convolution that is done here.

    >>> known(nn.Conv2d(1, 8, 3, padding=1)), known(nn.Conv2d(8, 8, 3, groups=2))
    (True, False)
    """
    return (
        type(layer) is nn.Conv2d
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def forward(layer, weight, bias, x):
    """x (R, B, H, W, C), weight (R, out, C, k, k), bias (R, out) → (R, B, h, w, out), patches."""
    patches = _patches(layer, x)
    h = torch.baddbmm(bias[:, None], _rows(patches), _kernel(weight))
    return h.view(*patches.shape[:4], -1), patches


def backward(layer, patches, g, into_weight, into_bias):
    """Write the gradients by weight and bias, given g (R, B, h, w, out), that by the answer."""
    g = g.flatten(1, 3)
    by_kernel = torch.bmm(_rows(patches).mT, g).view(len(g), *layer.kernel_size, -1, g.shape[-1])
    into_weight.copy_(by_kernel.permute(0, 4, 3, 1, 2))
    torch.sum(g, 1, out=into_bias)


def by_input(layer, weight, patches, g, shape):
    """The gradient by the layer's input, of this shape (R, B, H, W, C): each patch's, put back."""
    R, B, H, W, C = shape
    (up, left), (down, right) = layer.padding, layer.stride
    by_patch = torch.bmm(g.flatten(1, 3), _kernel(weight).mT).view_as(patches)
    padded = g.new_zeros(R, B, H + 2 * up, W + 2 * left, C)
    high, wide = patches.shape[2:4]
    for i in range(layer.kernel_size[0]):
        for j in range(layer.kernel_size[1]):
            seen = padded[:, :, i : i + high * down : down, j : j + wide * right : right]
            seen += by_patch[:, :, :, :, i, j]
    return padded[:, :, up : up + H, left : left + W]


def _kernel(weight):
    """(R, out, C, k, k) → (R, k·k·C, out)."""
    return weight.permute(0, 3, 4, 2, 1).flatten(1, 3)


def _rows(patches):
    """(R, B, h, w, k, k, C) → (R, B·h·w, k·k·C)."""
    return patches.flatten(4).flatten(1, 3)


def _patches(layer, x):
    """x (R, B, H, W, C) → a copy of what each place sees, (R, B, h, w, k, k, C)."""
    (up, left), (down, right) = layer.padding, layer.stride
    x = F.pad(x, (0, 0, left, left, up, up))
    (high, wide), (*outer, by_row, by_pixel, by_channel) = layer.kernel_size, x.stride()
    R, B, H, W, C = x.shape
    h, w = (H - high) // down + 1, (W - wide) // right + 1
    return x.as_strided(
        (R, B, h, w, high, wide, C),
        (*outer, down * by_row, right * by_pixel, by_row, by_pixel, by_channel),
    ).clone(memory_format=torch.contiguous_format)
