"""What a detection network found, at the original size of the image: boxes scaled, masks as run lengths.

Masks over boxes (Mask R-CNN: He et al., 2017, arXiv 1703.06870, section 3.1, "Inference") are resized to their boxes;
the pixels are those of torchvision's `paste_masks_in_image`. Masks over the image (one-stage networks) are resized to
it. Only the pixels of a box, or around the cells of an object, are computed, one object after the other, and their runs
are placed in the image: no stack of masks of the image's size is ever held.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE, Bools
from segfolio.data.sample import Instances, Size
from segfolio.layers.detection import Detections


@torch.no_grad()
def instances(found: Detections, classes: Tensor, valid: Size, size: Size) -> Instances:
    """The objects of one image at its original size, on the CPU, in the order of `found`.

    The mask of a network without masks is its box.

    Args:
        classes: `[C]` int64, the dataset's class of each of the network's.
        valid: height and width of the image as the network saw it, without padding.
        size: height and width of the result.
    """
    labels, scores, boxes = classes.cpu()[found.labels.cpu()], found.scores.float().cpu(), torch.empty(0, 4)
    if found.boxes is not None:
        scale = torch.tensor(size[::-1], dtype=torch.float32) / torch.tensor(valid[::-1], dtype=torch.float32)
        boxes = found.boxes.float().cpu() * scale.repeat(2)
    if found.masks is None:
        rles = box_masks(boxes, size)
    elif found.stride is None:
        rles = paste_masks(found.masks, boxes, size, found.threshold)
    else:
        limits = boxes if found.cropped else None
        rles = image_masks(found.masks, found.stride, valid, size, found.threshold, limits)
    low, high = boxes.view(-1, 2, 2).unbind(1)
    return Instances(rles, labels, scores, None if found.boxes is None else torch.cat([low, high - low], 1))


@torch.no_grad()
def paste_masks(masks: Tensor, boxes: Tensor, size: Size, threshold: float = 0.5) -> list[RLE]:
    """Where each mask exceeds `threshold` in its box; nothing outside of the image.

    Args:
        masks: `[N, m, m]` over the boxes.
        boxes: `[N, 4]`, x1, y1, x2, y2 in pixels of the image.
        size: height and width of the image.
    """
    scale = (masks.shape[-1] + 2) / masks.shape[-1]  # a border of zeros lets the outermost cells fade out
    low, high = boxes.float().cpu().view(-1, 2, 2).unbind(1)
    centre, half = (high + low) * 0.5, (high - low) * 0.5 * scale
    corners = torch.cat([centre - half, centre + half], 1).long().tolist()
    bordered = pad(masks.float().cpu(), (1, 1, 1, 1))
    return [_paste(mask, corner, size, threshold) for mask, corner in zip(bordered, corners, strict=True)]


@torch.no_grad()
def image_masks(
    masks: Tensor, stride: int, valid: Size, size: Size, threshold: float = 0.5, boxes: Tensor | None = None
) -> list[RLE]:
    """Where each mask over the image exceeds `threshold`, read bilinearly at the original size.

    Args:
        masks: `[N, h, w]`, a cell is `stride` pixels high and wide.
        valid: height and width of the image as the network saw it, without padding.
        size: height and width of the result.
        boxes: `[N, 4]`, x1, y1, x2, y2 in pixels of the result, beyond which nothing is; none if not given.
    """
    axes = [_Axis(*lengths, stride) for lengths in zip(valid, size, masks.shape[1:], strict=True)]
    if boxes is None:  # only pixels that have a share in a cell above the threshold can be above it
        inside = masks > threshold
        extents = torch.stack([_extent(inside.any(2)), _extent(inside.any(1))], 1).flatten(1).tolist()
        parts = [(axes[0].pixels(*extent[:2]), axes[1].pixels(*extent[2:])) for extent in extents]
    else:
        parts = [(slice(top, bottom), slice(left, right)) for left, top, right, bottom in _corners(boxes, size)]
    host = masks.float().cpu()
    return [_enlarge(mask, *part, axes, size, threshold) for mask, part in zip(host, parts, strict=True)]


def box_masks(boxes: Tensor, size: Size) -> list[RLE]:
    """The pixels whose centres lie in each of `boxes`, `[N, 4]`, x1, y1, x2, y2 in pixels; `size` is the image's."""
    return [
        place(np.ones((bottom - top, right - left), np.bool_), top, left, size)
        for left, top, right, bottom in _corners(boxes, size)
    ]


def _corners(boxes: Tensor, size: Size) -> list[list[int]]:
    """The first pixel of each box and the one behind its last, in x, then in y, whose centres lie in it."""
    low, high = boxes.view(-1, 2, 2).cpu().round().long().clamp(min=0).minimum(torch.tensor(size[::-1])).unbind(1)
    return torch.cat([low, high.maximum(low)], 1).tolist()


def _paste(mask: Tensor, corners: list[int], size: Size, threshold: float) -> RLE:
    left, top, right, bottom = corners  # the last row and column included
    shape = max(1, bottom - top + 1), max(1, right - left + 1)
    inside = interpolate(mask[None, None], shape, mode="bilinear", align_corners=False)[0, 0].gt(threshold).numpy()
    y, x = max(0, top), max(0, left)
    return place(inside[y - top : max(0, size[0] - top), x - left : max(0, size[1] - left)], y, x, size)


class _Axis:
    """From the cells of a mask to the pixels of an image, along one side.

    Attributes:
        low, high: the two cells that each pixel lies between.
        weight: of the second.
    """

    def __init__(self, valid: int, pixels: int, cells: int, stride: int) -> None:
        place = torch.arange(pixels).add(0.5).mul(valid / pixels / stride).sub(0.5).clamp(0, cells - 1)
        self.low = place.long()
        self.high = self.low.add(1).clamp(max=cells - 1)
        self.weight = place - self.low

    def pixels(self, first: int, last: int) -> slice:
        """Those that have a share in a cell of `first` to `last`."""
        start = int(torch.searchsorted(self.high, first))
        return slice(start, max(start, int(torch.searchsorted(self.low, last, right=True))))

    def read(self, values: Tensor, pixels: slice) -> Tensor:
        """`[cells, K]` at some of the pixels, `[pixels, K]`."""
        low, high = values[self.low[pixels]], values[self.high[pixels]]
        return low.lerp_(high, self.weight[pixels, None])


def _extent(line: Tensor) -> Tensor:
    """Of `[N, L]` bool the first place that is set and the last, `[N, 2]`; of none the last lies before the first."""
    pixels = line.view(torch.uint8)
    first, last = pixels.argmax(1), line.shape[1] - 1 - pixels.flip(1).argmax(1)
    return torch.stack([first, torch.where(line.any(1), last, -1)], 1)


def _enlarge(mask: Tensor, rows: slice, columns: slice, axes: list[_Axis], size: Size, threshold: float) -> RLE:
    """Some of the pixels: only those that have a share in a cell above the threshold can be above it."""
    block = axes[1].read(axes[0].read(mask, rows).T, columns).gt(threshold)  # `[columns, rows]`, as runs go
    return place(block.T.numpy(), rows.start, columns.start, size)


def place(mask: Bools, top: int, left: int, size: Size) -> RLE:
    """The run lengths of an image that is empty but for `mask`, `[h, w]`, whose first pixel is at (top, left)."""
    height, width = mask.shape
    columns = np.zeros((width, height + 1), np.bool_)  # an empty pixel ends each
    columns[:, :-1] = mask.T
    flat = columns.ravel()
    column, row = np.divmod(np.flatnonzero(np.diff(flat, prepend=False)), height + 1)
    edges = (left + column) * size[0] + top + row
    if height == size[0]:  # what ends at the bottom and goes on at the next column's top is one run
        apart = np.diff(edges, prepend=-1, append=-1) != 0
        edges = edges[apart[1:] & apart[:-1]]
    runs = np.diff(edges, prepend=0, append=size[0] * size[1]).tolist()
    return rle.from_counts(runs if runs[-1] else runs[:-1], size)
