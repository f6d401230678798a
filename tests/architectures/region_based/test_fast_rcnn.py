"""Fast R-CNN and R-CNN: the regions that they are given, pooled and warped."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from segfolio.architectures.region_based.fast_rcnn import FastRCNN, RoIPool, searched
from segfolio.architectures.region_based.rcnn import RCNN, WarpedRegions

both = pytest.mark.parametrize("cls", [FastRCNN, RCNN], ids=lambda cls: cls.__name__)


@both
def test_detections_come_from_the_given_proposals(cls: Any) -> None:
    torch.manual_seed(0)
    network = cls(2, **cls.tiny).eval()
    for layer in (network.roi_heads.box_predictor.bbox_pred.weight, network.roi_heads.box_predictor.bbox_pred.bias):
        nn.init.zeros_(layer)  # boxes stay as they are
    given = torch.tensor([[4.0, 6, 40, 50], [30, 10, 80, 60]])
    with torch.no_grad():
        (found,) = network(torch.randn(1, 3, 64, 96), [(64, 96)], proposals=[given])
        (nothing,) = network(torch.randn(1, 3, 64, 96), [(64, 96)], proposals=[given[:0]])
    assert {tuple(box) for box in found.boxes.round(decimals=3).tolist()} == {tuple(box) for box in given.tolist()}
    assert nothing.boxes.shape == (0, 4)


def test_roi_pool_is_the_maximum_of_each_part() -> None:
    features = torch.arange(14 * 14.0).view(1, 1, 14, 14)
    pooled = RoIPool(1 / 16)({"0": features}, [torch.tensor([[0.0, 0, 208, 208]])], [(224, 224)])
    assert torch.equal(pooled, nn.functional.max_pool2d(features, 2))


def test_a_region_is_warped_with_its_context_and_the_mean_outside() -> None:
    """A box of 20 x 10 becomes 4 x 4 inside a border of 2 pixels, that is of a box of 40 x 20."""
    warp = WarpedRegions(nn.Flatten(), size=8, context=2, chunk=1)
    box = torch.tensor([[0.0, 20, 20, 30]])
    assert warp.enlarged(box).tolist() == [[-10, 15, 30, 35]]
    image = torch.ones(1, 1, 64, 64)
    warped = warp({"0": image}, [box], [(64, 64)]).view(8, 8)
    assert (warped[:, 3:] == 1).all()
    assert (warped[:, 0] == 0).all()  # left of the image


def test_chunks_change_nothing() -> None:
    images, boxes = torch.randn(2, 3, 64, 64), torch.tensor([[4.0, 6, 40, 50], [30, 10, 60, 60], [0, 0, 9, 9]])
    whole, parts = (WarpedRegions(nn.Flatten(), 16, 2, chunk) for chunk in (64, 2))
    arguments = {"0": images}, [boxes, boxes + 1], [(64, 64)] * 2
    assert torch.equal(whole(*arguments), parts(*arguments))


def test_own_proposals_do_not_depend_on_the_range_of_the_image() -> None:
    image = torch.zeros(1, 3, 64, 96)
    image[0, 0, 10:40, 20:70] = 1
    first, second = (searched(images, [(50, 90)], 100)[0] for images in (image, 7 * image - 3))
    assert torch.equal(first, second)
    assert [20, 10, 70, 40] in first.round().tolist()


def test_fast_rcnn_starts_from_vgg16_with_its_linear_layers(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        body = FastRCNN(2, head_channels=8).backbone.body
    state = {key.replace("_", "."): torch.randn(value.shape, generator=g) for key, value in body.state_dict().items()}
    state |= {"classifier.0.weight": torch.randn(8, 25088, generator=g), "classifier.0.bias": torch.ones(8)}
    state |= {"classifier.3.weight": torch.randn(8, 8, generator=g), "classifier.3.bias": torch.ones(8)}
    torch.save(state, tmp_path / "vgg16.pth")
    network: Any = FastRCNN(2, head_channels=8, weights=str(tmp_path / "vgg16.pth"))
    assert torch.equal(network.backbone.body.features_28.weight, state["features.28.weight"])
    assert torch.equal(network.roi_heads.box_head.fc6.weight, state["classifier.0.weight"])
    assert torch.equal(network.roi_heads.box_head.fc7.bias, state["classifier.3.bias"])
    fixed = [name for name, p in network.backbone.body.named_parameters() if not p.requires_grad]
    assert fixed[-1] == "features_7.bias"  # the first four convolutions, as in section 4.5
