"""The smallest network of the one-stage kind: no proposals, masks over the image, losses of its own."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits, pad
from torchvision.ops import batched_nms, clip_boxes_to_image

from segfolio.layers.backbones import pad_to
from segfolio.layers.detection import Detections, DetectionTarget, Size

STRIDE, PROTOTYPES = 4, 8


class OneStage(nn.Module):
    """YOLACT (Bolya et al., 2019, arXiv 1904.02689) in small: each cell says class, box and a sum of prototypes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        convs = (nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, 2, 1), nn.Conv2d(32, 64, 3, 1, 2, 2))
        self.body = nn.Sequential(*(m for c in convs for m in (c, nn.GroupNorm(4, c.out_channels), nn.ReLU())))
        self.parts = (num_classes, 4, PROTOTYPES)
        self.cells, self.prototypes = nn.Conv2d(64, sum(self.parts), 3, padding=1), nn.Conv2d(64, PROTOTYPES, 1)
        nn.init.constant_(self.cells.bias[:num_classes], -4)  # most cells have no object

    def forward(
        self, images: Tensor, sizes: list[Size], targets: list[DetectionTarget] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        features = self.body(pad_to(images, STRIDE))
        y, x = torch.meshgrid(*(STRIDE * (torch.arange(n) + 0.5) for n in features.shape[-2:]), indexing="ij")
        centres = torch.stack([x, y], -1).flatten(0, 1)
        logits, sides, factors = self.cells(features).flatten(2).mT.split(self.parts, 2)
        low, high = sides.exp().mul(STRIDE).split(2, 2)
        boxes = torch.cat([centres - low, centres + high], 2)
        each = zip(logits, boxes, factors, self.prototypes(features), strict=True)
        if self.training:
            assert targets is not None
            losses = [self.losses(centres, *one, truth) for one, truth in zip(each, targets, strict=True)]
            return {name: torch.stack([one[name] for one in losses]).mean() for name in losses[0]}
        return [self.found(centres, *one, size) for one, size in zip(each, sizes, strict=True)]

    def losses(
        self, centres: Tensor, logits: Tensor, boxes: Tensor, factors: Tensor, maps: Tensor, truth: DetectionTarget
    ) -> dict[str, Tensor]:
        """Of one image; the cell nearest to an object's middle answers for it."""
        assert truth.masks is not None
        own = torch.cdist((truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2, centres).argmin(1)
        labels = torch.zeros_like(logits)
        labels[own, truth.labels] = 1
        (height, width), (here, wide) = truth.masks.shape[1:], maps.shape[1:]
        padded = pad(truth.masks.float(), (0, STRIDE * wide - width, 0, STRIDE * here - height))
        shown = inside(truth.boxes, centres)
        wanted = avg_pool2d(padded[None], STRIDE)[0].flatten(1)[shown]
        return {
            "cls": binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(own),
            "box": (boxes[own] - truth.boxes).abs().mean() / STRIDE,
            "mask": binary_cross_entropy_with_logits((factors[own] @ maps.flatten(1))[shown], wanted),
        }

    def found(
        self, centres: Tensor, logits: Tensor, boxes: Tensor, factors: Tensor, maps: Tensor, size: Size
    ) -> Detections:
        """In one image; masks are logits, and none beyond their boxes."""
        scores, labels = logits.sigmoid().max(1)
        boxes = clip_boxes_to_image(boxes, size)
        kept = batched_nms(boxes, scores, labels, 0.5)[:20]
        masks = (factors[kept] @ maps.flatten(1)).masked_fill(~inside(boxes[kept], centres), -5)
        return Detections(
            boxes[kept], labels[kept], scores[kept], masks.unflatten(1, maps.shape[1:]), STRIDE, threshold=0.0
        )


def inside(boxes: Tensor, centres: Tensor) -> Tensor:
    """`[N, cells]`, the cells that boxes touch."""
    low, high = boxes[:, None].split(2, 2)
    return ((centres > low - STRIDE / 2) & (centres < high + STRIDE / 2)).all(2)
