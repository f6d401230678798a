"""RoIAlign (He et al., 2017, arXiv 1703.06870, section 3): regions cut out of feature maps, and of masks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align
from torchvision.ops.poolers import LevelMapper

from segfolio.layers.detection import Size

BUDGET = 2**24
"""Numbers in the largest table of overlaps, or in the masks in float, held at one time: 64 MiB."""


class RegionPool(nn.Module):
    """Regions of one size from the feature map that fits each (FPN, section 4.2), of maps named 0, 1, ...

    torchvision's `MultiScaleRoIAlign` infers the strides from the first image, and keeps what a small one told it; it
    knows no `aligned`.

    Args:
        strides: of the maps, in pixels.
        size: height and width of a pooled region.
        sampling_ratio: points per bin in each direction; 0 for as many as there are pixels.
        aligned: a pixel's value is at its centre, not at its upper left corner (Detectron2's `ROIAlignV2`).
    """

    def __init__(self, strides: Sequence[int], size: int, sampling_ratio: int = 2, aligned: bool = False) -> None:
        super().__init__()
        self.strides, self.size = tuple(strides), size
        self.sampling_ratio, self.aligned = sampling_ratio, aligned
        self.level = LevelMapper(strides[0].bit_length() - 1, strides[-1].bit_length() - 1)

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: list[Size]) -> Tensor:
        """Of maps `[B, D, h, w]` and boxes `[N, 4]` of each image, `[sum of N, D, size, size]`."""
        levels = self.level(boxes)
        owners = [torch.full_like(box[:, :1], place) for place, box in enumerate(boxes)]
        regions = torch.cat([torch.cat(owners), torch.cat(boxes)], 1)
        result = features["0"].new_zeros(len(regions), features["0"].shape[1], self.size, self.size)
        for place, stride in enumerate(self.strides):
            here = (levels == place).nonzero()[:, 0]
            scale, ratio = 1 / stride, self.sampling_ratio
            result[here] = roi_align(features[str(place)], regions[here], self.size, scale, ratio, self.aligned)
        return result


def mask_targets(
    masks: Tensor, boxes: Tensor, place: Tensor, size: int, aligned: bool = False, budget: int = BUDGET
) -> Tensor:
    """The masks cut out by boxes and resized: `[N, size, size]` float.

    Args:
        masks: `[M, H, W]` bool.
        boxes: `[N, 4]` in pixels.
        place: `[N]` int64, of each box's mask among the M.
        aligned: see `RegionPool`.
        budget: pixels held in float at one time; it does not change the result.
    """
    used, own = place.unique(return_inverse=True)
    result = boxes.new_zeros(len(boxes), size, size)
    step = max(1, budget // masks[0].numel()) if len(used) else 1
    for start in range(0, len(used), step):
        here = (own >= start) & (own < start + step)
        regions = torch.cat([own[here, None] - start, boxes[here]], 1)
        some = masks[used[start : start + step], None].to(boxes)
        result[here] = roi_align(some, regions, size, aligned=aligned)[:, 0]
    return result
