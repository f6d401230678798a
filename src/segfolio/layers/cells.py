"""Cells of several strides that each answer for an object: their places, and which of them are to answer for which.

Task-aligned assignment is that of TOOD (Feng et al., 2021, arXiv 2108.07755, section 3.2), boxes as distributions of
distances those of Generalized Focal Loss (Li et al., 2020, arXiv 2006.04388, section 3.2).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from segfolio.losses.mask_matching import iou


class Grid(NamedTuple):
    """A cells, of the finest stride first, row by row.

    Attributes:
        levels: height, width and stride of each.
        centres: `[A, 2]`, x and y in pixels.
        strides: `[A, 1]`, in pixels.
    """

    levels: tuple[tuple[int, int, int], ...]
    centres: Tensor
    strides: Tensor

    @classmethod
    def of(cls, maps: Sequence[Tensor], strides: Sequence[int]) -> "Grid":
        """Of features `[B, C, h, w]`."""
        levels, centres = [], []
        for each, stride in zip(maps, strides, strict=True):
            height, width = each.shape[-2:]
            y, x = (stride * (torch.arange(n, device=each.device, dtype=torch.float32) + 0.5) for n in (height, width))
            centres.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1))
            levels.append((height, width, stride))
        lengths = torch.tensor([len(each) for each in centres], device=centres[0].device)
        own = torch.tensor(strides, device=centres[0].device, dtype=torch.float32).repeat_interleave(lengths)
        return cls(tuple(levels), torch.cat(centres), own[:, None])

    def boxes(self, distances: Tensor) -> Tensor:
        """Of distances `[..., A, 4]` to left, top, right and bottom, in strides, x1, y1, x2, y2 in pixels."""
        low, high = (distances * self.strides).split(2, -1)
        return torch.cat([self.centres - low, self.centres + high], -1)

    def inside(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """All pairs of a box and a cell whose centre lies inside of it: places `[K]` of boxes `[N, 4]` and of cells.

        A box in which no centre lies has the cell of the finest stride that is nearest to its middle. Nothing as large
        as N x A is made.
        """
        found, first = list[tuple[Tensor, Tensor]](), 0
        missed = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
        for height, width, stride in self.levels:
            limits = torch.tensor([width, height], device=boxes.device)
            low = (boxes[:, :2] / stride - 0.5).floor().long().add(1).clamp(min=0)
            high = (boxes[:, 2:] / stride - 0.5).ceil().long().minimum(limits)
            columns, rows = (high - low).clamp(min=0).unbind(1)
            count = columns * rows
            owner = torch.arange(len(boxes), device=boxes.device).repeat_interleave(count)
            place = torch.arange(len(owner), device=boxes.device) - (count.cumsum(0) - count)[owner]
            column, row = low[owner, 0] + place % columns[owner], low[owner, 1] + place // columns[owner]
            found.append((owner, first + row * width + column))
            missed &= count == 0
            first += height * width
        height, width, stride = self.levels[0]
        middle = ((boxes[missed, :2] + boxes[missed, 2:]) / (2 * stride)).long().clamp(min=0)
        column, row = middle[:, 0].clamp(max=width - 1), middle[:, 1].clamp(max=height - 1)
        found.append((missed.nonzero()[:, 0], row * width + column))
        owners, cells = (torch.cat(each) for each in zip(*found, strict=True))
        return owners, cells


class Assigned(NamedTuple):
    """The cells that answer for an object, P of them.

    Attributes:
        image, cell: `[P]`, which.
        of: `[P]`, the object.
        score: `[P]` in 0 to 1, what the cell is to say of its class.
    """

    image: Tensor
    cell: Tensor
    of: Tensor
    score: Tensor


@torch.no_grad()
def task_aligned(
    grid: Grid,
    scores: Tensor,
    found: Tensor,
    image: Tensor,
    boxes: Tensor,
    labels: Tensor,
    top: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assigned:
    """Each of N objects, those of all images together, is answered for by the `top` cells inside of it that are best at
    it: of the highest score ** alpha * overlap ** beta. A cell that several objects want goes to the one that it
    overlaps most. A cell's score is that measure, scaled per object so that its best is its largest overlap.

    Args:
        scores: `[B, A, C]` in 0 to 1.
        found: `[B, A, 4]`, boxes in pixels.
        image: `[N]`, of each object.
        boxes: `[N, 4]`.
        labels: `[N]`.
    """
    of, cell = grid.inside(boxes)
    where = image[of]
    overlap = iou(found[where, cell], boxes[of])
    measure = scores[where, cell, labels[of]].float() ** alpha * overlap**beta
    kept = best_of_each(of, measure, top)
    of, cell, where, overlap, measure = (each[kept] for each in (of, cell, where, overlap, measure))
    kept = best_of_each(where * len(grid.centres) + cell, overlap, 1)
    of, cell, where, overlap, measure = (each[kept] for each in (of, cell, where, overlap, measure))
    best = overlap.new_zeros(2, len(boxes))
    best.scatter_reduce_(1, of.expand(2, -1), torch.stack([measure, overlap]), "amax")
    return Assigned(where, cell, of, measure / best[0, of].clamp(min=torch.finfo(torch.float32).tiny) * best[1, of])


def best_of_each(group: Tensor, value: Tensor, count: int) -> Tensor:
    """Places of the `count` largest values of each group, `[K]` each; of equal ones those that come first."""
    order = value.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    _, sizes = group[order].unique_consecutive(return_counts=True)
    rank = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return order[rank < count]


def ciou(found: Tensor, wanted: Tensor) -> Tensor:
    """Complete IoU (Zheng et al., 2020, arXiv 1911.08287) of pairs of boxes `[K, 4]`, `[K]`, at most 1."""
    return 1 - complete_box_iou_loss(found, wanted)


def two_bins(logits: Tensor, distances: Tensor) -> Tensor:
    """Distribution focal loss `[K]`, the mean of the four sides: cross-entropy of the two bins around a distance, by
    how near it is to each.

    Args:
        logits: `[K, 4, bins]`, of the distances 0, 1, ...
        distances: `[K, 4]`, in strides.
    """
    last = logits.shape[-1] - 1
    distances = distances.clamp(0, last - 0.01)
    low = distances.long()
    part = distances - low
    log = logits.float().log_softmax(-1)
    near, far = (log.gather(-1, place[..., None])[..., 0] for place in (low, low + 1))
    return -(near * (1 - part) + far * part).mean(1)
