"""DeepLab v2: branches are summed, scales fused by their maximum and supervised one by one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segfolio.architectures.dilated.deeplab_v2 import DeepLabV2, DeepLabV2VGG
from segfolio.layers.outputs import PixelOutput

IMAGES = torch.randn(2, 3, 65, 97, generator=torch.Generator().manual_seed(0))


def quiet(network: nn.Module) -> Any:
    """In training, without batch statistics and dropout."""
    network.eval()
    network.training = True
    return network


def corners(x: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(x, size, mode="bilinear", align_corners=True)


def test_scales_are_fused_by_their_maximum_and_each_is_supervised() -> None:
    torch.manual_seed(0)
    network = quiet(DeepLabV2(3, backbone="test_resnet"))
    single = quiet(DeepLabV2(3, backbone="test_resnet", scales=()))
    single.load_state_dict(network.state_dict())
    output = network(IMAGES)
    assert isinstance(output, PixelOutput)
    sides = {"scale_100": (65, 97), "scale_75": (49, 73), "scale_50": (33, 49)}
    expected = {name: corners(single(corners(IMAGES, size)), (9, 13)) for name, size in sides.items()}
    assert output.auxiliary.keys() == expected.keys()
    for name, scores in expected.items():
        torch.testing.assert_close(output.auxiliary[name], scores)
    assert torch.equal(output.logits, torch.stack(list(output.auxiliary.values())).amax(0))
    network.training = False
    torch.testing.assert_close(network(IMAGES), corners(output.logits, (65, 97)))


@pytest.mark.parametrize("size", [(64, 70), (33, 31)])
def test_in_training_scores_have_the_size_of_every_eighth_label(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    height, width = torch.zeros(size)[::8, ::8].shape
    logits, auxiliary = DeepLabV2(3, backbone="test_resnet")(images)
    assert {each.shape for each in (logits, *auxiliary.values())} == {(2, 3, height, width)}
    assert DeepLabV2VGG(3, width=1 / 16)(images).shape == (2, 3, height, width)


@pytest.mark.parametrize("rates", [variant.get("rates", (6, 12, 18, 24)) for variant in DeepLabV2VGG.variants.values()])
def test_branches_are_summed(rates: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = quiet(DeepLabV2VGG(3, rates, width=1 / 16))
    assert [head.fc6.dilation[0] for head in network.heads] == list(rates)
    images = torch.randn(1, 3, 65, 65)
    each = []
    for head in network.heads:
        alone = quiet(DeepLabV2VGG(3, (head.fc6.dilation[0],), width=1 / 16))
        alone.trunk, alone.heads = network.trunk, nn.ModuleList([head])
        each.append(alone(images))
    torch.testing.assert_close(network(images), sum(each))


def test_strides_and_rates_of_the_resnet() -> None:
    with torch.device("meta"):
        network: Any = DeepLabV2(21)
        assert network._scores(torch.zeros(1, 3, 321, 321)).shape == (1, 21, 41, 41)
    assert [branch.dilation[0] for branch in network.classifier] == [6, 12, 18, 24]
    assert {block.conv2.dilation[0] for block in network.backbone.layer3[1:]} == {2}
    assert {block.conv2.dilation[0] for block in network.backbone.layer4[1:]} == {4}
