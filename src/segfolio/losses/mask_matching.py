"""Which query answers for which segment: costs of all pairs, and the assignment of least cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import grid_sample, softplus
from torchvision.ops import generalized_box_iou

from segfolio.errors import SegfolioError

MaskLoss = Literal["bce", "focal"]
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2


@dataclass
class MaskTarget:
    """The truth of one image.

    Attributes:
        labels: `[N]` int64, classes of the segments.
        masks: `[N, H, W]` bool.
        valid: `[H, W]` bool, pixels that count; all where None.
        boxes: `[N, 4]`, x and y of the centre, width and height, in parts of W and H; None where none are learned.
    """

    labels: Tensor
    masks: Tensor
    valid: Tensor | None = None
    boxes: Tensor | None = None


@dataclass(frozen=True)
class Weights:
    """Of the terms, in the costs and in the losses."""

    classes: float
    mask: float
    dice: float
    box: float = 0.0
    giou: float = 0.0


def random_points(sets: int, points: int, device: torch.device) -> Tensor:
    """`[sets, points, 2]`, x and y in -1 to 1, the borders of a map."""
    return torch.rand(sets, points, 2, device=device).mul_(2).sub_(1)


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """`[M, K, h, w]` read bilinearly at `points` `[M, P, 2]`, to `[M, K, P]`; beyond the borders is 0."""
    return grid_sample(maps, points[:, :, None], align_corners=False)[..., 0]


def class_costs(class_logits: Tensor, labels: Tensor, weights: Weights) -> Tensor:
    """`[Q, N]`, of class logits `[Q, C + 1]` for segments of classes `[N]`."""
    return -weights.classes * class_logits.softmax(-1)[:, labels]


def pair_costs(
    class_logits: Tensor,
    mask_logits: Tensor,
    labels: Tensor,
    masks: Tensor,
    valid: Tensor | None,
    weights: Weights,
    kind: MaskLoss,
) -> Tensor:
    """What it costs to let each query answer for each segment of an image.

    Args:
        class_logits: `[Q, C + 1]`.
        labels: `[N]`.

    The others, by name, are those of `mask_costs`.

    Returns:
        `[Q, N]`.
    """
    return class_costs(class_logits, labels, weights) + mask_costs(mask_logits, masks, valid, weights, kind)


def mask_costs(mask_logits: Tensor, masks: Tensor, valid: Tensor | None, weights: Weights, kind: MaskLoss) -> Tensor:
    """The part of the masks, `[Q, N]`.

    Mask loss and overlap are linear in the truth, so that matrix products compare all pairs.

    Args:
        mask_logits: `[Q, P]`, at P points or pixels.
        masks: `[N, P]` in 0 to 1.
        valid: `[P]`, 1 where a point counts and 0 elsewhere; None where all count.
    """

    def summed(values: Tensor) -> Tensor:
        return (values.sum(-1) if valid is None else values @ valid)[:, None]

    truth = (masks if valid is None else masks * valid).T
    probability = mask_logits.sigmoid()
    dice = 1 - (2 * probability @ truth + 1) / (summed(probability) + truth.sum(0) + 1)
    if kind == "bce":  # softplus(x) - x t
        mask = summed(softplus(mask_logits)) - mask_logits @ truth
    else:
        absent = (1 - FOCAL_ALPHA) * probability**FOCAL_GAMMA * softplus(mask_logits)
        present = FOCAL_ALPHA * (1 - probability) ** FOCAL_GAMMA * softplus(-mask_logits)
        mask = summed(absent) + (present - absent) @ truth
    number = mask_logits.shape[-1] if valid is None else valid.sum().clamp_min(1)
    return weights.mask * mask / number + weights.dice * dice


def box_costs(boxes: Tensor, truth: Tensor, weights: Weights) -> Tensor:
    """What it costs to let each query answer for each segment of an image by their boxes (DETR, arXiv 2005.12872).

    Args:
        boxes: `[Q, 4]`, x and y of the centre, width and height, in parts of the image's.
        truth: `[N, 4]`, likewise.

    Returns:
        `[Q, N]`.
    """
    distance = torch.cdist(boxes, truth, p=1)
    return weights.box * distance - weights.giou * generalized_box_iou(corners(boxes), corners(truth))


def corners(boxes: Tensor) -> Tensor:
    """`[N, 4]`, centre and sides, to left, top, right and bottom."""
    centre, sides = boxes.split(2, -1)
    return torch.cat([centre - sides / 2, centre + sides / 2], -1)


def iou(found: Tensor, wanted: Tensor) -> Tensor:
    """Of pairs of boxes `[..., 4]`, left, top, right and bottom, `[...]`."""
    (low, high), (start, end) = (each.split(2, -1) for each in (found, wanted))
    shared = (high.minimum(end) - low.maximum(start)).clamp(min=0).prod(-1)
    return shared / ((high - low).prod(-1) + (end - start).prod(-1) - shared)


def boxes_around(masks: Tensor) -> Tensor:
    """The smallest boxes `[N, 4]` around masks `[N, H, W]`: centre and sides in parts of W and H; 0 of empty masks."""
    spans = []
    for line in (masks.any(1), masks.any(2)):  # columns, rows
        length = line.shape[1]
        first, last = line.float().argmax(1), length - line.flip(1).float().argmax(1)
        spans.append(torch.stack([(first + last) / 2, last - first]) / length * line.any(1))
    (x, width), (y, height) = spans
    return torch.stack([x, y, width, height], 1)


def assign(costs: Tensor, counts: Sequence[int]) -> Tensor:
    """The query of each segment, by least total cost of an image; of all layers and images with one copy to the host.

    Args:
        costs: `[L, Q, N]`, of L decoder layers and the segments of all images; what is not finite is a last resort.
        counts: segments of each image.

    Returns:
        `[L, N]` int64; -1 for segments that find all queries of their image taken.
    """
    host = costs.nan_to_num(1e6, 1e6, 1e6).cpu()
    found = torch.full((host.shape[0], host.shape[2]), -1)
    for layer, row in zip(host, found, strict=True):
        for cost, matches in zip(layer.split(list(counts), 1), row.split(list(counts)), strict=True):
            queries, segments = map(torch.from_numpy, linear_sum_assignment(cost))
            matches[segments] = queries
    return found.to(costs.device)


def one_query_per_class(targets: Sequence[MaskTarget], queries: int, classes: int) -> Tensor:
    """`[N]`, the query of each segment where query k answers for class k (MaskFormer, section 4.3).

    Raises:
        SegfolioError: not as many queries as classes, or two segments of one class in an image.
    """
    check_one_per_class(queries, classes)
    found = torch.cat([t.labels for t in targets])
    for image, labels in enumerate(found.cpu().split([len(t.labels) for t in targets])):
        if (most := labels.bincount(minlength=classes)).max() > 1:
            raise SegfolioError(
                f"fixed matching has one query per class, but image {image} of the batch has {most.max()} segments of "
                f"class {most.argmax()}; make one mask per class of them, or use matching: bipartite"
            )
    return found


def check_one_per_class(queries: int, classes: int) -> None:
    """Refuse fixed matching of other than one query for each class.

    Raises:
        SegfolioError: so.
    """
    if queries != classes:
        raise SegfolioError(
            f"fixed matching lets query k answer for class k, but the network has {queries} queries for {classes} "
            f"classes; give it {classes} queries, or use matching: bipartite"
        )
