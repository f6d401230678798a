"""What a set of queries loses against the objects of an image, where classes are scores of their own
(LW-DETR: Chen et al., 2024, arXiv 2406.03459, section 3.2; RF-DETR: Robinson et al., 2025, arXiv 2511.09554).

Each object is matched with the query that fits it best, in each layer and in each group of queries anew. A matched
query learns to score its class by how well its box fits (Align-DETR, arXiv 2304.07527), its box, and its mask at some
points; all others learn that they are of no class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from torch.utils.checkpoint import checkpoint
from torchvision.ops import generalized_box_iou_loss

from segfolio.losses.mask_matching import (
    FOCAL_ALPHA,
    FOCAL_GAMMA,
    MaskTarget,
    Weights,
    assign,
    at_points,
    box_costs,
    corners,
    iou,
    mask_costs,
    random_points,
)

_NUMBERS = 4_000_000  # cells of masks that are compared at a time
_OVERSAMPLE, _UNCERTAIN = 3, 0.75  # of the points of a mask, as PointRend draws them (arXiv 1912.08193)
_LEAST = 0.01  # that a matched query is to score


@dataclass(frozen=True)
class SetWeights:
    """How much the parts of the losses weigh, and of the costs by which queries are matched.

    Attributes:
        class_weight, box_weight, giou_weight, mask_weight, dice_weight: of the losses.
        class_cost: of the class in the matching, where the others weigh as in the losses.
        cells_per_point: of a mask one point is compared for so many cells.
    """

    class_weight: float = 1.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    class_cost: float = 2.0
    cells_per_point: int = 16


class SetLayer(NamedTuple):
    """What G groups of Q queries say in a layer.

    Attributes:
        logits: `[B, G Q, C]`.
        boxes: `[B, G Q, 4]`, centre and sides in parts of the image's width and height.
        readers, pixels: `[B, G Q, D]` and `[B, D, h, w]`, whose products are the masks' logits.
    """

    logits: Tensor
    boxes: Tensor
    readers: Tensor
    pixels: Tensor


def set_losses(
    layers: Sequence[SetLayer],
    targets: Sequence[MaskTarget],
    groups: int,
    stride: int,
    weights: SetWeights,
    number: Tensor,
) -> dict[str, Tensor]:
    """The weighted losses `cls`, `box`, `giou`, `mask` and `dice`, each summed over the layers. Objects that find all
    queries taken are not learned.

    Args:
        layers: float32.
        targets: of each image, with boxes; masks start at the upper left of the pixels and may end before them.
        stride: of the pixels.
        number: that losses are divided by, of objects and groups.
    """
    counts = [len(target.labels) for target in targets]
    labels = torch.cat([target.labels for target in targets])
    boxes = torch.cat([target.boxes for target in targets if target.boxes is not None])
    image = torch.arange(len(targets), device=labels.device).repeat_interleave(torch.tensor(counts).to(labels.device))
    queries = layers[0].logits.shape[1] // groups
    match = _match(layers, targets, groups, stride, weights)  # [L, G, N]
    found = dict.fromkeys(("cls", "box", "giou", "mask", "dice"), torch.zeros((), device=labels.device))
    for layer, of_layer in zip(layers, match, strict=True):
        group, place = (of_layer >= 0).nonzero(as_tuple=True)
        row = group * queries + of_layer[group, place]
        at, truth = (image[place], row), boxes[place]
        said = layer.boxes[at]
        found["cls"] = found["cls"] + _class_loss(layer.logits, at, labels[place], said, truth)
        found["box"] = found["box"] + (said - truth).abs().sum() + 0 * layer.boxes.sum()
        found["giou"] = found["giou"] + generalized_box_iou_loss(corners(said), corners(truth), reduction="sum")
        mask, dice = _mask_losses(layer, targets, counts, at, place, stride, weights.cells_per_point)
        found["mask"], found["dice"] = found["mask"] + mask, found["dice"] + dice
    factors = (weights.class_weight, weights.box_weight, weights.giou_weight, weights.mask_weight, weights.dice_weight)
    return {name: factor * loss / number for factor, (name, loss) in zip(factors, found.items(), strict=True)}


@torch.no_grad()
def _match(
    layers: Sequence[SetLayer], targets: Sequence[MaskTarget], groups: int, stride: int, weights: SetWeights
) -> Tensor:
    """`[L, G, N]`, the query of each object in its group, -1 of none. All of an image are compared at one set of
    points."""
    of = Weights(weights.class_cost, weights.mask_weight, weights.dice_weight, weights.box_weight, weights.giou_weight)
    costs = []
    for i, target in enumerate(targets):
        assert target.boxes is not None
        size = layers[0].pixels.shape[-2:]
        points = random_points(1, max(1, size.numel() // weights.cells_per_point), target.labels.device)
        truth = _masks_at(target.masks, points.expand(len(target.masks), -1, -1), size, stride)
        found = []
        for layer in layers:
            masks = layer.readers[i] @ at_points(layer.pixels[i][None], points)[0]
            cost = of.classes * _focal_costs(layer.logits[i], target.labels)
            cost += mask_costs(masks, truth, None, of, "bce") + box_costs(layer.boxes[i], target.boxes, of)
            found.append(cost.unflatten(0, (groups, -1)))
        costs.append(torch.stack(found).flatten(0, 1))
    match = assign(torch.cat(costs, -1), [len(target.labels) for target in targets])
    return match.unflatten(0, (len(layers), groups))


def _focal_costs(logits: Tensor, labels: Tensor) -> Tensor:
    """`[Q, N]`, what the focal loss of a class grows by where it is there, of logits `[Q, C]`."""
    of_labels = logits[:, labels]
    probability = of_labels.sigmoid()
    present = FOCAL_ALPHA * (1 - probability) ** FOCAL_GAMMA * -logsigmoid(of_labels)
    return present - (1 - FOCAL_ALPHA) * probability**FOCAL_GAMMA * -logsigmoid(-of_labels)


def _class_loss(logits: Tensor, at: tuple[Tensor, Tensor], labels: Tensor, boxes: Tensor, truth: Tensor) -> Tensor:
    """The sum over all queries: a matched one is to score between what it scores and how its box overlaps."""
    probability, place = logits.sigmoid(), (*at, labels)
    overlap = iou(corners(boxes.detach()), corners(truth))
    wanted = (probability[place].detach() ** FOCAL_ALPHA * overlap ** (1 - FOCAL_ALPHA)).clamp(min=_LEAST)
    present = torch.zeros_like(logits).index_put(place, wanted)
    absent = (probability**FOCAL_GAMMA).index_put(place, 1 - wanted)
    return -(present * logsigmoid(logits) + absent * logsigmoid(-logits)).sum()


def _mask_losses(
    layer: SetLayer,
    targets: Sequence[MaskTarget],
    counts: Sequence[int],
    at: tuple[Tensor, Tensor],
    place: Tensor,
    stride: int,
    cells_per_point: int,
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and Dice, the sums over matched queries; few masks are held at a time.

    Args:
        at: image and query of each pair.
        place: its object, of those of all images.
    """
    total = torch.stack(2 * [0 * (layer.readers.sum() + layer.pixels.sum())])  # no parameter is without a gradient
    size = layer.pixels.shape[-2:]
    at_once, first = max(1, _NUMBERS // size.numel()), 0
    for i, (target, count) in enumerate(zip(targets, counts, strict=True)):
        for some in (at[0] == i).nonzero()[:, 0].split(at_once) if count else ():
            readers, pixels = layer.readers[i, at[1][some]], layer.pixels[i]
            points = _uncertain_points(readers, pixels, max(size[0], size.numel() // cells_per_point))
            truth = _masks_at(target.masks[place[some] - first], points, size, stride)
            total = total + checkpoint(_compare, readers, pixels, points, truth, use_reentrant=False)
        first += count
    return total[0], total[1]


def _compare(readers: Tensor, pixels: Tensor, points: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy and Dice `[2]` of M masks, read from `pixels` `[D, h, w]`, at points `[M, P, 2]`, as sums."""
    logits = at_points(_masks(readers, pixels)[:, None], points)[:, 0]
    probability = logits.sigmoid()
    overlap, whole = (probability * truth).sum(1), probability.sum(1) + truth.sum(1)
    mask = binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1).sum()
    return torch.stack([mask, (1 - (2 * overlap + 1) / (whole + 1)).sum()])


@torch.no_grad()
def _uncertain_points(readers: Tensor, pixels: Tensor, points: int) -> Tensor:
    """`[M, P, 2]`, three quarters of them where the mask is least certain, of three times as many drawn."""
    drawn, uncertain = random_points(len(readers), _OVERSAMPLE * points, pixels.device), int(_UNCERTAIN * points)
    certainty = at_points(_masks(readers, pixels)[:, None], drawn)[:, 0].abs()
    chosen = certainty.topk(uncertain, largest=False, sorted=False).indices
    others = random_points(len(readers), points - uncertain, pixels.device)
    return torch.cat([drawn.gather(1, chosen[..., None].expand(-1, -1, 2)), others], 1)


def _masks(readers: Tensor, pixels: Tensor) -> Tensor:
    return (readers @ pixels.flatten(1)).unflatten(1, pixels.shape[1:])


def _masks_at(masks: Tensor, points: Tensor, size: torch.Size, stride: int) -> Tensor:
    """Masks `[M, H, W]` bool at the pixels in which `points` `[M, P, 2]` of a map of `size` lie, `[M, P]` float."""
    extent = torch.tensor([size[1], size[0]], device=points.device) * stride
    pixel = ((points + 1) / 2 * extent).long().clamp(min=0)
    x, y = pixel.minimum(extent - 1).unbind(-1)
    inside = (y < masks.shape[1]) & (x < masks.shape[2])
    row = torch.arange(len(masks), device=points.device)[:, None]
    return (masks[row, y.clamp(max=masks.shape[1] - 1), x.clamp(max=masks.shape[2] - 1)] & inside).float()
