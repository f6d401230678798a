"""Cascade R-CNN: High Quality Object Detection and Instance Segmentation
(Zhaowei Cai, Nuno Vasconcelos, CVPR 2018, TPAMI 2019), arXiv 1906.09756; first arXiv 1712.00726.

Follows section 4: three second stages, each fed with the boxes of the one before and trained on overlaps from 0.5, 0.6
and 0.7 on; one box for all classes, its deltas scaled anew for each stage; scores are the mean of the three
classifiers'. The losses of the stages weigh 1, 1/2, 1/4, as in github.com/zhaoweicai/cascade-rcnn, the authors';
Detectron2 weighs them alike and divides the gradient of pooled regions by three instead. Cascade Mask R-CNN is the same
with masks.

Deviates:
- As Mask R-CNN here does.
- Of the paper's three places for the mask branch it is the first stage, as in Detectron2; masks are read off in the
  last stage's boxes.
- The three scores that are averaged are each stage's for the boxes it was given, as in later releases; the paper
  applies all classifiers to the last boxes.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from segfolio.architectures.region_based.faster_rcnn import FasterRCNN
from segfolio.architectures.region_based.mask_rcnn import MaskRCNN
from segfolio.errors import SegfolioError
from segfolio.layers.detection import Detections, DetectionTarget, Size
from segfolio.layers.regions import Predictor, RegionHeads, RegionRecipe, as_torchvision, run_head
from segfolio.losses.regions import box_losses


class Stage(NamedTuple):
    positive_iou: float
    box_weights: tuple[float, float, float, float]


STAGES = (
    Stage(0.5, (10.0, 10.0, 5.0, 5.0)),
    Stage(0.6, (20.0, 20.0, 10.0, 10.0)),
    Stage(0.7, (30.0, 30.0, 15.0, 15.0)),
)


class CascadeHeads(nn.Module):
    """Second stages in a row, of which the first has the masks, if any."""

    def __init__(self, stages: Sequence[RegionHeads], recipe: RegionRecipe) -> None:
        super().__init__()
        self.stages: Any = nn.ModuleList(stages)
        self.recipe = recipe

    def losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[Size],
        targets: Sequence[DetectionTarget],
    ) -> dict[str, Tensor]:
        """`cls` and `box` of the first stage, `mask`, and `cls_2`, `box_2`, `cls_3`, `box_3`; weighted."""
        truth = as_torchvision(targets)
        losses: dict[str, Tensor] = {}
        boxes, matched, labels, encoded = self.stages[0].select_training_samples(proposals, truth)
        for number, (stage, weight) in enumerate(zip(self.stages, self.recipe.stage_weights, strict=True), 1):
            if number > 1:
                labels, encoded = assign(stage, boxes, truth)
            pooled = stage.box_roi_pool(features, boxes, sizes)
            if pooled.requires_grad:
                pooled.register_hook(lambda gradient: gradient * self.recipe.gradient_scale)
            regions = run_head(stage.box_head, pooled)
            logits, deltas = stage.box_predictor(regions)
            own = box_losses(logits, deltas, torch.cat(labels), torch.cat(encoded), self.recipe.beta)
            losses |= {f"{name}_{number}" if number > 1 else name: weight * own[name] for name in own}
            if stage.mask_predictor is not None:
                losses["mask"] = stage.learn_masks(features, regions, boxes, matched, labels, sizes, targets)
            boxes = refine(stage, deltas.detach(), boxes, sizes)
        return losses

    def detect(self, features: dict[str, Tensor], proposals: list[Tensor], sizes: list[Size]) -> list[Detections]:
        """The detections of each image, with masks where they are predicted."""
        first, last = self.stages[0], self.stages[-1]
        boxes, scores = proposals, []
        for stage in self.stages:
            logits, deltas = stage.box_predictor(run_head(stage.box_head, stage.box_roi_pool(features, boxes, sizes)))
            scores.append(logits.softmax(-1))
            if stage is not last:
                boxes = refine(stage, deltas, boxes, sizes)
        mean = torch.stack(scores).mean(0)
        # a softmax of its logarithm gives it back; all classes share the box
        found = last.postprocess_detections(mean.log(), deltas.repeat(1, mean.shape[1]), boxes, sizes)
        return first.with_masks(features, sizes, *found)


class CascadeRCNN(FasterRCNN):
    """Faster R-CNN with three second stages. Arguments are those of `FasterRCNN`; `roi.positive_iou` is not read.

    Raises:
        SegfolioError: as `FasterRCNN`, and for the neck `c4`.
    """

    paper: ClassVar[str] = "Cascade R-CNN (Cai & Vasconcelos, 2019), arXiv 1906.09756"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "Cascade R-CNN, R50-FPN": {},
        "Cascade R-CNN, R101-FPN": {"backbone": "resnet101"},
    }

    def make_heads(
        self, num_classes: int, recipe: RegionRecipe, box_head: nn.Module, width: int, box_convs: int
    ) -> Any:
        if self.neck == "c4":
            raise SegfolioError("Cascade R-CNN has no shared res5 head; take the neck fpn or dc5")
        heads = [box_head, *(self.linear_head(box_convs) for _ in STAGES[1:])]
        masks = [self.masks(num_classes, width), *[(None, None, None)] * len(STAGES[1:])]
        return CascadeHeads(
            [
                RegionHeads(
                    replace(recipe, positive_iou=stage.positive_iou),
                    self.box_pool(),
                    head,
                    Predictor(width, num_classes, class_agnostic=True),
                    *mask,
                    box_weights=stage.box_weights,
                )
                for stage, head, mask in zip(STAGES, heads, masks, strict=True)
            ],
            recipe,
        )


class CascadeMaskRCNN(CascadeRCNN, MaskRCNN):
    """Cascade R-CNN with masks."""

    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "Cascade Mask R-CNN, R50-FPN": {},
        "Cascade Mask R-CNN, R101-FPN": {"backbone": "resnet101"},
        "Cascade Mask R-CNN, X101-32x8d-FPN": {"backbone": "resnext101_32x8d"},
    }


def assign(stage: RegionHeads, boxes: list[Tensor], truth: list[dict[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
    """The labels of boxes by the overlap that `stage` asks for, and the deltas from each to its object."""
    objects = [target["boxes"].to(box) for box, target in zip(boxes, truth, strict=True)]
    matched, labels = stage.assign_targets_to_proposals(boxes, objects, [target["labels"] for target in truth])
    own = [
        objects_here[place] if len(objects_here) else torch.zeros_like(box)
        for objects_here, place, box in zip(objects, matched, boxes, strict=True)
    ]
    return labels, list(stage.box_coder.encode(own, boxes))


def refine(stage: RegionHeads, deltas: Tensor, boxes: list[Tensor], sizes: list[Size]) -> list[Tensor]:
    """The boxes that `stage` makes of those it was given, inside the images."""
    moved = stage.box_coder.decode(deltas, boxes).view(-1, 4).split([len(box) for box in boxes])
    return [clip_boxes_to_image(box, size) for box, size in zip(moved, sizes, strict=True)]
