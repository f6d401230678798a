"""DeepLabV3+ and KSAC: strides of every backbone, separable convolutions, the shared kernel."""

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import conv2d

from segfolio.architectures.dilated.deeplab_v3_plus import DeepLabV3Plus
from segfolio.architectures.dilated.ksac import KSAC, SharedASPP
from segfolio.layers.aspp import ASPP
from segfolio.layers.dilation import DilatedNetwork, PooledBatchNorm


def weights(module: nn.Module) -> int:
    """Without those of batch normalisation."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("backbone", ["resnet50c", "resnet101c", "xception65", "mobilenetv2_100"])
@pytest.mark.parametrize(("stride", "size"), [(16, (5, 7)), (8, (9, 13))])
def test_every_backbone_at_both_strides(backbone: str, stride: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = DeepLabV3Plus(21, backbone=backbone, output_stride=stride).train()
        low, _, top = network.features(torch.randn(2, 3, 65, 97))
        assert network(torch.randn(2, 3, 65, 97)).shape == (2, 21, 17, 25)
    assert (low.shape[-2:], top.shape[-2:]) == ((17, 25), size)


@pytest.mark.parametrize("backbone", ["resnet26", "xception41", "mobilenetv2_050"])
@pytest.mark.parametrize("stride", [8, 16])
def test_features_are_those_of_timm_at_that_stride(backbone: str, stride: int) -> None:
    torch.manual_seed(0)
    ours = DilatedNetwork(backbone, [1, 4], 32, eval_output_stride=stride).eval()
    theirs = timm.create_model(backbone, features_only=True, output_stride=stride, out_indices=(1, 4)).eval()
    state = zip(theirs.state_dict(), ours.backbone.state_dict().values(), strict=True)  # named otherwise
    theirs.load_state_dict(dict(state))
    images = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        for mine, timms in zip(ours.features(images), theirs(images), strict=True):
            torch.testing.assert_close(mine, timms)


def test_separable_convolutions_where_the_paper_has_them() -> None:
    with torch.device("meta"):
        xception, resnet = DeepLabV3Plus(21), DeepLabV3Plus(21, "resnet101", grid=(1, 2, 4), separable=False)
    for network, groups in ((xception, 2048), (resnet, 1)):
        atrous: Any = [branch[0] for branch in network.pyramid.convs[1:-1]]  # type: ignore[index]
        assert [(conv.groups, conv.dilation[0]) for conv in atrous] == [(groups, rate) for rate in (6, 12, 18)]
    assert weights(xception.decoder) == 304 * (9 + 256) + 256 * (9 + 256)
    assert weights(resnet.decoder) == (304 + 256) * 256 * 9
    with torch.device("meta"):
        assert weights(ASPP(2048, (6, 12, 18)).convs) == 29 * 2048 * 256


@pytest.mark.parametrize(("backbone", "millions"), [("resnet50c", 44), ("resnet101c", 63)])
def test_parameters_of_mmsegmentations_network(backbone: str, millions: int) -> None:
    """As listed in MaskFormer's Table 1 (2107.06278)."""
    with torch.device("meta"):
        network = DeepLabV3Plus(150, backbone, width=512, projection=3, auxiliary=True)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


@pytest.mark.parametrize("channels", [320, 2048])
def test_sharing_saves_62_percent_of_the_pyramid(channels: int) -> None:
    with torch.device("meta"):
        aspp, shared = (cls(channels, (6, 12, 18)) for cls in (ASPP, SharedASPP))
        six = SharedASPP(channels, (6, 12, 18, 24, 30, 36))
    kept = (weights(shared.convs) + shared.kernel.numel()) / weights(aspp.convs)
    assert round(100 * (1 - kept)) == 62
    assert six.kernel.shape == shared.kernel.shape  # more rates cost no weights but those of the projection


def test_every_rate_sees_with_the_shared_kernel() -> None:
    torch.manual_seed(0)
    shared, aspp = SharedASPP(4, (1, 2, 3), width=8).eval(), ASPP(4, (1, 2, 3), width=8).eval()
    for branch in aspp.convs[1:-1]:
        branch[0].weight.data.copy_(shared.kernel)  # type: ignore[index, union-attr]
    rest = {key: value for key, value in shared.state_dict().items() if key.startswith(("convs.0", "convs.4", "proj"))}
    aspp.load_state_dict(rest, strict=False)
    x = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(shared(x), aspp(x))
    seen = conv2d(x, shared.kernel, padding=5, dilation=5)
    shared.set_rates([5, 5, 5])
    hooked: list[torch.Tensor] = []
    shared.convs[1].register_forward_hook(lambda module, inputs, output: hooked.append(inputs[0]))
    shared(x)
    torch.testing.assert_close(hooked[0], seen)


def test_ksac_doubles_its_rates_in_evaluation() -> None:
    network = KSAC(3, **KSAC.tiny)
    assert isinstance(network.pyramid, SharedASPP)
    assert network.pyramid.rates == [6, 12, 18]
    assert network.eval().pyramid.rates == [12, 24, 36]  # type: ignore[union-attr]


def test_a_lone_pooled_image_is_normalised_by_running_statistics() -> None:
    norm, plain = PooledBatchNorm(3), nn.BatchNorm2d(3)
    norm.running_mean = torch.tensor([1.0, 2.0, 3.0])
    plain.load_state_dict(norm.state_dict())
    one, two = torch.randn(1, 3, 1, 1), torch.randn(2, 3, 1, 1)
    torch.testing.assert_close(norm(one), plain.eval()(one))
    assert norm.num_batches_tracked == 0
    torch.testing.assert_close(norm(two), plain.train()(two))


def test_the_auxiliary_head_is_of_training_alone() -> None:
    network = DeepLabV3Plus(3, **DeepLabV3Plus.tiny, auxiliary=True)
    images = torch.randn(2, 3, 64, 64)
    logits, auxiliary = network(images)
    assert {name: each.shape for name, each in auxiliary.items()} == {"aux": (2, 3, 4, 4)}
    assert network.eval()(images).shape == logits.shape == (2, 3, 16, 16)
