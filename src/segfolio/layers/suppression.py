"""Which of several detections of one object are left: suppression in one go, without a loop over detections.

Fast NMS is YOLACT's (Bolya et al., 2019, arXiv 1904.02689, section 4.2), Matrix NMS that of SOLOv2 (Wang et al., 2020,
arXiv 2003.10152, section 3.3).
"""

from typing import Literal

import torch
from torch import Tensor

from segfolio.losses.mask_matching import iou

_NUMBERS = 4_000_000  # overlaps of boxes, or pixels of masks as floats, that are held at a time
Decay = Literal["gaussian", "linear"]


def fast_nms(
    boxes: Tensor, scores: Tensor, score_threshold: float, top: int, limit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each class the `top` boxes of highest score, without those that overlap a better one of them by more than
    `limit`, whether or not that one is left itself.

    Args:
        boxes: `[A, 4]`, of positive width and height.
        scores: `[A, C]`.
        score_threshold: what is left has more.

    Returns:
        Which boxes, of which class and with which score, `[K]` each, best first.
    """
    top = min(top, len(boxes))
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    for classes in (scores > score_threshold).any(0).nonzero()[:, 0].split(max(1, _NUMBERS // max(1, top**2))):
        if len(classes):
            best, place = scores[:, classes].T.topk(top)
            own = boxes[place]
            overlap = iou(own[:, :, None], own[:, None]).triu(1).amax(1)
            chosen[place, classes[:, None]] = (overlap <= limit) & (best > score_threshold)
    place, label = chosen.nonzero().unbind(1)
    score, order = scores[place, label].sort(descending=True)
    return place[order], label[order], score


def matrix_nms(masks: Tensor, labels: Tensor, scores: Tensor, decay: Decay = "gaussian", sigma: float = 2.0) -> Tensor:
    """Scores, each lowered by how much its mask overlaps a better one of its class, and the less the more that one is
    itself overlapped by one that is better still: times `min_i f(iou_ij) / max_k f(iou_ki)` (equations 4 and 5).

    Args:
        masks: `[N, pixels]` bool, best first, at least one and none empty.
        labels, scores: `[N]`.
        decay: f, `exp(-sigma iou ** 2)` or `1 - iou`.
        sigma: 2 in the released code; the paper divides by 0.5.

    Returns:
        `[N]`.
    """
    shared = scores.new_zeros(len(masks), len(masks), dtype=torch.float32)
    for part in masks.split(max(1, _NUMBERS // len(masks)), 1):
        shared.addmm_(part.float(), part.float().T)
    area = shared.diagonal()
    overlap = (shared / (area[:, None] + area - shared) * (labels[:, None] == labels)).triu(1)
    own = overlap.amax(0)[:, None]
    if decay == "gaussian":
        return scores * (-sigma * (overlap**2 - own**2)).exp().amin(0)
    return scores * ((1 - overlap) / (1 - own).clamp(min=torch.finfo(own.dtype).eps)).amin(0)
