"""Any of timm's networks is a backbone, or one sentence says why it is not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import resnet18

from segfolio.architectures.region_based.faster_rcnn import FasterRCNN
from segfolio.errors import SegfolioError
from segfolio.layers.pyramid import Pyramid
from tests.architectures.test_detection_contract import FEW, step, target


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "test_convnext"])
def test_transformers_and_convnets_train_and_detect_at_any_size(backbone: str) -> None:
    torch.manual_seed(0)
    network: Any = FasterRCNN(2, backbone, channels=16, head_channels=32, roi=FEW)
    size = (70, 130)
    levels = network.backbone(torch.randn(1, 3, 96, 160))
    assert [tuple(level.shape[1:]) for level in levels.values()] == [
        (16, 24, 40),
        (16, 12, 20),
        (16, 6, 10),
        (16, 3, 5),
        (16, 2, 3),
    ]
    step(network, torch.randn(1, 3, *size), [target(size, (5, 8, 40, 60, 0))])
    trained = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    assert [name for name, grad in trained.items() if grad is None] == []
    with torch.no_grad():
        (found,) = network.eval()(torch.randn(1, 3, *size), [size])
    assert len(found.boxes) > 0


@pytest.mark.parametrize(
    ("backbone", "sentence"),
    [
        ("hrnet_w18_small", "frozen_stride: 4 leaves nothing of the backbone to train; give frozen_stride: 0"),
        ("hiera_tiny_224", "hiera_tiny_224 does not take images of any size"),
        ("maxvit_tiny_tf_224", "maxvit_tiny_tf_224 does not take images of any size"),
    ],
)
def test_what_cannot_be_trained_is_said(backbone: str, sentence: str) -> None:
    with pytest.raises(SegfolioError, match=sentence):
        Pyramid(backbone, "frozen", 4)


@pytest.mark.parametrize("neck", ["fpn", "dc5"])
def test_weights_of_batch_norm_are_refused_by_group_norm(neck: Any, tmp_path: Path) -> None:
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    arguments: dict[str, Any] = {"backbone": "resnet18", "channels": 16, "head_channels": 32, "neck": neck}
    if neck == "dc5":
        arguments["rpn"] = FasterRCNN.variants["Faster R-CNN, R50-C4"]["rpn"]
    weights = str(tmp_path / "resnet18.pth")
    FasterRCNN(2, **arguments, weights=weights)
    with pytest.raises(SegfolioError, match=r"resnet18\.pth: these weights are of batch normalisation; give norm: fro"):
        FasterRCNN(2, **arguments, norm="group", weights=weights)
