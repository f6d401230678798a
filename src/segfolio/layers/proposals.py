"""Region proposals (Ren et al., 2015, arXiv 1506.01497): torchvision's stage made robust and typed.

Differences from `torchvision.models.detection.rpn`, under whose names all weights are: boxes and scores are in float32
whatever the precision, no table grows with (anchors x objects), and no loss is NaN where nothing was sampled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import box_iou

from segfolio.layers.detection import DetectionTarget, Size
from segfolio.layers.region_pool import BUDGET
from segfolio.losses.regions import proposal_losses
from segfolio.precision import as_weights


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


class ProposalHead(RPNHead):
    """torchvision's; what it takes and gives is float32 whatever the precision of its convolutions."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward([as_weights(level, self) for level in x])
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
        self, images: Tensor, features: dict[str, Tensor], sizes: list[Size], targets: Sequence[DetectionTarget] | None
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
        sampled = torch.cat([positive, negative])
        return proposal_losses(
            objectness.flatten()[sampled],
            torch.cat(labels)[sampled],
            pred_bbox_deltas[positive],
            torch.cat(regression_targets)[positive],
            self.beta,
        )


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
