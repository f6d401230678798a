"""The three readings of a mask classification network: semantic, panoptic, instances.

MaskFormer (Cheng et al., 2021, arXiv 2107.06278, section 3.4) for semantic and panoptic, Mask2Former (2022, arXiv
2112.01527, section 4.1, and the official code) for instances. All are functions of one image's `class_logits`
`[Q, C + 1]`, the last class being "no object", and `mask_logits` `[Q, h, w]` of the image's own region: where the
network saw padding, the caller has cut it off. The logits are resized once, to the image's original size; the
official code resizes them to the network's input first, and for semantic models from there the scores.

Masks are read in bands of rows, so that neither `[Q, H, W]` nor `[C, H, W]` is ever held. Reduced precision is
computed in float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.sample import Instances, Size
from segfolio.data.segments import Segments
from segfolio.inference.tiles import BUDGET, Tiles, argmax, bands


@torch.no_grad()
def semantic(class_logits: Tensor, mask_logits: Tensor, size: Size, budget: int = BUDGET) -> Tensor:
    """The class of each pixel: the one with the largest sum over queries of class x mask probability.

    Args:
        size: height and width of the result.
        budget: see `BUDGET`; it does not change the result.

    Returns:
        `[H, W]` uint8, int16 of more than 256 classes.
    """
    return argmax(semantic_scores(class_logits, mask_logits, size, budget), size)


@torch.no_grad()
def semantic_scores(class_logits: Tensor, mask_logits: Tensor, size: Size, budget: int = BUDGET) -> Tiles:
    """Of each class the sum over queries of class x mask probability, in bands of rows; see `semantic`."""
    classes = class_logits.float().softmax(-1)[:, :-1]
    for rows, band in bands(mask_logits, size, budget, beside=classes.shape[1]):
        with torch.autocast(mask_logits.device.type, enabled=False):  # else the product is one of bfloat16
            scores = band.sigmoid_().flatten(1).T @ classes
        yield rows, slice(0, size[1]), scores.T.unflatten(1, (-1, size[1]))


@torch.no_grad()
def panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    size: Size,
    is_thing: Sequence[bool],
    object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
    budget: int = BUDGET,
) -> Segments:
    """Segments that do not overlap, as an id map; in the order of the queries.

    A pixel goes to the query with the largest score x mask probability, and stays without a segment where that
    query's own mask is below 0.5 (there Mask2Former differs from MaskFormer). Stuff of one class is one segment.

    Args:
        size: height and width of the result.
        is_thing: `[C]`, whether a class is countable.
        object_threshold: queries count whose best class is an object and scores more.
        overlap_threshold: of the pixels that a query wins to those of its own mask; below it, it is dropped.
        budget: see `BUDGET`; it does not change the result.
    """
    scores, labels = class_logits.float().softmax(-1).max(-1)
    found = (labels < class_logits.shape[-1] - 1) & (scores > object_threshold)
    scores, labels = scores[found, None, None], labels[found]
    owner = torch.zeros(size, dtype=torch.int32, device=labels.device)  # place among the found + 1
    own, won, area = torch.zeros(3, len(labels) + 1, dtype=torch.int64, device=labels.device)
    for rows, band in bands(mask_logits[found], size, budget, beside=1) if len(labels) else ():
        inside = band.sigmoid_() >= 0.5
        winner = band.mul_(scores).max(0).indices
        owner[rows] = (winner + 1) * inside.gather(0, winner[None])[0]
        own += owner[rows].flatten().bincount(minlength=len(own))
        won[1:] += winner.flatten().bincount(minlength=len(labels))
        area[1:] += band.copy_(inside).sum(2).long().sum(1)  # summed as bool, it would be copied to int64

    kept = ((own > 0) & (won / area.double() >= overlap_threshold)).tolist()
    places: dict[tuple[int, int], int] = {}
    table = torch.zeros(len(own), dtype=torch.int32)
    for query, label in enumerate(labels.tolist(), 1):
        if kept[query]:
            table[query] = places.setdefault((label, query if is_thing[label] else 0), len(places) + 1)
    segment_labels = torch.tensor([label for label, _ in places], dtype=torch.int64)
    id_map = table.to(owner.device).index_select(0, owner.flatten()).view(size)
    return Segments(id_map, segment_labels, torch.zeros(len(places), dtype=torch.bool))


@torch.no_grad()
def instances(
    class_logits: Tensor,
    mask_logits: Tensor,
    size: Size,
    is_thing: Sequence[bool],
    top_k: int = 100,
    boxes: Tensor | None = None,
    budget: int = BUDGET,
) -> Instances:
    """The `top_k` pairs of query and class that score most, as far as they are things and their masks not empty.

    A mask is where its probability exceeds 0.5. The score is that of the class times the mean mask probability
    inside. Stuff is dropped after the choice, as in the official code.

    Args:
        size: height and width of the masks.
        is_thing: `[C]`, whether a class is countable.
        boxes: `[Q, 4]`, x and y of the centre, width and height, in parts of the image's, of a network that has them.
        budget: see `BUDGET`; it does not change the result.
    """
    classes = class_logits.float().softmax(-1)[:, :-1]
    scores, pairs = classes.flatten().topk(min(top_k, classes.numel()))
    labels = pairs % classes.shape[1]
    thing = torch.tensor(is_thing, device=labels.device)[labels]
    queries, place = (pairs[thing] // classes.shape[1]).unique(return_inverse=True)
    rles, confidence = _binary_masks(mask_logits, queries, size, budget)
    scores, labels = scores[thing] * confidence[place], labels[thing]
    seen = scores > 0  # where a mask is empty, so is its confidence
    own = None if boxes is None else _in_pixels(boxes[queries[place[seen]]], size)
    return Instances([rles[i] for i in place[seen].tolist()], labels[seen], scores[seen], own)


def _in_pixels(boxes: Tensor, size: Size) -> Tensor:
    """`[N, 4]`, centres and sides in parts of an image, to x, y, width, height in its pixels."""
    centre, sides = boxes.float().split(2, 1)
    return torch.cat([centre - sides / 2, sides], 1) * torch.tensor(2 * size[::-1], device=boxes.device)


def _binary_masks(mask_logits: Tensor, queries: Tensor, size: Size, budget: int) -> tuple[list[RLE], Tensor]:
    """Of each query the mask, and the mean probability inside it, `[N]`; 0 where it is empty."""
    rles: list[RLE] = []
    total = torch.zeros(len(queries), size[0], device=queries.device)  # of each row, so that no band shows
    group = max(1, budget // (4 * size[0] * size[1]))  # a quarter of the budget
    for start in range(0, len(queries), group):
        here = slice(start, start + group)
        masks = mask_logits[queries[here]]
        inside = torch.empty(len(masks), *size[::-1], dtype=torch.bool, device=masks.device).mT  # as RLE reads it
        for rows, band in bands(masks, size, budget // 2):
            inside[:, rows] = band > 0
            total[here, rows] = band.sigmoid_().mul_(inside[:, rows]).sum(2)
        rles += rle.encode(inside.cpu().numpy())
    return rles, total.sum(1) / torch.from_numpy(rle.areas(rles)).to(total.device).clamp(min=1)
