"""Region-based networks: what they are given and return, and torchvision's stages made robust and typed.

Differences from `torchvision.models.detection`, under whose names all weights are: boxes and scores are in float32
under mixed precision, regions are pooled by the strides of the feature maps, which are not inferred from the first
image, no table grows with (anchors x objects), masks become float and detections pass the mask head in parts, and no
loss is NaN where nothing was sampled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import box_iou

from segfolio.errors import SegfolioError
from segfolio.layers.region_pool import BUDGET, Size, mask_targets

MASKS_AT_ONCE = 100
"""Detections in the mask head at one time: one image's in COCO's protocol."""


class RegionTarget(NamedTuple):
    """The objects of one image, in truth.

    Attributes:
        boxes: `[N, 4]` float, x1, y1, x2, y2 in pixels, of positive width and height.
        labels: `[N]` int64, 0 to C - 1.
        masks: `[N, H, W]` bool, of the padded image or its valid part; None where boxes alone are learned.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None = None


class Detections(NamedTuple):
    """The objects found in one image, best first.

    Attributes:
        boxes: `[N, 4]` float, x1, y1, x2, y2 in pixels, inside the valid part.
        labels: `[N]` int64, 0 to C - 1.
        scores: `[N]` float in 0 to 1.
        masks: `[N, m, m]` probabilities over the box; None of networks without masks.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class ProposalRecipe:
    """How regions are proposed; pairs are of training and testing. Faster R-CNN with FPN by default.

    Attributes:
        anchor_sizes: in pixels, of each feature map.
        aspect_ratios: height over width.
        convs: 3x3 convolutions of the head.
        samples: anchors per image in the loss.
        positive_fraction: of the samples, at most.
        positive_iou, negative_iou: anchors above and below are positive and negative.
        before_nms, after_nms: proposals that are kept of each feature map, and of the image.
        nms_iou: overlap that suppresses.
        beta: where the loss of an anchor's box turns from quadratic to linear; 0 is L1 (Detectron2).
    """

    anchor_sizes: tuple[tuple[int, ...], ...] = ((32,), (64,), (128,), (256,), (512,))
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    convs: int = 1
    samples: int = 256
    positive_fraction: float = 0.5
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    before_nms: tuple[int, int] = (2000, 1000)
    after_nms: tuple[int, int] = (2000, 1000)
    nms_iou: float = 0.7
    beta: float = 1 / 9


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


class ProposalHead(RPNHead):
    """torchvision's, in float32 whatever the precision of its convolutions."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in deltas]


class ProposalNetwork(RegionProposalNetwork):
    """Region proposal network (Ren et al., 2015, arXiv 1506.01497, section 3)."""

    def __init__(self, channels: int, recipe: ProposalRecipe) -> None:
        anchors = AnchorGenerator(recipe.anchor_sizes, (recipe.aspect_ratios,) * len(recipe.anchor_sizes))
        super().__init__(
            anchors,
            ProposalHead(channels, anchors.num_anchors_per_location()[0], recipe.convs),
            recipe.positive_iou,
            recipe.negative_iou,
            recipe.samples,
            recipe.positive_fraction,
            dict(zip(("training", "testing"), recipe.before_nms, strict=True)),
            dict(zip(("training", "testing"), recipe.after_nms, strict=True)),
            recipe.nms_iou,
        )
        self.beta = recipe.beta

    def propose(
        self, images: Tensor, features: dict[str, Tensor], sizes: list[Size], targets: Sequence[RegionTarget] | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Boxes `[N, 4]` of each image, and in training the losses `rpn_cls` and `rpn_box`."""
        truth = None if targets is None else [{"boxes": target.boxes} for target in targets]
        boxes, losses = self(ImageList(images, sizes), features, truth)
        names = {"loss_objectness": "rpn_cls", "loss_rpn_box_reg": "rpn_box"}
        return boxes, {names[name]: loss for name, loss in losses.items()}

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        matcher = self.proposal_matcher
        labels, matched = [], []
        for boxes, target in zip(anchors, targets, strict=True):
            truth = target["boxes"]
            if len(truth):
                place, label = match(truth, boxes, matcher.low_threshold, matcher.high_threshold)
                matched.append(truth[place])
            else:
                label = boxes.new_zeros(len(boxes))
                matched.append(torch.zeros_like(boxes))
            labels.append(label)
        return labels, matched

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        positive, negative = (torch.cat(chosen).nonzero()[:, 0] for chosen in self.fg_bg_sampler(labels))
        sampled, wanted = torch.cat([positive, negative]), torch.cat(regression_targets)[positive]
        box = F.smooth_l1_loss(pred_bbox_deltas[positive], wanted, beta=self.beta, reduction="sum")
        logits, label = objectness.flatten()[sampled], torch.cat(labels)[sampled]
        count = max(1, len(sampled))
        return F.binary_cross_entropy_with_logits(logits, label, reduction="sum") / count, box / count


def match(truth: Tensor, anchors: Tensor, low: float, high: float, budget: int = BUDGET) -> tuple[Tensor, Tensor]:
    """Each anchor's object and label: 1 from `high` on, 0 below `low`, else -1. An object's best anchors are positive.

    An object that overlaps no anchor has none; torchvision gives it all that do not overlap it.

    Args:
        truth: boxes `[N, 4]`, N > 0.
        anchors: boxes `[A, 4]`.
        budget: overlaps held at one time; it does not change the result.

    Returns:
        the place of the object of largest overlap, `[A]` int64, and the label, `[A]` float.
    """
    chunks = anchors.split(max(1, budget // len(truth)))
    whole = [box_iou(truth, anchors)] if len(chunks) == 1 else []

    def tables() -> Iterable[Tensor]:
        return whole or map(partial(box_iou, truth), chunks)

    best, found = torch.zeros_like(truth[:, 0]), []
    for table in tables():
        found.append(table.max(0))
        best = torch.maximum(best, table.amax(1))
    best[best == 0] = -1
    forced = torch.cat([(table == best[:, None]).any(0) for table in tables()])
    value, place = (torch.cat(parts) for parts in zip(*found, strict=True))
    label = torch.where(value < low, 0.0, -1.0)
    return place, label.masked_fill(forced | (value >= high), 1.0)


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
        targets: Sequence[RegionTarget],
    ) -> dict[str, Tensor]:
        """`cls` and `box`, and `mask` where masks are predicted."""
        proposals, matched, labels, encoded = self.select_training_samples(proposals, as_torchvision(targets))
        regions = self.box_head(self.box_roi_pool(features, proposals, sizes))
        logits, deltas = self.box_predictor(regions)
        losses = box_losses(logits, deltas, torch.cat(labels), torch.cat(encoded), self.recipe.beta)
        if self.mask_predictor is not None:
            losses["mask"] = self.mask_loss(features, regions, proposals, matched, labels, sizes, targets)
        return losses

    def detect(self, features: dict[str, Tensor], proposals: list[Tensor], sizes: list[Size]) -> list[Detections]:
        """The detections of each image, with masks where they are predicted."""
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, sizes)))
        found = self.postprocess_detections(logits, deltas, proposals, sizes)
        return self.with_masks(features, sizes, *found)

    def mask_loss(
        self,
        features: dict[str, Tensor],
        regions: Tensor,
        proposals: list[Tensor],
        matched: list[Tensor],
        labels: list[Tensor],
        sizes: list[Size],
        targets: Sequence[RegionTarget],
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
            regions = self.mask_head(self.mask_roi_pool(features, boxes, sizes))
        logits = self.mask_predictor(regions).float()
        label = torch.cat(labels)[torch.cat(positive)]
        wanted = [
            mask_targets(target.masks, box, place[chosen], logits.shape[-1], self.recipe.aligned)
            for target, box, place, chosen in zip(targets, boxes, matched, positive, strict=True)
            if target.masks is not None
        ]
        own = logits[torch.arange(len(label), device=label.device), label]
        loss = F.binary_cross_entropy_with_logits(own, torch.cat(wanted), reduction="sum")
        return loss / max(1, own.numel())

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
                logits = self.mask_predictor(head(regions)).float()
                found.append(logits[torch.arange(len(label), device=label.device), label].sigmoid())
            masks = torch.cat(found).split([len(box) for box in boxes])
        return [
            Detections(box, label - 1, score, mask)
            for box, label, score, mask in zip(boxes, labels, scores, masks, strict=True)
        ]


def as_torchvision(targets: Sequence[RegionTarget]) -> list[dict[str, Any]]:
    """Under torchvision's names, with the background as class 0."""
    return [{"boxes": target.boxes, "labels": target.labels + 1, "masks": target.masks} for target in targets]


def box_losses(
    logits: Tensor, deltas: Tensor, labels: Tensor, encoded: Tensor, beta: float = 1 / 9
) -> dict[str, Tensor]:
    """`cls`: cross-entropy; `box`: smooth L1 of the positive regions' boxes. Both are per sampled region.

    Args:
        logits: `[N, C + 1]`.
        deltas: `[N, 4 (C + 1)]`, or `[N, 4]` of all classes.
        labels: `[N]` int64, 0 for background.
        encoded: `[N, 4]`, the deltas that lead to the object.
        beta: where smooth L1 turns from quadratic to linear; 0 is L1.
    """
    positive = labels.nonzero()[:, 0]
    own = labels[positive] if deltas.shape[1] > 4 else torch.zeros_like(positive)
    found = deltas.view(len(deltas), deltas.shape[1] // 4, 4)[positive, own]
    box = F.smooth_l1_loss(found, encoded[positive], beta=beta, reduction="sum")
    count = max(1, len(labels))
    return {"cls": F.cross_entropy(logits, labels, reduction="sum") / count, "box": box / count}
