"""SOLOv2: Dynamic and Fast Instance Segmentation
(Xinlong Wang, Rufeng Zhang, Tao Kong, Lei Li, Chunhua Shen, NeurIPS 2020), arXiv 2003.10152.

Follows section 3: an image is divided into grids of 40 to 12 cells a side, each on a level of the pyramid, each for
objects of a range of sizes. A cell near the middle of an object says its class and a kernel of one pixel, which draws
its mask on features of stride 4 that all cells share. Kernels and mask features are told where they are (CoordConv,
arXiv 1807.03247). Matrix NMS lowers the scores of masks that were found before. What the paper leaves open, as which
cells are asked, is as MMDetection's reimplementation has it, whose figures are those of the authors.

Deviates:
- Objects of any size are learned: the smallest range begins at 0, the largest has no end.
- A cell that several objects want answers for the smallest; in the reimplementation for the last of them in class, for
  all of them in masks.
- Masks are learned from the shares of objects in cells of stride 4, not from where that is above a half: an object of
  two pixels would have no mask.
- Grids lie over an image with its padding, as in the reimplementation, but no mask is compared there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d
from torchvision.ops import Conv2dNormActivation, sigmoid_focal_loss

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import pad_to
from segfolio.layers.cells import best_of_each
from segfolio.layers.detection import RARE, Detections, DetectionTarget, Objects, Size
from segfolio.layers.mask_maps import MAP_STRIDE, at_once, drawn, mask_losses
from segfolio.layers.pyramid import Norm, Pyramid, group_norm
from segfolio.layers.suppression import Decay, matrix_nms
from segfolio.losses.over_processes import over_processes
from segfolio.precision import as_weights, full_float32
from segfolio.weights.backbones import load_body, load_classifier

STRIDES = (8, 8, 16, 32, 32)  # that the levels are brought to before their grids; a mask has more cells of stride 4


@dataclass(frozen=True)
class GridRecipe:
    """Which objects a grid learns, how much, and which detections are kept in testing.

    Attributes:
        ranges: of each grid, of the square root of width times height of a box in pixels.
        middle: part of an object's box around its centre of mass whose cells answer for it, 3 x 3 of them at most.
        cls_weight, mask_weight: of the losses.
        alpha, gamma: of the focal loss (arXiv 1708.02002).
        score_threshold: of detections, before masks are drawn.
        mask_threshold: of the probability of a pixel.
        before_nms: masks of an image that are compared with each other, at most.
        decay, sigma: of Matrix NMS.
        kept_score: of detections, after it.
        max_detections: per image.
    """

    ranges: tuple[tuple[float, float], ...] = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))
    middle: float = 0.2
    cls_weight: float = 1.0
    mask_weight: float = 3.0
    alpha: float = 0.25
    gamma: float = 2.0
    score_threshold: float = 0.1
    mask_threshold: float = 0.5
    before_nms: int = 500
    decay: Decay = "gaussian"
    sigma: float = 2.0
    kept_score: float = 0.05
    max_detections: int = 100


LIGHT: dict[str, Any] = {
    "head_channels": 256,
    "convs": 2,
    "kernel_channels": 128,
    "recipe": GridRecipe(ranges=((1, 56), (28, 112), (56, 224), (112, 448), (224, 896))),
}


class SOLOv2(nn.Module):
    """Cells of grids say classes, and kernels that draw masks.

    Args:
        num_classes: C.
        backbone: timm's name of a network with features of strides 4 to 32.
        norm: of the backbone. `frozen` needs weights; from scratch take `group`.
        frozen_stride: layers of the backbone up to this stride are not trained; 0 from scratch.
        channels: of the pyramid.
        head_channels, convs: of the 3x3 convolutions before classes and kernels.
        mask_channels: of those before the features that masks are drawn on.
        kernel_channels: of these, and of a kernel.
        grids: cells a side, of each level of the pyramid.
        recipe: of training and testing.
        weights: None; or a name of torchvision's weights of `backbone` (`IMAGENET1K_V1`); or a tag of timm's; or a file
            with the state dict of one of these, or of this network.

    Raises:
        SegfolioError: an unknown backbone or one without such features, not five grids and ranges, weights that are not
            to be had or do not fit; in training, objects without masks or of a class that there is not.
    """

    paper: ClassVar[str] = "SOLOv2 (Wang et al., 2020), arXiv 2003.10152"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "SOLOv2, R50": {},
        "SOLOv2, R101": {"backbone": "resnet101"},
        "SOLOv2-Light, R50": LIGHT,
        "SOLOv2-Light, R34": {"backbone": "resnet34", **LIGHT},
        "SOLOv2-Light, R18": {"backbone": "resnet18", **LIGHT},
    }
    tiny: ClassVar[dict[str, Any]] = {
        **{"backbone": "test_resnet", "channels": 16, "head_channels": 16, "convs": 1},
        **{"mask_channels": 8, "kernel_channels": 16, "grids": (10, 9, 6, 4, 3)},
    }

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        norm: Norm = "frozen",
        frozen_stride: int = 4,
        channels: int = 256,
        head_channels: int = 512,
        convs: int = 4,
        mask_channels: int = 128,
        kernel_channels: int = 256,
        grids: tuple[int, ...] = (40, 36, 24, 16, 12),
        recipe: GridRecipe = GridRecipe(),
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if not len(grids) == len(recipe.ranges) == len(STRIDES):
            raise SegfolioError(
                f"there are {len(grids)} grids and {len(recipe.ranges)} recipe.ranges; give one of each for each of "
                f"the {len(STRIDES)} levels of the pyramid"
            )
        self.num_classes, self.grids, self.recipe = num_classes, tuple(grids), recipe
        self.backbone = Pyramid(backbone, norm, frozen_stride, channels)
        self.classes = _branch(channels, head_channels, convs, num_classes)
        self.kernels = _branch(channels + 2, head_channels, convs, kernel_channels)
        self.features = MaskFeatures(channels, mask_channels, kernel_channels)
        for part in (self.classes, self.kernels, self.features):
            part.apply(_initialise)
        nn.init.constant_(self.classes[-1].get_parameter("bias"), RARE)
        if weights is not None:
            load_classifier(self, weights, backbone, lambda state: load_body(self.backbone.body, state, weights))

    def forward(
        self, images: Tensor, sizes: list[Size], targets: Sequence[DetectionTarget] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """In training the losses `cls` and `mask`, in evaluation what is found in each image.

        Args:
            images: `[B, 3, H, W]`, normalised, zero on the right and below where an image is smaller.
            sizes: height and width of each image without that.
            targets: of each image, in training.
        """
        images = pad_to(images, 32)
        levels = [as_weights(level, self.features) for level in self.backbone(images).values()]
        maps = self.features(levels[:4])
        gridded = self.gridded(levels)
        classes = [self.classes(level[:, :-2]) for level in gridded]
        kernels = [self.kernels(level) for level in gridded]
        with full_float32(images.device):
            logits, factors = (_cells(each) for each in (classes, kernels))
            if self.training:
                assert targets is not None
                return self.losses(logits, factors, maps.float(), targets)
            scores = _cells([_peaks(level.float().sigmoid()) for level in classes])
            return [self.found(*each) for each in zip(scores, factors, maps.float(), sizes, strict=True)]

    def gridded(self, levels: list[Tensor]) -> list[Tensor]:
        """The levels of the pyramid, with the place of each cell as two more channels, brought to their grids."""
        halved = interpolate(levels[0], scale_factor=0.5, mode="bilinear")
        doubled = interpolate(levels[4], levels[3].shape[-2:], mode="bilinear")
        return [
            interpolate(with_places(level), (grid, grid), mode="bilinear")
            for level, grid in zip((halved, *levels[1:4], doubled), self.grids, strict=True)
        ]

    def losses(
        self, logits: Tensor, factors: Tensor, maps: Tensor, targets: Sequence[DetectionTarget]
    ) -> dict[str, Tensor]:
        """Both weighted: of classes the sum over cells by one more than the cells that answer, of masks the mean.

        Args:
            logits: `[B, A, C]`.
            factors: `[B, A, K]`, the kernels.
            maps: `[B, K, h, w]`, what they are applied to.
        """
        recipe, objects = self.recipe, Objects.of(targets, self.num_classes)
        extent = MAP_STRIDE * maps.shape[2], MAP_STRIDE * maps.shape[3]
        image, cell, of = answering(objects, self.grids, extent, recipe)
        sums, processes = over_processes([len(of)], logits.device)
        cells, masks = (sums + 1)[0] / processes, sums.clamp(min=1)[0] / processes
        truth = torch.zeros_like(logits)
        truth[image, cell, objects.labels[of]] = 1
        cls = sigmoid_focal_loss(logits, truth, recipe.alpha, recipe.gamma, reduction="sum")
        mask = mask_losses(dice, image, of, factors[image, cell], maps, objects)
        return {
            "cls": recipe.cls_weight * cls / cells,
            "mask": recipe.mask_weight * mask / masks,
        }

    def found(self, scores: Tensor, factors: Tensor, maps: Tensor, size: Size) -> Detections:
        """In one image, best first; a cell may be of several classes.

        Masks are drawn a few at a time and only where the image is; all that are compared are held as bits.
        """
        recipe, maps = self.recipe, maps[:, : -(-size[0] // MAP_STRIDE), : -(-size[1] // MAP_STRIDE)]
        cell, label = (scores > recipe.score_threshold).nonzero().unbind(1)
        asked, which = cell.unique(return_inverse=True)  # of several classes a cell draws one mask
        measures = [self.measured(some, factors, maps) for some in asked.split(at_once(maps))]
        area, sure = (torch.cat(each)[which] for each in zip(*measures, strict=True))
        least = torch.cat([area.new_full((n**2,), stride) for n, stride in zip(self.grids, STRIDES, strict=True)])
        (kept,) = (area > least[cell]).nonzero(as_tuple=True)
        score, order = (scores[cell, label] * sure)[kept].sort(descending=True)
        kept, score = kept[order[: recipe.before_nms]], score[: recipe.before_nms]
        cell, label = cell[kept], label[kept]
        if len(cell):
            drawings = (drawn(factors[some], maps).sigmoid().flatten(1) for some in cell.split(at_once(maps)))
            bits = torch.cat([each > recipe.mask_threshold for each in drawings])
            score = matrix_nms(bits, label, score, recipe.decay, recipe.sigma)
            score, order = score.sort(descending=True)
            order = order[score >= recipe.kept_score][: recipe.max_detections]
            score, cell, label = score[: len(order)], cell[order], label[order]
        masks = drawn(factors[cell], maps).sigmoid()
        return Detections(None, label, score, masks, MAP_STRIDE, recipe.mask_threshold)

    def measured(self, cells: Tensor, factors: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Of the masks that some cells draw, how many cells of the map are inside, and how sure these are in the mean;
        `[N]` each."""
        masks = drawn(factors[cells], maps).sigmoid()
        inside = masks > self.recipe.mask_threshold
        area = inside.sum((1, 2))
        return area, (masks * inside).sum((1, 2)) / area.clamp(min=1)


class MaskFeatures(nn.Module):
    """Levels of strides 4 to 32 to features of stride 4, enlarged step by step and summed (Panoptic FPN, arXiv
    1901.02446); the last is told where its cells are.
    """

    def __init__(self, in_channels: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        for place in range(4):
            steps: list[nn.Module] = []
            before = in_channels + 2 * (place == 3)
            for _ in range(max(1, place)):
                steps.append(_conv(before, hidden))
                before = hidden
                if place:
                    steps.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            self.steps.append(nn.Sequential(*steps))
        self.last = _conv(hidden, channels, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:
        *finer, coarsest = levels
        each = zip(self.steps, (*finer, with_places(coarsest)), strict=True)
        return self.last(torch.stack([step(level) for step, level in each]).sum(0))


def with_places(level: Tensor) -> Tensor:
    """`[B, D, h, w]` to `[B, D + 2, h, w]`: x and y from -1 to 1."""
    y, x = (torch.linspace(-1, 1, n, device=level.device, dtype=level.dtype) for n in level.shape[2:])
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"))
    return torch.cat([level, places.expand(len(level), -1, -1, -1)], 1)


def _conv(in_channels: int, channels: int, kernel: int = 3) -> nn.Module:
    return Conv2dNormActivation(in_channels, channels, kernel, norm_layer=group_norm)


def _branch(in_channels: int, hidden: int, convs: int, channels: int) -> nn.Sequential:
    before = (in_channels, *[hidden] * (convs - 1))
    return nn.Sequential(*(_conv(each, hidden) for each in before), nn.Conv2d(hidden, channels, 3, padding=1))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _cells(grids: list[Tensor]) -> Tensor:
    """`[B, D, n, n]` of each grid to `[B, A, D]`, row by row, in float32."""
    return torch.cat([each.flatten(2) for each in grids], 2).mT.float()


def _peaks(scores: Tensor) -> Tensor:
    """`[B, C, n, n]`, 0 where the cell above, to the left, or between these two has a higher one."""
    highest = max_pool2d(scores, 2, stride=1, padding=1)[:, :, :-1, :-1]
    return scores * (scores == highest)


@torch.no_grad()
def answering(
    objects: Objects, grids: Sequence[int], extent: Size, recipe: GridRecipe
) -> tuple[Tensor, Tensor, Tensor]:
    """The cells that answer for an object, `[P]` each: of which image, which one, and for which object.

    Args:
        extent: height and width of the images with their padding.
    """
    limits = torch.tensor(extent[::-1], device=objects.boxes.device)
    centre = torch.cat([centres_of_mass(masks) for masks in objects.masks]) / limits
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    area, half = sides.prod(1), recipe.middle / 2 * sides / limits
    found, first = list[tuple[Tensor, Tensor]](), 0
    around = torch.arange(-1, 2, device=centre.device)
    for place, (grid, (smallest, largest)) in enumerate(zip(grids, recipe.ranges, strict=True)):
        low, high = 0 if place == 0 else smallest, torch.inf if place == len(grids) - 1 else largest
        (of,) = ((area.sqrt() >= low) & (area.sqrt() <= high)).nonzero(as_tuple=True)
        start, own, end = (
            (each[of] * grid).long().clamp(0, grid - 1)[..., None] for each in (centre - half, centre, centre + half)
        )
        wanted = own + around  # `[n, 2, 3]`, columns and rows
        inside = (wanted >= start) & (wanted <= end)
        number, row, column = (inside[:, 1, :, None] & inside[:, 0, None]).nonzero().unbind(1)
        found.append((of[number], first + wanted[number, 1, row] * grid + wanted[number, 0, column]))
        first += grid**2
    of, cell = (torch.cat(each) for each in zip(*found, strict=True))
    kept = best_of_each(objects.image[of] * first + cell, -area[of], 1)
    return objects.image[of[kept]], cell[kept], of[kept]


def centres_of_mass(masks: Tensor) -> Tensor:
    """Of masks `[N, H, W]` bool, none empty, x and y in pixels, `[N, 2]`."""
    some = masks.split(at_once(masks))  # a sum of bits takes eight bytes for each
    sums = [torch.cat([each.sum(axis) for each in some]).float() for axis in (1, 2)]  # of columns and of rows
    return torch.stack(
        [(line * (torch.arange(line.shape[1], device=line.device) + 0.5)).sum(1) / line.sum(1) for line in sums], 1
    )


def dice(logits: Tensor, truth: Tensor, boxes: Tensor) -> Tensor:
    """Of each mask `1 - 2 sum(p t) / (sum(p p) + sum(t t))`; their sum (SOLO, arXiv 1912.04488, equation 4)."""
    found = logits.sigmoid()
    both, own, wanted = ((x * y).sum((1, 2)) for x, y in ((found, truth), (found, found), (truth, truth)))
    return (1 - 2 * both / (own + wanted)).sum()
