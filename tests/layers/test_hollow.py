"""Networks without values have the shapes of those with them, and leave all else as it is."""

import torch
from torch import nn

from segfolio.architectures.encoder_decoder.unet import UNet
from segfolio.layers.hollow import hollow


def test_a_hollow_network_has_the_shapes_and_no_values() -> None:
    with hollow():
        network = UNet(5, width=4)
    assert all(value.is_meta for value in network.state_dict().values())
    shapes = {name: value.shape for name, value in UNet(5, width=4).state_dict().items()}
    assert {name: value.shape for name, value in network.state_dict().items()} == shapes


def test_random_numbers_are_those_of_before() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with hollow():
        nn.init.trunc_normal_(nn.Linear(8, 8).weight)
    assert torch.equal(torch.rand(3), expected)


def test_what_lies_elsewhere_is_filled_as_ever() -> None:
    with hollow():
        values = torch.empty(3, device="cpu").fill_(2.0).mul_(3.0)
        nn.init.constant_(weight := torch.empty(2, device="cpu"), 7.0)
    assert values.tolist() == [6.0] * 3
    assert weight.tolist() == [7.0] * 2
