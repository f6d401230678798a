"""Masks over the image as sums of maps of stride 4 that all objects of it share: prototypes (YOLACT: Bolya et al.,
2019, arXiv 1904.02689, section 3.2), or features that a kernel of one pixel is applied to (SOLOv2: Wang et al., 2020,
arXiv 2003.10152, section 3.1).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, pad
from torch.utils.checkpoint import checkpoint

from segfolio.layers.detection import Objects

MAP_STRIDE = 4
_NUMBERS = 4_000_000  # pixels of masks that are held as floats at a time

Measure = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits `[P, h, w]`, the shares of objects in their cells, likewise, and boxes `[P, 4]` to the sum of P losses."""


def drawn(factors: Tensor, maps: Tensor) -> Tensor:
    """Factors `[P, K]` of maps `[K, h, w]` to logits `[P, h, w]`."""
    return (factors @ maps.flatten(1)).unflatten(1, maps.shape[1:])


def at_once(maps: Tensor) -> int:
    """How many masks over maps `[..., h, w]` are held as floats at a time."""
    return max(1, _NUMBERS // (maps.shape[-2] * maps.shape[-1]))


def mask_losses(measure: Measure, image: Tensor, of: Tensor, factors: Tensor, maps: Tensor, objects: Objects) -> Tensor:
    """The sum of the losses of P masks. Few are held at a time, in the backward pass too.

    Args:
        image: `[P]`, of each.
        of: `[P]`, the object that it is of.
        factors: `[P, K]`.
        maps: `[B, K, h, w]`.
    """
    total = 0 * (maps.sum() + factors.sum())  # no parameter is without a gradient
    for place, masks in enumerate(objects.masks):
        for some in (image == place).nonzero()[:, 0].split(at_once(maps)):
            known, which = (of[some] - objects.firsts[place]).unique(return_inverse=True)
            truth = covered(masks[known], *maps.shape[2:])
            each = factors[some], maps[place], truth, which, objects.boxes[of[some]]
            total = total + checkpoint(_measured, measure, *each, use_reentrant=False)
    return total


def _measured(measure: Measure, factors: Tensor, maps: Tensor, truth: Tensor, which: Tensor, boxes: Tensor) -> Tensor:
    """Of P masks, whose objects are `which` `[P]` of the N of `truth`, `[N, h, w]` in pixels of each cell."""
    return measure(drawn(factors, maps), truth[which].float() / MAP_STRIDE**2, boxes)


def bce_in_boxes(logits: Tensor, truth: Tensor, boxes: Tensor) -> Tensor:
    """Of each mask the mean binary cross-entropy of the cells that its box touches; their sum (YOLACT, section 3.3)."""
    y, x = (MAP_STRIDE * (torch.arange(n, device=logits.device, dtype=torch.float32) + 0.5) for n in logits.shape[1:])
    x1, y1, x2, y2 = boxes.T[..., None]
    inside = _near(y, y1, y2)[:, :, None] & _near(x, x1, x2)[:, None]
    loss = binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return ((loss * inside).sum((1, 2)) / inside.sum((1, 2))).sum()


def _near(centres: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """`[P, n]`, the cells that a side of a box, from `low` to `high` `[P, 1]`, touches."""
    half = MAP_STRIDE / 2
    return (centres > low - half) & (centres < high + half)


def covered(masks: Tensor, height: int, width: int, stride: int = MAP_STRIDE) -> Tensor:
    """Masks `[N, H, W]` bool to how many pixels of each cell they cover, `[N, height, width]` uint8.

    Args:
        stride: of the cells, at most 15; what lies beyond the last is left out, what is missing is empty.
    """
    missing = (0, stride * width - masks.shape[2], 0, stride * height - masks.shape[1])
    cells = pad(masks.view(torch.uint8), missing).unflatten(2, (width, stride)).unflatten(1, (height, stride))
    return cells.sum((2, 4), dtype=torch.uint8)
