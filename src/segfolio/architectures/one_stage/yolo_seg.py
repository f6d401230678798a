"""YOLOv8-seg and YOLO11-seg
(Glenn Jocher, Ayush Chaurasia, Jing Qiu, 2023 and 2024; no paper), after YOLACT: Real-time Instance Segmentation
(Daniel Bolya, Chong Zhou, Fanyi Xiao, Yong Jae Lee, ICCV 2019), arXiv 1904.02689.

Follows what is publicly said of the networks, in modules of our own: cross-stage partial stages, a pyramid that goes
down and up again, and heads of strides 8, 16 and 32 without anchors. Each cell says the scores of all classes, its
distances to the sides of a box as distributions (arXiv 2006.04388), and 32 factors, by which as many prototypes of
stride 4 are summed to a mask that ends at the box. Cells are assigned to objects by how well they do at both tasks
(arXiv 2108.07755). Parameters, unfused and with the 16 weights of the distances, are those of the published networks.

Deviates:
- No weights of the published networks are read: their licence is the AGPL.
- Overlap in the assignment is IoU, as in that paper; complete IoU can be negative.
- An object in which no cell's centre lies is answered for by the nearest one, so that small objects are learned; of
  several that have the same one, by the cell's rule, one is.
- Masks are learned from the shares of objects in cells of stride 4, not from their nearest pixels; each in its own
  right where they overlap. A mask counts once for each cell that answers for it, with `mask_weight`.
- Class logits begin at a probability of 0.01 (RetinaNet, arXiv 1708.02002).
- A mask is cut off at its box, at the image's own size, when it is read.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from torchvision.ops import batched_nms, clip_boxes_to_image

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import pad_to
from segfolio.layers.cells import Grid, ciou, task_aligned, two_bins
from segfolio.layers.csp import C2PSA, SPPF, Bottleneck, C2f, C3k, ConvBN
from segfolio.layers.detection import RARE, Detections, DetectionTarget, Objects, Size
from segfolio.layers.mask_maps import MAP_STRIDE, bce_in_boxes, drawn, mask_losses
from segfolio.losses.over_processes import share_of_each
from segfolio.precision import full_float32

STRIDES, FACTORS = (8, 16, 32), 32
STAGES = {  # channels of the halving convolution and of the stage, blocks, part inside, and whether those are deep
    8: ((128, 128, 3, 0.5, False), (256, 256, 6, 0.5, False), (512, 512, 6, 0.5, False), (1024, 1024, 3, 0.5, False)),
    11: ((128, 256, 2, 0.25, False), (256, 512, 2, 0.25, False), (512, 512, 2, 0.5, True), (1024, 1024, 2, 0.5, True)),
}


@dataclass(frozen=True)
class CellRecipe:
    """How cells are assigned and weighted in training, and which detections are kept in testing.

    Attributes:
        top: cells per object, at most.
        alpha, beta: exponents of score and overlap in the assignment.
        box_weight, cls_weight, dfl_weight, mask_weight: of the losses.
        loss_scale: of all losses. The authors multiply theirs by the images of a batch: 64 with their learning rates.
        score_threshold: of detections: 0.001 where AP is measured.
        before_nms: detections of an image that are compared with each other, at most.
        nms_iou: overlap that suppresses, within a class.
        max_detections: per image.
    """

    top: int = 10
    alpha: float = 0.5
    beta: float = 6.0
    box_weight: float = 7.5
    cls_weight: float = 0.5
    dfl_weight: float = 1.5
    mask_weight: float = 7.5
    loss_scale: float = 1.0
    score_threshold: float = 0.001
    before_nms: int = 3000
    nms_iou: float = 0.7
    max_detections: int = 300


class Said(NamedTuple):
    """What A cells say of B images, in float32.

    Attributes:
        grid: the cells.
        bins: `[B, A, 4, bins]` logits of distances.
        boxes: `[B, A, 4]` in pixels.
        logits: `[B, A, C]`.
        factors: `[B, A, 32]`.
        maps: `[B, 32, h, w]`, prototypes.
    """

    grid: Grid
    bins: Tensor
    boxes: Tensor
    logits: Tensor
    factors: Tensor
    maps: Tensor


class Kept(NamedTuple):
    """N detections of one image: cell, class and score `[N]`, and boxes `[N, 4]`, which end with the image."""

    cell: Tensor
    label: Tensor
    score: Tensor
    boxes: Tensor


class YOLOSeg(nn.Module):
    """Objects of an image in one go.

    Args:
        num_classes: C.
        version: 8 or 11.
        depth: factor on the blocks of a stage.
        width: factor on the channels.
        max_channels: of a stage, before `width`.
        recipe: of training and testing.
        in_channels: of the images.
        bins: of the distances, which reach one stride less far than their number: boxes of up to 960 pixels with 16.

    Raises:
        SegfolioError: another version, a factor or channels not above 0, fewer than 2 bins; in training, objects
            without masks.
    """

    paper: ClassVar[str] = "YOLOv8-seg, YOLO11-seg (Jocher et al., 2023, 2024), after YOLACT, arXiv 1904.02689"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "YOLOv8n-seg": {"version": 8, "depth": 0.33, "width": 0.25, "max_channels": 1024},
        "YOLOv8s-seg": {"version": 8, "depth": 0.33, "width": 0.5, "max_channels": 1024},
        "YOLOv8m-seg": {"version": 8, "depth": 0.67, "width": 0.75, "max_channels": 768},
        "YOLOv8l-seg": {"version": 8, "depth": 1.0, "width": 1.0, "max_channels": 512},
        "YOLOv8x-seg": {"version": 8, "depth": 1.0, "width": 1.25, "max_channels": 512},
        "YOLO11n-seg": {"depth": 0.5, "width": 0.25, "max_channels": 1024},
        "YOLO11s-seg": {"depth": 0.5, "width": 0.5, "max_channels": 1024},
        "YOLO11m-seg": {"depth": 0.5, "width": 1.0, "max_channels": 512},
        "YOLO11l-seg": {"depth": 1.0, "width": 1.0, "max_channels": 512},
        "YOLO11x-seg": {"depth": 1.0, "width": 1.5, "max_channels": 512},
    }
    tiny: ClassVar[dict[str, Any]] = {"depth": 0.33, "width": 0.125}

    def __init__(
        self,
        num_classes: int,
        version: Literal[8, 11] = 11,
        depth: float = 0.5,
        width: float = 0.25,
        max_channels: int = 1024,
        recipe: CellRecipe = CellRecipe(),
        in_channels: int = 3,
        bins: int = 16,
    ) -> None:
        if version not in STAGES or min(depth, width, max_channels, recipe.loss_scale) <= 0 or bins < 2:
            raise SegfolioError(
                f"YOLOSeg: version {version}, depth {depth}, width {width}, max_channels {max_channels}, loss_scale "
                f"{recipe.loss_scale}, bins {bins}; expected version 8 or 11, at least 2 bins, the others above 0"
            )
        super().__init__()
        self.num_classes, self.recipe, self.bins = num_classes, recipe, bins
        self._told = False  # of objects beyond the reach of boxes
        scale = _Scale(version, depth, width, max_channels)
        self.backbone = Backbone(in_channels, scale)
        self.neck = Neck(scale, self.backbone.out_channels[1:])
        channels = [scale.channels(each) for each in (256, 512, 1024)]
        self.boxes = _branches(channels, max(16, channels[0] // 4, 4 * bins), 4 * bins, start=1.0)
        hidden = max(channels[0], min(num_classes, 100))
        self.classes = _branches(channels, hidden, num_classes, RARE, separable=version == 11)
        self.factors = _branches(channels, max(channels[0] // 4, FACTORS), FACTORS)
        self.prototypes = Prototypes(channels[0], scale.channels(256))
        self.distances = nn.Parameter(torch.arange(bins, dtype=torch.float32), requires_grad=False)

    def forward(
        self, images: Tensor, sizes: list[Size], targets: Sequence[DetectionTarget] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """In training the losses `box`, `cls`, `dfl` and `mask`, in evaluation what is found in each image.

        Args:
            images: `[B, C_in, H, W]`, normalised, zero on the right and below where an image is smaller.
            sizes: height and width of each image without that.
            targets: of each image, in training.
        """
        said = self.said(images)
        with full_float32(images.device):
            if self.training:
                assert targets is not None
                return self.losses(said, targets)
            each = zip(said.boxes, said.logits.sigmoid(), said.factors, said.maps, sizes, strict=True)
            return [self.found(*one) for one in each]

    def said(self, images: Tensor) -> Said:
        levels = self.neck(self.backbone(pad_to(images, STRIDES[-1])))
        said = [
            torch.cat([head(level).flatten(2) for head, level in zip(heads, levels, strict=True)], 2).mT
            for heads in (self.boxes, self.classes, self.factors)
        ]
        maps = self.prototypes(levels[0])
        with full_float32(images.device):
            sides, logits, factors, maps = (each.float() for each in (*said, maps))
            grid, bins = Grid.of(levels, STRIDES), sides.unflatten(2, (4, self.bins))
            return Said(grid, bins, grid.boxes(bins.softmax(3) @ self.distances.float()), logits, factors, maps)

    def losses(self, said: Said, targets: Sequence[DetectionTarget]) -> dict[str, Tensor]:
        """All weighted; of classes, boxes and distances the sums over cells by the sum of their scores in truth."""
        grid, bins, boxes, logits, factors, maps = said
        recipe, objects = self.recipe, Objects.of(targets, self.num_classes)
        wanted, labels, image = objects.boxes, objects.labels, objects.image
        self._check_reach(wanted)
        assigned = task_aligned(
            grid, logits.sigmoid(), boxes, image, wanted, labels, recipe.top, recipe.alpha, recipe.beta
        )
        where, of, score = (assigned.image, assigned.cell), assigned.of, assigned.score
        truth = torch.zeros_like(logits)
        truth[(*where, labels[of])] = score
        whole, masks = share_of_each([float(score.sum()), len(of)], score.device)
        low, high = wanted[of].split(2, 1)
        centres, strides = grid.centres[assigned.cell], grid.strides[assigned.cell]
        sides = torch.cat([centres - low, high - centres], 1) / strides
        box = ((1 - ciou(boxes[where], wanted[of])) * score).sum()
        dfl = (two_bins(bins[where], sides) * score).sum()
        cls = binary_cross_entropy_with_logits(logits, truth, reduction="sum")
        mask = mask_losses(bce_in_boxes, assigned.image, of, factors[where], maps, objects)
        losses = {
            "box": recipe.box_weight * box / whole,
            "cls": recipe.cls_weight * cls / whole,
            "dfl": recipe.dfl_weight * dfl / whole,
            "mask": recipe.mask_weight * mask / masks,
        }
        return {name: recipe.loss_scale * loss for name, loss in losses.items()}

    def _check_reach(self, boxes: Tensor) -> None:
        """Warns once of boxes `[N, 4]` that are larger than any that a cell can say."""
        reach = 2 * STRIDES[-1] * (self.bins - 1)
        if self._told or not len(boxes) or (longest := float((boxes[:, 2:] - boxes[:, :2]).max())) <= reach:
            return
        self._told = True
        warnings.warn(
            f"an object is {longest:.0f} pixels long, and boxes of {self.bins} bins reach {reach}: what is larger is "
            f"found in part; give `bins` at least {math.ceil(longest / 2 / STRIDES[-1]) + 1}, or smaller images",
            stacklevel=2,
        )

    def found(self, boxes: Tensor, scores: Tensor, factors: Tensor, maps: Tensor, size: Size) -> Detections:
        """In one image, best first; a cell may be of several classes."""
        kept = self.kept(boxes, scores, size)
        masks = drawn(factors[kept.cell], maps)
        return Detections(kept.boxes, kept.label, kept.score, masks, MAP_STRIDE, threshold=0.0, cropped=True)

    def kept(self, boxes: Tensor, scores: Tensor, size: Size) -> Kept:
        """Of the cells of one image those that are detections, best first, at most `recipe.max_detections`.

        Boxes that lie beyond the image, in what it is padded by, are none.
        """
        recipe, clipped = self.recipe, clip_boxes_to_image(boxes, size)
        visible = (clipped[:, 2:] > clipped[:, :2]).all(1, keepdim=True)
        cell, label = ((scores > recipe.score_threshold) & visible).nonzero().unbind(1)
        score = scores[cell, label]
        if len(score) > recipe.before_nms:
            score, order = score.topk(recipe.before_nms)
            cell, label = cell[order], label[order]
        clipped = clipped[cell]
        kept = batched_nms(clipped, score, label, recipe.nms_iou)[: recipe.max_detections]
        return Kept(cell[kept], label[kept], score[kept], clipped[kept])


class _Scale:
    """How large a network is, and of which version its stages are."""

    def __init__(self, version: int, depth: float, width: float, max_channels: int) -> None:
        self.version, self.depth, self.width, self.max_channels = version, depth, width, max_channels

    def channels(self, channels: int) -> int:
        return -(-int(min(channels, self.max_channels) * self.width) // 8) * 8

    def stage(
        self, in_channels: int, channels: int, repeats: int, hidden: float = 0.5, deep: bool = False, neck: bool = False
    ) -> C2f:
        """From actual channels to published ones.

        Args:
            repeats: blocks, before `depth`.
            hidden: part of the channels that goes through the blocks.
            deep: of version 11 with blocks of two bottlenecks; all of wide networks are.
            neck: without shortcuts in version 8.
        """
        out = self.channels(channels)
        inside = int(out * hidden)
        count = max(1, round(repeats * self.depth))
        blocks: list[nn.Module]
        if self.version == 8:
            blocks = [Bottleneck(inside, shortcut=not neck) for _ in range(count)]
        elif deep or self.width >= 1:
            blocks = [C3k(inside) for _ in range(count)]
        else:
            blocks = [Bottleneck(inside, squeeze=0.5) for _ in range(count)]
        return C2f(in_channels, out, inside, blocks)


class Backbone(nn.Module):
    """Images `[B, C_in, H, W]` to features of strides 8, 16 and 32."""

    def __init__(self, in_channels: int, scale: _Scale) -> None:
        super().__init__()
        before = scale.channels(64)
        self.stem = ConvBN(in_channels, before, 3, 2)
        self.stages, self.out_channels = nn.ModuleList(), list[int]()
        for halved, channels, repeats, hidden, deep in STAGES[scale.version]:
            enter = ConvBN(before, scale.channels(halved), 3, 2)
            stage = scale.stage(scale.channels(halved), channels, repeats, hidden, deep)
            self.stages.append(nn.Sequential(enter, stage))
            before = scale.channels(channels)
            self.out_channels.append(before)
        self.end = nn.Sequential(SPPF(before))
        if scale.version == 11:
            self.end.append(C2PSA(before, max(1, round(2 * scale.depth))))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        four, eight, sixteen, last = self.stages
        x = eight(four(self.stem(images)))
        y = sixteen(x)
        return x, y, self.end(last(y))


class Neck(nn.Module):
    """A pyramid from coarse to fine and back (PANet, arXiv 1803.01534)."""

    def __init__(self, scale: _Scale, in_channels: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = in_channels
        repeats = 3 if scale.version == 8 else 2
        narrow, half = scale.channels(256), scale.channels(512)
        self.up_middle = scale.stage(coarse + middle, 512, repeats, neck=True)
        self.up_fine = scale.stage(half + fine, 256, repeats, neck=True)
        self.down_fine = ConvBN(narrow, narrow, 3, 2)
        self.middle = scale.stage(narrow + half, 512, repeats, neck=True)
        self.down_middle = ConvBN(half, half, 3, 2)
        self.coarse = scale.stage(half + coarse, 1024, repeats, deep=True, neck=True)

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        fine, middle, coarse = features
        between = self.up_middle(torch.cat([interpolate(coarse, scale_factor=2.0), middle], 1))
        fine = self.up_fine(torch.cat([interpolate(between, scale_factor=2.0), fine], 1))
        middle = self.middle(torch.cat([self.down_fine(fine), between], 1))
        return fine, middle, self.coarse(torch.cat([self.down_middle(middle), coarse], 1))


class Prototypes(nn.Sequential):
    """Features of stride 8 to maps `[B, 32, H / 4, W / 4]`."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(
            ConvBN(in_channels, channels, 3),
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
            ConvBN(channels, channels, 3),
            ConvBN(channels, FACTORS),
        )


def _branch(in_channels: int, hidden: int, channels: int, start: float, separable: bool) -> nn.Sequential:
    convs: list[nn.Module] = []
    for before in (in_channels, hidden):
        if separable:
            convs += [ConvBN(before, before, 3, groups=before), ConvBN(before, hidden)]
        else:
            convs.append(ConvBN(before, hidden, 3))
    last = nn.Conv2d(hidden, channels, 1)
    nn.init.constant_(last.get_parameter("bias"), start)
    return nn.Sequential(*convs, last)


def _branches(
    in_channels: Sequence[int], hidden: int, channels: int, start: float = 0.0, separable: bool = False
) -> nn.ModuleList:
    """Of each level the last layers, which are not shared; what they say begins at `start`."""
    return nn.ModuleList(_branch(each, hidden, channels, start, separable) for each in in_channels)
