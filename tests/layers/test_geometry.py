"""Receptive fields: against the gradient of a network with the same layers, and what cannot be measured."""

import pytest
import torch
from torch import Tensor, nn

from segfolio.layers.geometry import Field, receptive_field, trace_field


class Branches(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first(x), self.second(x)], dim=1)


def network() -> nn.Sequential:
    """Padding, pooling, dilation and two branches; all weights 1, so that every seen pixel has a gradient."""
    net = nn.Sequential(
        nn.ZeroPad2d(4),
        nn.Conv2d(1, 1, 3, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2, 2),
        Branches(nn.Conv2d(1, 1, 5, padding=2, bias=False), nn.Conv2d(1, 1, 3, padding=3, dilation=3, bias=False)),
        nn.Conv2d(2, 1, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(1),
    )
    for p in net.parameters():
        nn.init.ones_(p)
    return net.eval()


def test_field_is_the_extent_of_the_gradient() -> None:
    net = network()
    field = trace_field(net)
    images = torch.ones(1, 1, 64, 64, requires_grad=True)
    logits = net(images)
    for row in (6, 7):
        (gradient,) = torch.autograd.grad(logits[0, 0, row, 8], images, retain_graph=True)
        rows = gradient[0, 0].sum(dim=1).nonzero().flatten()
        first = field.first + row * field.stride
        assert (rows.min(), rows.max()) == (first, first + field.size - 1)


def test_receptive_field_by_the_formula() -> None:
    # conv 3: 3; pool 2: 4, stride 2; dilated 3x3: 4 + 6 * 2 = 16; conv 3: 16 + 2 * 2 = 20, stride 4
    assert receptive_field(network()) == (20, 4)


def test_centre_lies_between_two_pixels_after_an_even_window() -> None:
    assert trace_field(nn.MaxPool2d(2)) == Field(first=0, last=1, stride=2)
    assert trace_field(nn.MaxPool2d(2)).centre == 0.5


@pytest.mark.parametrize("layer", [nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(1), nn.Softmax(dim=1)])
def test_layer_of_unknown_reach_is_an_error(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match=type(layer).__name__):
        receptive_field(nn.Sequential(nn.Conv2d(3, 3, 3), layer))


def test_branches_of_different_strides_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"strides \[1, 2\]"):
        receptive_field(Branches(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, stride=2)))
