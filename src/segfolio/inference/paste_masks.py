"""What a region-based network found, at the original size of the image: boxes scaled, masks pasted as run lengths.

Mask R-CNN (He et al., 2017, arXiv 1703.06870, section 3.1, "Inference"): a mask is resized to its box and binarised at
0.5. Pixels are those of torchvision's `paste_masks_in_image`, but only those of the box are computed, one object
after the other, and their runs are placed in the image: no mask of the image's size is ever held.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE, Bools
from segfolio.data.sample import Instances, Size
from segfolio.layers.regions import Detections


@torch.no_grad()
def instances(found: Detections, classes: Tensor, valid: Size, size: Size) -> Instances:
    """The objects of one image at its original size, on the CPU, in the order of `found`.

    The mask of a network without masks is its box.

    Args:
        classes: `[C]` int64, the dataset's class of each of the network's.
        valid: height and width of the image as the network saw it, without padding.
        size: height and width of the result.
    """
    scale = torch.tensor(size[::-1], dtype=torch.float32) / torch.tensor(valid[::-1], dtype=torch.float32)
    boxes = found.boxes.float().cpu() * scale.repeat(2)
    rles = box_masks(boxes, size) if found.masks is None else paste_masks(found.masks, boxes, size)
    low, high = boxes.view(-1, 2, 2).unbind(1)
    labels = classes.cpu()[found.labels.cpu()]
    return Instances(rles, labels, found.scores.float().cpu(), torch.cat([low, high - low], 1))


@torch.no_grad()
def paste_masks(masks: Tensor, boxes: Tensor, size: Size) -> list[RLE]:
    """Where each mask exceeds 0.5 in its box; nothing outside of the image.

    Args:
        masks: `[N, m, m]` probabilities over the boxes.
        boxes: `[N, 4]`, x1, y1, x2, y2 in pixels of the image.
        size: height and width of the image.
    """
    scale = (masks.shape[-1] + 2) / masks.shape[-1]  # a border of zeros lets the outermost cells fade out
    low, high = boxes.float().cpu().view(-1, 2, 2).unbind(1)
    centre, half = (high + low) * 0.5, (high - low) * 0.5 * scale
    corners = torch.cat([centre - half, centre + half], 1).long().tolist()
    bordered = pad(masks.float().cpu(), (1, 1, 1, 1))
    return [_paste(mask, corner, size) for mask, corner in zip(bordered, corners, strict=True)]


def box_masks(boxes: Tensor, size: Size) -> list[RLE]:
    """The pixels whose centres lie in each of `boxes`, `[N, 4]`, x1, y1, x2, y2 in pixels; `size` is the image's."""
    corners = boxes.view(-1, 2, 2).cpu().round().long().clamp(min=0).minimum(torch.tensor(size[::-1]))
    return [
        _place(np.ones((max(0, bottom - top), max(0, right - left)), np.bool_), top, left, size)
        for left, top, right, bottom in corners.flatten(1).tolist()
    ]


def _paste(mask: Tensor, corners: list[int], size: Size) -> RLE:
    left, top, right, bottom = corners  # the last row and column included
    shape = max(1, bottom - top + 1), max(1, right - left + 1)
    inside = interpolate(mask[None, None], shape, mode="bilinear", align_corners=False)[0, 0].gt(0.5).numpy()
    y, x = max(0, top), max(0, left)
    return _place(inside[y - top : max(0, size[0] - top), x - left : max(0, size[1] - left)], y, x, size)


def _place(mask: Bools, top: int, left: int, size: Size) -> RLE:
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
