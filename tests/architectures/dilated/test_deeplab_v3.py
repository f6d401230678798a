"""DeepLabV3 and torchvision's FCN: equal to torchvision, and one set of weights at two output strides."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import segmentation

from segfolio.architectures.dilated.deeplab_v3 import TORCHVISION, DeepLabV3
from segfolio.architectures.dilated.fcn_resnet import FCNResNet
from segfolio.errors import SegfolioError
from segfolio.layers.dilation import DilatedNetwork
from segfolio.layers.outputs import PixelOutput


def dilations(module: Any) -> list[int]:
    return [m.dilation[0] for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


def upsampled(logits: Tensor, images: Tensor) -> Tensor:
    return interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
@pytest.mark.parametrize(
    ("ours", "arguments", "theirs"), [(DeepLabV3, TORCHVISION, "deeplabv3"), (FCNResNet, {}, "fcn")], ids=["v3", "fcn"]
)
def test_a_state_dict_of_torchvision_gives_its_outputs(ours: Any, arguments: Any, theirs: str, backbone: str) -> None:
    torch.manual_seed(0)
    reference = getattr(segmentation, f"{theirs}_{backbone}")(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=True
    )
    network = ours(5, backbone=backbone, **arguments)
    network.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 33, 49, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            upsampled(network.double().eval()(images), images), reference.double().eval()(images)["out"]
        )
        for module in (network, reference):  # dropout apart, training is equal, too
            for layer in module.train().modules():
                if isinstance(layer, nn.Dropout):
                    layer.eval()
        output, expected = network(images), reference(images)
    assert isinstance(output, PixelOutput)
    torch.testing.assert_close(upsampled(output.logits, images), expected["out"])
    torch.testing.assert_close(upsampled(output.auxiliary["aux"], images), expected["aux"])


@pytest.mark.parametrize(
    ("cls", "arguments", "millions"),
    [
        (DeepLabV3, {"backbone": "resnet50", **TORCHVISION}, 42.004),
        (DeepLabV3, TORCHVISION, 60.996),
        (FCNResNet, {}, 35.322),
        (FCNResNet, {"backbone": "resnet101"}, 54.314),
    ],
)
def test_parameters_as_torchvision_publishes_them(cls: Any, arguments: Any, millions: float) -> None:
    with torch.device("meta"):
        network = cls(21, **arguments)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.001)


def test_training_at_stride_16_and_evaluation_at_8_are_of_the_same_weights() -> None:
    with torch.device("meta"):
        network: Any = DeepLabV3(21, backbone="resnet50")
    images, parameters = torch.zeros(2, 3, 65, 97, device="meta"), dict(network.named_parameters())
    for _ in range(2):  # there and back
        assert dilations(network.train().backbone.layer3) == [1] * 6
        assert dilations(network.backbone.layer4) == [2, 4, 8]  # 2 * (1, 2, 4), section 3.2
        assert dilations(network.classifier) == [6, 12, 18, 1]
        assert network(images).shape[-2:] == (5, 7)
        assert dilations(network.eval().backbone.layer3) == [1, 2, 2, 2, 2, 2]
        assert dilations(network.backbone.layer4) == [4, 8, 16]
        assert dilations(network.classifier) == [12, 24, 36, 1]
        assert network(images).shape[-2:] == (9, 13)
    assert all(p is parameters[name] for name, p in network.named_parameters())


def test_smaller_strides_see_the_same_at_more_places() -> None:
    torch.manual_seed(0)
    network = DilatedNetwork("resnet18", [4], output_stride=32).double().eval()
    images = torch.randn(1, 3, 72, 97, dtype=torch.float64)
    features = {}
    with torch.no_grad():
        for stride in (8, 16, 32):
            network.strides.set(stride)
            (features[stride],) = network.features(images)
    for stride in (8, 16):
        step = 32 // stride
        torch.testing.assert_close(features[stride][..., ::step, ::step], features[32])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 12}, r"output_stride is 12; this backbone can have \[4, 8, 16, 32\]"),
        ({"eval_output_stride": 64}, r"output_stride is 64; this backbone can have"),
        ({"grid": (1, 2)}, "grid has 2 values for the 3 blocks of the last stage"),
        ({"backbone": "vit_tiny_patch16_224"}, "vit_tiny_patch16_224 cannot be dilated; take a ResNet"),
        ({"backbone": "convnext_tiny"}, "convnext_tiny cannot be dilated"),  # of four stages, as timm counts
        ({"backbone": "resnet5"}, "timm has no backbone 'resnet5'; did you mean"),
        ({"backbone": "resnet50", "weights": "IMAGENET"}, r"IMAGENET is neither a file, nor a tag of timm's weights"),
    ],
)
def test_mistakes_are_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SegfolioError, match=message), torch.device("meta"):
        DeepLabV3(21, **{"backbone": "resnet50", **arguments})


def test_weights_of_the_backbone_and_of_all(tmp_path: Any) -> None:
    torch.manual_seed(0)
    trained = DeepLabV3(3, **DeepLabV3.tiny)
    torch.save(trained.backbone.state_dict() | {"fc.weight": torch.zeros(1)}, tmp_path / "backbone.pt")
    torch.save(trained.state_dict(), tmp_path / "all.pt")
    for name, equal in (("backbone.pt", False), ("all.pt", True)):
        network = DeepLabV3(3, **DeepLabV3.tiny, weights=str(tmp_path / name))
        assert torch.equal(network.backbone.layer4[0].conv1.weight, trained.backbone.layer4[0].conv1.weight)
        assert torch.equal(network.classifier[-1].weight, trained.classifier[-1].weight) == equal
