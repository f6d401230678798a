"""PSPNet: the authors' dilations, the pyramid's place, and corners that are aligned."""

from typing import Any

import pytest
import torch
from torch import nn

from segfolio.architectures.dilated.pspnet import PSPNet
from segfolio.errors import SegfolioError


def dilations(stage: nn.Module) -> set[tuple[int, int]]:
    convs = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    return {(m.dilation[0], m.padding[0]) for m in convs} | {m.stride for m in convs} - {(1, 1)}


@pytest.mark.parametrize("training", [True, False])
def test_every_kernel_of_the_dilated_stages_is_dilated(training: bool) -> None:
    with torch.device("meta"):
        network = PSPNet(19).train(not training).train(training).backbone
    assert dilations(network.layer3) == {(2, 2)}
    assert dilations(network.layer4) == {(4, 4)}


def test_blocks_and_parameters() -> None:
    """Of ResNet-269, and of the heads counted by hand from the authors' `pspnet.py`."""
    with torch.device("meta"):
        deep, network = PSPNet(150, **PSPNet.variants["PSPNet, R269"]), PSPNet(150)
    assert [len(getattr(deep.backbone, f"layer{i}")) for i in range(1, 5)] == [3, 30, 48, 8]
    head = 9 * 4096 * 512 + 2 * 512 + 513 * 150
    auxiliary = 9 * 1024 * 256 + 2 * 256 + 257 * 150
    pyramid = 4 * (2048 * 512 + 2 * 512)
    own = [network.head, network.auxiliary, network.pyramid]
    assert [sum(p.numel() for p in m.parameters()) for m in own] == [head, auxiliary, pyramid]


def test_logits_of_8k_plus_1_pixels_are_those_of_every_eighth() -> None:
    torch.manual_seed(0)
    network = PSPNet(3, **PSPNet.tiny).eval()
    images = torch.randn(1, 3, 65, 97)
    _, last = network.features(images)
    coarse = network.head(network.pyramid(last))
    logits, auxiliary = network(images)
    assert (coarse.shape, logits.shape, auxiliary) == ((1, 3, 9, 13), (1, 3, 65, 97), {})
    torch.testing.assert_close(logits[..., ::8, ::8], coarse)


def test_without_bins_and_auxiliary_head_it_is_the_dilated_fcn() -> None:
    network = PSPNet(3, **{**PSPNet.tiny, "bins": (), "auxiliary": False})
    assert network.train()(torch.randn(2, 3, 33, 33)).auxiliary == {}
    assert network.pyramid.out_channels == network.channels[-1]
    assert [name for name, _ in network.named_parameters() if name.startswith(("pyramid", "auxiliary"))] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "mobilenetv2_100"}, "backbone mobilenetv2_100 is no plain ResNet; take one, such as resnet50s"),
        ({"backbone": "resnest14d"}, "resnest14d is no plain ResNet"),
        ({"backbone": "mobilenetv2_100", "blocks": (1, 1, 1, 1)}, "timm's mobilenetv2_100 does not take layers"),
    ],
)
def test_another_backbone_than_a_resnet_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SegfolioError, match=message), torch.device("meta"):
        PSPNet(19, **arguments)


def test_a_pixel_of_the_logits_sees_the_whole_image_through_the_pyramid() -> None:
    torch.manual_seed(0)
    images = torch.randn(1, 3, 193, 193)
    changed = images.clone()
    changed[..., -16:, -16:] += 3
    for bins, seen in (((1, 2, 3, 6), True), ((), False)):
        network = PSPNet(3, **{**PSPNet.tiny, "bins": bins}).eval()
        corner = [network(each).logits[..., 0, 0] for each in (images, changed)]
        assert torch.equal(*corner) != seen
