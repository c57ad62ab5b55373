"""A convolution of every replica as one product, against torch's own of each alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdlab.training import convolution

R, B = 3, 4
LAYERS = {
    "plain": nn.Conv2d(2, 5, 3),
    "padded": nn.Conv2d(1, 3, 3, padding=1),
    "of strides": nn.Conv2d(2, 3, (3, 2), stride=(1, 3), padding=(2, 1)),
    "over gaps": nn.Conv2d(3, 2, (1, 2), stride=(3, 4)),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_answer_and_gradients_are_those_of_torch_for_each_replica(layer):
    draw = torch.Generator().manual_seed(0)

    def numbers(*shape):
        return torch.randn(R, *shape, generator=draw, dtype=torch.float64)

    given = [numbers(*layer.weight.shape), numbers(*layer.bias.shape)]
    given.append(numbers(B, layer.in_channels, 9, 7))
    parts = [[part[r].clone().requires_grad_() for part in given] for r in range(R)]
    answers = torch.stack([F.conv2d(x, w, b, layer.stride, layer.padding) for w, b, x in parts])
    weight, bias, x = given
    last = x.permute(0, 1, 3, 4, 2).contiguous()  # channels last
    h, patches = convolution.forward(layer, weight, bias, last)
    assert convolution.known(layer)
    torch.testing.assert_close(h.permute(0, 1, 4, 2, 3), answers)

    slope = numbers(*answers.shape[1:])
    answers.backward(slope)
    by_weight, by_bias, by_x = (torch.stack([part[i].grad for part in parts]) for i in range(3))
    g = slope.permute(0, 1, 3, 4, 2).contiguous()
    into_weight, into_bias = torch.empty_like(weight), torch.empty_like(bias)
    convolution.backward(layer, patches, g, into_weight, into_bias)
    torch.testing.assert_close(into_weight, by_weight)
    torch.testing.assert_close(into_bias, by_bias)
    found = convolution.by_input(layer, weight, patches, g, last.shape)
    torch.testing.assert_close(found.permute(0, 1, 4, 2, 3), by_x)
