"""The second stage of region-based networks: torchvision's made robust and typed.

Differences from `torchvision.models.detection.roi_heads`, under whose names all weights are: boxes and scores are in
float32 whatever the precision, masks become float and detections pass the mask head in parts, and no loss is NaN where
nothing was sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads

from segfolio.errors import SegfolioError
from segfolio.layers.detection import Detections, DetectionTarget, Size
from segfolio.layers.region_pool import mask_targets
from segfolio.losses.regions import box_losses, mask_loss
from segfolio.precision import as_weights

MASKS_AT_ONCE = 100
"""Detections in the mask head at one time: one image's in COCO's protocol."""


@dataclass(frozen=True)
class RegionRecipe:
    """How regions are sampled in training and kept in testing. Mask R-CNN with FPN by default.

    Attributes:
        samples: regions per image in the losses.
        positive_fraction: of the samples, at most.
        positive_iou: overlap with an object from which a region is positive.
        score_threshold: of detections.
        nms_iou: overlap that suppresses, within a class.
        max_detections: per image.
        beta: where the loss of a region's box turns from quadratic to linear: 1/9 in torchvision, 1 in the paper and in
            Detectron, 0, which is L1, in Detectron2.
        sampling_ratio, aligned: of RoIAlign, see `RegionPool`: 2, false in torchvision and Detectron; 0, true in
            Detectron2.
        stage_weights, gradient_scale: of Cascade R-CNN: of the stages' losses, and of the gradient that reaches the
            features through the regions pooled for classes and boxes.
    """

    samples: int = 512
    positive_fraction: float = 0.25
    positive_iou: float = 0.5
    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100
    beta: float = 1 / 9
    sampling_ratio: int = 2
    aligned: bool = False
    stage_weights: tuple[float, float, float] = (1.0, 0.5, 0.25)
    gradient_scale: float = 1.0


class Predictor(FastRCNNPredictor):
    """Scores of C + 1 classes and boxes, in float32, of vectors `[N, D]` or of maps `[N, D, h, w]`, then averaged.

    Args:
        num_classes: C; the background is added, as class 0.
        class_agnostic: one box for all classes.
    """

    def __init__(self, in_channels: int, num_classes: int, class_agnostic: bool = False) -> None:
        super().__init__(in_channels, num_classes + 1)
        if class_agnostic:
            self.bbox_pred = nn.Linear(in_channels, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `[N, C + 1]` and deltas `[N, 4 (C + 1)]`, or `[N, 4]`."""
        logits, deltas = super().forward(x.mean((2, 3)) if x.ndim == 4 else x)
        return logits.float(), deltas.float()


class RegionHeads(RoIHeads):
    """The second stage: pooled regions to classes, boxes and, where there is a mask predictor, masks.

    Args:
        pool, head, predictor: of classes and boxes.
        mask_pool, mask_head: None where masks are predicted from the features of `head`, as in C4.
        mask_predictor: `[N, D, h, w]` to logits `[N, C + 1, m, m]`.
        box_weights: factors on the deltas of x, y, width and height.
    """

    def __init__(
        self,
        recipe: RegionRecipe,
        pool: nn.Module,
        head: nn.Module,
        predictor: nn.Module,
        mask_pool: nn.Module | None = None,
        mask_head: nn.Module | None = None,
        mask_predictor: nn.Module | None = None,
        box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0),
    ) -> None:
        super().__init__(
            pool,
            head,
            predictor,
            recipe.positive_iou,
            recipe.positive_iou,
            recipe.samples,
            recipe.positive_fraction,
            box_weights,
            recipe.score_threshold,
            recipe.nms_iou,
            recipe.max_detections,
            mask_pool,
            mask_head,
            mask_predictor,
        )
        self.recipe = recipe

    def losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[Size],
        targets: Sequence[DetectionTarget],
    ) -> dict[str, Tensor]:
        """`cls` and `box`, and `mask` where masks are predicted."""
        proposals, matched, labels, encoded = self.select_training_samples(proposals, as_torchvision(targets))
        regions = run_head(self.box_head, self.box_roi_pool(features, proposals, sizes))
        logits, deltas = self.box_predictor(regions)
        losses = box_losses(logits, deltas, torch.cat(labels), torch.cat(encoded), self.recipe.beta)
        if self.mask_predictor is not None:
            losses["mask"] = self.learn_masks(features, regions, proposals, matched, labels, sizes, targets)
        return losses

    def detect(self, features: dict[str, Tensor], proposals: list[Tensor], sizes: list[Size]) -> list[Detections]:
        """The detections of each image, with masks where they are predicted."""
        logits, deltas = self.box_predictor(run_head(self.box_head, self.box_roi_pool(features, proposals, sizes)))
        found = self.postprocess_detections(logits, deltas, proposals, sizes)
        return self.with_masks(features, sizes, *found)

    def learn_masks(
        self,
        features: dict[str, Tensor],
        regions: Tensor,
        proposals: list[Tensor],
        matched: list[Tensor],
        labels: list[Tensor],
        sizes: list[Size],
        targets: Sequence[DetectionTarget],
    ) -> Tensor:
        """Binary cross-entropy of the mask of the true class, mean over the pixels of all positive regions.

        Raises:
            SegfolioError: objects without masks.
        """
        if any(target.masks is None for target in targets):
            raise SegfolioError("this network learns masks, but the objects have boxes alone; take FasterRCNN instead")
        positive = [label > 0 for label in labels]
        boxes = [box[chosen] for box, chosen in zip(proposals, positive, strict=True)]
        if self.mask_roi_pool is None:
            regions = regions[torch.cat(positive)]
        else:
            regions = run_head(self.mask_head, self.mask_roi_pool(features, boxes, sizes))
        logits = self.mask_predictor(regions).float()
        label = torch.cat(labels)[torch.cat(positive)]
        wanted = [
            mask_targets(target.masks, box, place[chosen], logits.shape[-1], self.recipe.aligned)
            for target, box, place, chosen in zip(targets, boxes, matched, positive, strict=True)
            if target.masks is not None
        ]
        return mask_loss(logits, label, torch.cat(wanted))

    def with_masks(
        self,
        features: dict[str, Tensor],
        sizes: list[Size],
        boxes: list[Tensor],
        scores: list[Tensor],
        labels: list[Tensor],
    ) -> list[Detections]:
        """Detections with classes from 0 on; masks are of the class found."""
        masks: Sequence[Tensor | None] = [None] * len(boxes)
        if self.mask_predictor is not None:
            pool, head = self.mask_roi_pool or self.box_roi_pool, self.mask_head or self.box_head
            owner = torch.cat([torch.full_like(label, place) for place, label in enumerate(labels)])
            found = []
            parts = (torch.cat(columns).split(MASKS_AT_ONCE) for columns in (boxes, labels, [owner]))
            for box, label, place in zip(*parts, strict=True):
                regions = pool(features, [box[place == image] for image in range(len(boxes))], sizes)
                logits = self.mask_predictor(run_head(head, regions)).float()
                found.append(logits[torch.arange(len(label), device=label.device), label].sigmoid())
            masks = torch.cat(found).split([len(box) for box in boxes])
        return [
            Detections(box, label - 1, score, mask)
            for box, label, score, mask in zip(boxes, labels, scores, masks, strict=True)
        ]


def run_head(head: nn.Module, regions: Tensor) -> Tensor:
    """What a head makes of regions, which are pooled in float32."""
    return head(as_weights(regions, head))


def as_torchvision(targets: Sequence[DetectionTarget]) -> list[dict[str, Any]]:
    """Under torchvision's names, with the background as class 0."""
    return [{"boxes": target.boxes, "labels": target.labels + 1, "masks": target.masks} for target in targets]
