"""Dilation8: the identity that the context module starts as, what the front end sees, and its weights."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import vgg16

from segfolio.architectures.dilated.dilation8 import MARGIN, ContextModule, Dilation8, mirror, vgg_front_end
from segfolio.errors import SegfolioError
from segfolio.layers.geometry import trace_field

RATES = (1, 1, 2, 4, 8, 16, 1)


def positive() -> torch.Tensor:
    return torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(0))


def test_the_basic_context_module_starts_as_the_identity() -> None:
    context = ContextModule(3, RATES)
    assert torch.equal(context(positive()), positive())
    assert torch.equal(context(-positive()), torch.zeros_like(positive()))  # cut off, as in section 3


def test_the_large_context_module_starts_as_the_identity_but_for_its_noise() -> None:
    torch.testing.assert_close(ContextModule(3, RATES, large=True, noise=0.0)(positive()), positive())
    torch.manual_seed(0)
    context = ContextModule(3, RATES, large=True)
    error = (context(positive()) - positive()).abs().mean()
    assert 0 < error < 0.1 * positive().mean()
    first = context[0].weight
    assert not torch.equal(first[0], first[1])  # channels of one class learn different things


@pytest.mark.parametrize(("large", "channels"), [(False, [3] * 8), (True, [6, 6, 12, 24, 48, 96, 96, 3])])
def test_layers_of_table_1(large: bool, channels: list[int]) -> None:
    context = ContextModule(3, RATES, large)
    assert [layer.out_channels for layer in context if isinstance(layer, nn.Conv2d)] == channels
    fields = [trace_field(nn.Sequential(*list(context)[: 2 * i])).size for i in range(1, 8)]
    assert fields == [3, 5, 9, 17, 33, 65, 67]


@pytest.mark.parametrize(("large", "paddings"), [(False, list(RATES)), (True, [33, 0, 0, 0, 0, 0, 0])])
def test_zeros_are_where_the_released_networks_have_them(large: bool, paddings: list[int]) -> None:
    """`dilation8_camvid_deploy.prototxt` and `dilation8_pascal_voc_deploy.prototxt`."""
    context = ContextModule(3, RATES, large)
    assert [layer.padding[0] for layer in context if isinstance(layer, nn.Conv2d)] == [*paddings, 0]
    assert context(positive()).shape == positive().shape


def test_the_front_end_loses_the_margin_and_looks_at_the_middle_of_its_pixels() -> None:
    """`crop_size - 372` pixels of a crop are scored, an eighth of them along each axis."""
    field = trace_field(vgg_front_end(2, 1 / 16))
    assert (field.stride, field.size) == (8, 380)
    assert field.centre - MARGIN == 3.5  # of pixels 0 to 7, where bilinear upsampling without aligned corners has it
    assert vgg_front_end(2, 1 / 16).eval()(torch.zeros(1, 3, 404, 388)).shape == (1, 2, 4, 2)


@pytest.mark.parametrize(("length", "before", "after"), [(500, 186, 190), (33, 186, 193), (2, 5, 4), (1, 3, 2)])
def test_mirror_images_are_opencvs(length: int, before: int, after: int) -> None:
    line = np.arange(length, dtype=np.float32)[None]
    if length > 1:
        expected = cv2.copyMakeBorder(line, 0, 0, before, after, cv2.BORDER_REFLECT_101)[0]
    else:
        expected = np.zeros(before + 1 + after, np.float32)
    assert mirror(length, before, after).tolist() == expected.tolist()


def test_weights_of_vgg_become_convolutions(tmp_path: Path) -> None:
    """Those of a VGG-16 as thin as the network; fc6 sees each pixel of the last pooling."""
    torch.manual_seed(0)
    with torch.device("meta"):
        layers = [name for name, m in vgg16().named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    network = Dilation8(2, context=None, width=1 / 16)
    convs = [m for m in network.front_end if isinstance(m, nn.Conv2d)][:-1]
    state = {}
    for name, conv in zip(layers, convs, strict=False):
        weight = torch.randn_like(conv.weight)
        state[f"{name}.weight"] = weight.flatten(1) if name.startswith("classifier") else weight
        state[f"{name}.bias"] = torch.randn_like(conv.bias)
    torch.save({**state, "classifier.6.weight": torch.zeros(1000, 256)}, tmp_path / "vgg.pth")
    loaded = Dilation8(2, width=1 / 16, weights=str(tmp_path / "vgg.pth")).front_end
    assert torch.equal(loaded.fc6.weight.flatten(1), state["classifier.0.weight"])
    assert torch.equal(loaded.fc7.bias, state["classifier.3.bias"])
    assert torch.equal(loaded.conv5_3.weight, state["features.28.weight"])


def test_a_trained_front_end_starts_the_whole_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    front = Dilation8(2, context=None, width=1 / 16)
    torch.save(front.state_dict(), tmp_path / "front.pth")
    whole = Dilation8(2, width=1 / 16, weights=str(tmp_path / "front.pth"))
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in front.state_dict().items())


def test_another_number_of_rates_is_refused() -> None:
    with pytest.raises(SegfolioError, match="the large context module has 7 rates"):
        Dilation8(2, context="large", rates=(1, 2), width=1 / 16)
