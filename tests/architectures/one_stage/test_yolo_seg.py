"""YOLOv8-seg and YOLO11-seg: their published sizes, and that they learn."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torchvision.ops import clip_boxes_to_image

from segfolio.architectures.one_stage.yolo_seg import CellRecipe, YOLOSeg
from segfolio.errors import SegfolioError
from segfolio.layers.cells import Grid
from segfolio.layers.detection import DetectionTarget
from segfolio.layers.hollow import hollow
from tests.architectures.test_detection_contract import assert_found, learned, scene, step, target

PARAMETERS = {
    "YOLOv8n-seg": 3_409_968,
    "YOLOv8s-seg": 11_821_056,
    "YOLOv8m-seg": 27_285_968,
    "YOLOv8l-seg": 45_997_728,
    "YOLOv8x-seg": 71_827_888,
    "YOLO11n-seg": 2_876_848,
    "YOLO11s-seg": 10_113_248,
    "YOLO11m-seg": 22_420_896,
    "YOLO11l-seg": 27_678_368,
    "YOLO11x-seg": 62_142_656,
}


def test_it_has_the_parameters_of_the_published_networks() -> None:
    """Unfused, of 80 classes, with the 16 weights of the distances."""
    found = {}
    for name, arguments in YOLOSeg.variants.items():
        with hollow():
            found[name] = sum(p.numel() for p in YOLOSeg(80, **arguments).parameters())
    assert found == PARAMETERS


@pytest.mark.parametrize("version", [8, 11])
def test_it_overfits_one_image(version: Any) -> None:
    torch.manual_seed(0)
    images, wanted = scene()
    network = YOLOSeg(2, **YOLOSeg.tiny, version=version)
    learned(network, images, wanted, 100, 0.003)
    network.eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()  # running statistics of a dozen cells are not those of the image
    with torch.no_grad():
        (found,) = network(images, [(96, 128)])
    assert_found(found, wanted)


@pytest.mark.parametrize("box", [(1, 1, 3, 3), (0, 0, 640, 64)], ids=["2 x 2 pixels", "beyond all distances"])
def test_an_object_out_of_every_stride_s_range_is_learned(box: tuple[int, int, int, int]) -> None:
    """Of which no cell has its centre inside, and one larger than all distances that 4 bins can say."""
    network, size = YOLOSeg(1, **YOLOSeg.tiny, bins=4), (64, 640)
    losses = step(network, torch.randn(1, 3, *size), [target(size, (*box, 0))])
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


def test_an_object_that_no_box_reaches_around_is_told_once(recwarn: Any) -> None:
    network, size = YOLOSeg(1, **YOLOSeg.tiny, bins=4), (64, 320)
    for width, told in ((192, 0), (300, 1), (310, 1)):
        boxes = torch.tensor([[4.0, 8, 4 + width, 40]])
        target = DetectionTarget(boxes, torch.tensor([0]), torch.ones(1, *size, dtype=torch.bool))
        step(network, torch.randn(2, 3, *size), [target, target])
        assert len([each for each in recwarn if "boxes of 4 bins reach 192" in str(each.message)]) == told
    assert "an object is 300 pixels long" in str(recwarn.list[-1].message)
    assert "give `bins` at least 6, or" in str(recwarn.list[-1].message)


def test_losses_are_scaled_together() -> None:
    network, size = YOLOSeg(1, **YOLOSeg.tiny), (64, 64)
    images, targets = torch.randn(1, 3, *size), [target(size, (5, 8, 40, 60, 0))]
    losses = step(network, images, targets)
    network.recipe = replace(network.recipe, loss_scale=64.0)
    for name, loss in step(network, images, targets).items():
        assert loss.item() == pytest.approx(64 * losses[name].item(), rel=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 9},
        {"depth": -1},
        {"width": 0},
        {"max_channels": 0},
        {"bins": 1},
        {"recipe": CellRecipe(loss_scale=0)},
    ],
    ids=str,
)
def test_what_there_is_not_is_said(wrong: Any) -> None:
    with pytest.raises(SegfolioError, match="expected version 8 or 11, at least 2 bins, the others above 0"):
        YOLOSeg(1, **YOLOSeg.tiny | wrong)


def test_what_lies_in_the_padding_takes_no_place_of_a_detection() -> None:
    """An image of 64 x 64 in a batch of 640 x 640: however sure cells beyond it are, the result is that of its own."""
    network = YOLOSeg(2, **YOLOSeg.tiny)
    network.recipe = replace(network.recipe, before_nms=40, max_detections=20)
    maps = [torch.zeros(1, 1, 640 // stride, 640 // stride) for stride in (8, 16, 32)]
    cells = Grid.of(maps, (8, 16, 32))
    boxes = cells.boxes(1.4 * torch.rand(1, len(cells.centres), 4))[0]
    inside = (cells.centres < 64).all(1)
    scores = torch.rand(len(boxes), 2)
    scores[~inside] += 1
    beyond = (boxes[:, :2] >= 64).any(1)
    scores[~inside & ~beyond] = 0  # reach into the image from outside
    alone, beside = (network.kept(boxes[some], scores[some], (64, 64)) for some in (inside, slice(None)))
    assert len(alone.score) == 20
    assert torch.equal(alone.score, beside.score)
    assert torch.equal(alone.label, beside.label)
    assert torch.equal(alone.boxes, beside.boxes)
    assert (beside.boxes[:, 2:] > beside.boxes[:, :2]).all()


def test_boxes_and_masks_are_computed_in_float32_under_mixed_precision() -> None:
    """From what the layers say in bfloat16: that is rounded already."""
    torch.manual_seed(0)
    network, size = YOLOSeg(2, **YOLOSeg.tiny).eval(), (64, 96)
    said: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, given, found: said.__setitem__(name, found.float())

    for level in range(3):
        network.boxes[level].register_forward_hook(keep(f"box{level}"))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        (found,) = network(torch.randn(1, 3, *size), [size])
    sides = torch.cat([said[f"box{level}"].flatten(2) for level in range(3)], 2).mT.unflatten(2, (4, 16))
    maps = [torch.zeros(1, 1, 64 // stride, 96 // stride) for stride in (8, 16, 32)]
    boxes = Grid.of(maps, (8, 16, 32)).boxes(sides.softmax(3) @ torch.arange(16.0))[0]
    exact = clip_boxes_to_image(boxes, size)
    assert (torch.cdist(found.boxes, exact).amin(1) < 1e-3).all()
