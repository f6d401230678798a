"""Each stage of the cascade starts from the boxes of the one before, and asks for more overlap."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from segfolio.architectures.region_based.cascade_rcnn import STAGES, CascadeHeads, CascadeRCNN, assign, refine
from segfolio.layers.detection import DetectionTarget
from segfolio.layers.regions import RegionHeads, RegionRecipe, as_torchvision

OBJECT = torch.tensor([[20.0, 20, 60, 60]])
SIZES = [(100, 100)]


class Boxes(nn.Module):
    """In place of pooling: the boxes themselves."""

    def forward(self, features: Any, boxes: list[Tensor], sizes: Any) -> Tensor:
        return torch.cat(boxes)


class HalfWay(nn.Module):
    """Predicts class 1 with logit `score`, and the box half-way to `OBJECT`."""

    def __init__(self, weights: tuple[float, float, float, float], score: float) -> None:
        super().__init__()
        self.coder, self.score = BoxCoder(weights), score

    def forward(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.tensor([0.0, self.score]).repeat(len(boxes), 1)
        middle = (boxes + OBJECT) / 2
        return logits, self.coder.encode_single(middle, boxes)


def cascade() -> CascadeHeads:
    recipe = RegionRecipe(samples=8)
    return CascadeHeads(
        [
            RegionHeads(
                RegionRecipe(recipe.samples, positive_iou=stage.positive_iou),
                Boxes(),
                nn.Identity(),
                HalfWay(stage.box_weights, score),
                box_weights=stage.box_weights,
            )
            for stage, score in zip(STAGES, (1.0, 2.0, 6.0), strict=True)
        ],
        recipe,
    )


def test_every_stage_refines_the_boxes() -> None:
    heads, boxes = cascade(), [torch.tensor([[28.0, 28, 76, 76]])]
    overlaps = [box_iou(boxes[0], OBJECT).item()]
    for stage in heads.stages:
        _, deltas = stage.box_predictor(boxes[0])
        boxes = refine(stage, deltas, boxes, SIZES)
        overlaps.append(box_iou(boxes[0], OBJECT).item())
    assert overlaps == sorted(overlaps)
    torch.testing.assert_close(boxes[0], torch.tensor([[21.0, 21, 62, 62]]))


def test_detections_have_the_last_box_and_the_mean_score() -> None:
    (found,) = cascade().eval().detect({}, [torch.tensor([[28.0, 28, 76, 76]])], SIZES)
    torch.testing.assert_close(found.boxes, torch.tensor([[21.0, 21, 62, 62]]))
    assert found.labels.tolist() == [0]
    expected = torch.tensor([1.0, 2.0, 6.0]).sigmoid().mean()
    torch.testing.assert_close(found.scores[0], expected)


def test_a_box_is_positive_up_to_the_stage_whose_overlap_it_has() -> None:
    """Boxes that share 0.55, 0.65 and 0.75 with the object."""
    boxes = [torch.tensor([[20.0, 20, 60, 20 + 40 * share] for share in (0.55, 0.65, 0.75)])]
    truth = as_torchvision([DetectionTarget(OBJECT, torch.tensor([0]))])
    found = [assign(stage, boxes, truth)[0][0].tolist() for stage in cascade().stages]
    assert found == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]


def test_without_objects_all_is_background() -> None:
    boxes = [torch.tensor([[20.0, 20, 60, 50]])]
    truth = as_torchvision([DetectionTarget(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))])
    assert assign(cascade().stages[1], boxes, truth)[0][0].tolist() == [0]


def test_losses_of_the_stages_are_weighted() -> None:
    """Once the boxes are the object, the classification loss of a stage is its weight times the cross-entropy."""
    losses = cascade().train().losses({}, [OBJECT], SIZES, [DetectionTarget(OBJECT, torch.tensor([0]))])
    assert list(losses) == ["cls", "box", "cls_2", "box_2", "cls_3", "box_3"]
    for name, score, weight in (("cls", 1.0, 1.0), ("cls_2", 2.0, 0.5), ("cls_3", 6.0, 0.25)):
        expected = -weight * torch.tensor(score).sigmoid().log()
        assert losses[name].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["box_3"].item() == pytest.approx(0, abs=1e-8)


def test_pooled_regions_give_back_a_part_of_their_gradient() -> None:
    """Detectron2's equal weights: the heads learn from the whole losses, the features from a part."""
    gradients = []
    for scale in (1.0, 0.25):
        torch.manual_seed(0)
        recipe = RegionRecipe(stage_weights=(1.0, 1.0, 1.0), gradient_scale=scale)
        network: Any = CascadeRCNN(1, **CascadeRCNN.tiny, roi=recipe)
        features = {str(i): torch.randn(1, 16, 32 >> i, 32 >> i, requires_grad=True) for i in range(4)}
        losses = network.train().roi_heads.losses(
            features, [OBJECT + 4], SIZES, [DetectionTarget(OBJECT, torch.tensor([0]))]
        )
        torch.stack(list(losses.values())).sum().backward()
        last = network.roi_heads.stages[2].box_head.fc6.weight.grad
        gradients.append((features["0"].grad, last))
    (whole, head), (part, same) = gradients
    assert whole.abs().max() > 0
    torch.testing.assert_close(part, whole / 4)
    assert torch.equal(head, same)
