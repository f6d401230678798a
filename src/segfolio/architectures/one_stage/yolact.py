"""YOLACT: Real-time Instance Segmentation
(Daniel Bolya, Chong Zhou, Fanyi Xiao, Yong Jae Lee, ICCV 2019), arXiv 1904.02689.

Follows sections 3 to 5: a pyramid of strides 8 to 128, three anchors in each cell, and a head that all levels share.
Of each anchor it says the class, by a softmax over classes and background whose hardest negatives are learned, the box
relative to the anchor, and 32 factors, by which as many prototypes of stride 4 are summed to a mask that ends at the
box. Fast NMS leaves the detections. A layer that testing leaves out learns which classes each cell of stride 8 is of.

Deviates:
- Images are padded to a multiple of 32, so that strides are whole: of 550 pixels there are 72 cells of stride 8, in the
  paper 69.
- A ReLU lies between the last two levels of the pyramid, whose levels are enlarged to the nearest cell: torchvision's.
- Anchors are as wide and high as the paper says; the released networks were trained with square ones by an oversight.
- Anchors of medium overlap and the best of each object are those of the proposals here; crowds are no objects and no
  excuse.
- An image without objects learns three negatives; the authors leave it out.
- Masks are learned from the shares of objects in cells of stride 4, and of all positive anchors; the authors' from
  where that share is above a half, and of 100 of an image at most.
- A mask is cut off at its box, at the image's own size, when it is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from segfolio.layers.backbones import pad_to
from segfolio.layers.cells import Grid
from segfolio.layers.detection import Detections, DetectionTarget, Objects, Size
from segfolio.layers.mask_maps import MAP_STRIDE, at_once, bce_in_boxes, covered, drawn, mask_losses
from segfolio.layers.proposals import match
from segfolio.layers.pyramid import Norm, Pyramid
from segfolio.layers.suppression import fast_nms
from segfolio.losses.over_processes import share_of_each
from segfolio.precision import as_weights, full_float32
from segfolio.weights.backbones import load_body, load_classifier

STRIDES = (8, 16, 32, 64, 128)
OVERLAPS = 2**22  # that are held at a time
CODER = BoxCoder((10.0, 10.0, 5.0, 5.0))  # SSD's


@dataclass(frozen=True)
class AnchorRecipe:
    """How anchors are assigned and weighted in training, and which detections are kept in testing.

    Attributes:
        positive_iou, negative_iou: anchors above and below are positive and negative; those between are not learned.
        negatives: for each positive anchor of an image, those of the largest loss.
        cls_weight, box_weight, mask_weight, semantic_weight: of the losses.
        score_threshold: of detections.
        top: boxes of a class that are compared with each other, at most.
        nms_iou: overlap that suppresses, within a class.
        max_detections: per image.
    """

    positive_iou: float = 0.5
    negative_iou: float = 0.4
    negatives: int = 3
    cls_weight: float = 1.0
    box_weight: float = 1.5
    mask_weight: float = 6.125
    semantic_weight: float = 1.0
    score_threshold: float = 0.05
    top: int = 200
    nms_iou: float = 0.5
    max_detections: int = 100


class YOLACT(nn.Module):
    """Anchors say class, box and a sum of prototypes.

    Args:
        num_classes: C.
        backbone: timm's name of a network with features of strides 8, 16 and 32.
        norm: of the backbone; `frozen` needs weights.
        frozen_stride: layers of the backbone up to this stride are not trained.
        channels: of the pyramid, the head and the layers before the prototypes.
        prototypes: how many.
        anchor_side: of a square anchor, in strides: 24 to 384 pixels; it is scaled as images are (section 6.1, 400 and
            700 pixels).
        aspect_ratios: of the anchors, height over width.
        recipe: of training and testing.
        weights: None; or a name of torchvision's weights of `backbone` (`IMAGENET1K_V1`); or a tag of timm's; or a file
            with the state dict of one of these, or of this network.

    Raises:
        SegfolioError: an unknown backbone or one without such features, weights that are not to be had or do not fit;
            in training, objects without masks or of a class that there is not.
    """

    paper: ClassVar[str] = "YOLACT (Bolya et al., 2019), arXiv 1904.02689"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "YOLACT, R101": {},
        "YOLACT, R50": {"backbone": "resnet50"},
        "YOLACT, Darknet53": {"backbone": "darknet53"},
    }
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "channels": 16}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        norm: Norm = "batch",
        frozen_stride: int = 0,
        channels: int = 256,
        prototypes: int = 32,
        anchor_side: float = 3.0,
        aspect_ratios: tuple[float, ...] = (1.0, 0.5, 2.0),
        recipe: AnchorRecipe = AnchorRecipe(),
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.recipe = num_classes, recipe
        self.anchor_side, self.aspect_ratios = anchor_side, aspect_ratios
        coarser = LastLevelP6P7(channels, channels)
        self.backbone = Pyramid(backbone, norm, frozen_stride, channels, strides=STRIDES[:3], coarser=coarser)
        self.head = Head(channels, len(aspect_ratios), num_classes, prototypes)
        self.prototypes = Prototypes(channels, prototypes)
        self.semantic = nn.Conv2d(channels, num_classes, 1)
        for part in (self.head, self.prototypes, self.semantic):
            part.apply(_initialise)
        if weights is not None:
            load_classifier(self, weights, backbone, lambda state: load_body(self.backbone.body, state, weights))

    def forward(
        self, images: Tensor, sizes: list[Size], targets: Sequence[DetectionTarget] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """In training the losses `cls`, `box`, `mask` and `semantic`, in evaluation what is found in each image.

        Args:
            images: `[B, 3, H, W]`, normalised, zero on the right and below where an image is smaller.
            sizes: height and width of each image without that.
            targets: of each image, in training.
        """
        levels = [as_weights(level, self.head) for level in self.backbone(pad_to(images, 32)).values()]
        said = [torch.cat(each, 1) for each in zip(*map(self.head, levels), strict=True)]
        maps = self.prototypes(levels[0])
        semantic = self.semantic(levels[0]) if self.training else None
        with full_float32(images.device):
            logits, deltas, factors, maps = (each.float() for each in (*said, maps))
            anchors, factors = self.anchors(Grid.of(levels, STRIDES)), factors.tanh()
            if semantic is not None:
                assert targets is not None
                return self.losses(anchors, logits, deltas, factors, maps, semantic.float(), targets)
            return [
                self.found(anchors, *each) for each in zip(logits.softmax(2), deltas, factors, maps, sizes, strict=True)
            ]

    def anchors(self, grid: Grid) -> Tensor:
        """`[A, 4]`, those of a cell one after the other."""
        ratio = torch.tensor(self.aspect_ratios, device=grid.centres.device)
        half = self.anchor_side / 2 * torch.stack([ratio.rsqrt(), ratio.sqrt()], 1) * grid.strides[:, None]
        return torch.cat([grid.centres[:, None] - half, grid.centres[:, None] + half], 2).flatten(0, 1)

    def losses(
        self,
        anchors: Tensor,
        logits: Tensor,
        deltas: Tensor,
        factors: Tensor,
        maps: Tensor,
        semantic: Tensor,
        targets: Sequence[DetectionTarget],
    ) -> dict[str, Tensor]:
        """All weighted; `semantic` is the mean over cells, the others are sums over anchors by the positive ones.

        Args:
            logits: `[B, A, C + 1]`.
            deltas: `[B, A, 4]`.
            factors: `[B, A, K]`.
            maps: `[B, K, h, w]`, prototypes.
            semantic: `[B, C, h / 2, w / 2]` logits.
        """
        recipe, objects = self.recipe, Objects.of(targets, self.num_classes)
        labels = logits.new_zeros(logits.shape[:2], dtype=torch.int64)  # -1 is not learned
        owners = torch.zeros_like(labels)
        for place, target in enumerate(targets):
            if len(target.labels):
                own, sign = match(target.boxes, anchors, recipe.negative_iou, recipe.positive_iou, OVERLAPS)
                labels[place] = torch.where(sign > 0, 1 + target.labels[own], sign.long())
                owners[place] = objects.firsts[place] + own
        where = image, anchor = (labels > 0).nonzero().unbind(1)
        of = owners[where]
        (whole,) = share_of_each([len(of)], logits.device)
        encoded = CODER.encode_single(objects.boxes[of], anchors[anchor])
        box = smooth_l1_loss(deltas[where], encoded, reduction="sum")
        mask = mask_losses(bce_in_boxes, image, of, factors[where], maps, objects)
        truth = torch.stack(
            [self.classes_of_cells(semantic, *each) for each in zip(objects.masks, targets, strict=True)]
        )
        beside = binary_cross_entropy_with_logits(semantic, truth, reduction="sum") / semantic[:, 0].numel()
        return {
            "cls": recipe.cls_weight * hard_negative_entropy(logits, labels, recipe.negatives) / whole,
            "box": recipe.box_weight * box / whole,
            "mask": recipe.mask_weight * mask / whole,
            "semantic": recipe.semantic_weight * beside,
        }

    def classes_of_cells(self, semantic: Tensor, masks: Tensor, target: DetectionTarget) -> Tensor:
        """Of an image, `[C, h, w]` of 0 and 1: where more than half of a cell of stride 8 is of an object of each."""
        truth, few = semantic.new_zeros(semantic.shape[1:]), at_once(masks)
        height, width = semantic.shape[2:]
        for some, labels in zip(masks.split(few), target.labels.split(few), strict=True):
            wanted = covered(some, height, width, STRIDES[0]) > STRIDES[0] ** 2 // 2
            truth.scatter_reduce_(0, labels[:, None, None].expand_as(wanted), wanted.float(), "amax")
        return truth

    def found(
        self, anchors: Tensor, scores: Tensor, deltas: Tensor, factors: Tensor, maps: Tensor, size: Size
    ) -> Detections:
        """In one image, best first; an anchor may be of several classes."""
        recipe, scores = self.recipe, scores[:, 1:]
        boxes = clip_boxes_to_image(CODER.decode_single(deltas, anchors), size)
        visible = (boxes[:, 2:] > boxes[:, :2]).all(1)
        (seen,) = (visible & (scores.amax(1) > recipe.score_threshold)).nonzero(as_tuple=True)
        place, label, score = fast_nms(boxes[seen], scores[seen], recipe.score_threshold, recipe.top, recipe.nms_iou)
        place, label, score = (each[: recipe.max_detections] for each in (seen[place], label, score))
        masks = drawn(factors[place], maps)
        return Detections(boxes[place], label, score, masks, MAP_STRIDE, threshold=0.0, cropped=True)


class Head(nn.Module):
    """What is said of the anchors of one level; of all levels it is the same."""

    def __init__(self, channels: int, anchors: int, num_classes: int, prototypes: int) -> None:
        super().__init__()
        self.anchors = anchors
        self.shared = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True))
        self.parts = nn.ModuleList(
            nn.Conv2d(channels, anchors * each, 3, padding=1) for each in (num_classes + 1, 4, prototypes)
        )

    def forward(self, level: Tensor) -> list[Tensor]:
        """`[B, D, h, w]` to logits `[B, A, C + 1]`, deltas `[B, A, 4]` and factors `[B, A, K]`."""
        features = self.shared(level)
        return [part(features).flatten(2).mT.unflatten(2, (self.anchors, -1)).flatten(1, 2) for part in self.parts]


class Prototypes(nn.Sequential):
    """Features of stride 8 to maps `[B, K, h, w]` of stride 4, none below 0 (section 3.2)."""

    def __init__(self, channels: int, prototypes: int) -> None:
        layers: list[nn.Module] = []
        for place in range(4):
            if place == 3:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Conv2d(channels, prototypes, 1), nn.ReLU(inplace=True))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.get_parameter("bias"))


def hard_negative_entropy(logits: Tensor, labels: Tensor, negatives: int) -> Tensor:
    """The sum of the cross-entropy of all positive anchors, and in each image of as many times `negatives` negative
    ones of the largest loss (SSD, arXiv 1512.02325, section 2.2); in one without positive ones of `negatives`.

    Args:
        logits: `[B, A, C + 1]`, the background first.
        labels: `[B, A]`, 0 of negative anchors, -1 of those that are not learned.
    """
    entropy = cross_entropy(logits.flatten(0, 1), labels.flatten().clamp(min=0), reduction="none").view_as(labels)
    positive, negative = labels > 0, labels == 0
    order = entropy.detach().masked_fill(~negative, -1).argsort(1, descending=True)
    wanted = negatives * positive.sum(1, keepdim=True).clamp(min=1)
    rank = torch.arange(labels.shape[1], device=labels.device).expand_as(order)
    hard = torch.zeros_like(negative).scatter_(1, order, rank < wanted) & negative
    return (entropy * (positive | hard)).sum()
