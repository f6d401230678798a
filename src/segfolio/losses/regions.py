"""The losses of region-based networks, of what was sampled; each is 0 where nothing was.

Fast R-CNN (Girshick, 2015, arXiv 1504.08083, section 2.3), Faster R-CNN (Ren et al., 2015, arXiv 1506.01497, section
3.1.2), Mask R-CNN (He et al., 2017, arXiv 1703.06870, section 3).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def proposal_losses(
    logits: Tensor, labels: Tensor, deltas: Tensor, encoded: Tensor, beta: float = 1 / 9
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy, and smooth L1 of the positive anchors' boxes. Both are per sampled anchor.

    Args:
        logits: `[N]`, of the sampled anchors.
        labels: `[N]` float, 1 of an object.
        deltas: `[M, 4]`, of the positive among them.
        encoded: `[M, 4]`, the deltas that lead to the object.
        beta: where smooth L1 turns from quadratic to linear; 0 is L1.
    """
    count = max(1, len(labels))
    box = F.smooth_l1_loss(deltas, encoded, beta=beta, reduction="sum")
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / count, box / count


def box_losses(
    logits: Tensor, deltas: Tensor, labels: Tensor, encoded: Tensor, beta: float = 1 / 9
) -> dict[str, Tensor]:
    """`cls`: cross-entropy; `box`: smooth L1 of the positive regions' boxes. Both are per sampled region.

    Args:
        logits: `[N, C + 1]`.
        deltas: `[N, 4 (C + 1)]`, or `[N, 4]` of all classes.
        labels: `[N]` int64, 0 for background.
        encoded: `[N, 4]`, the deltas that lead to the object.
        beta: where smooth L1 turns from quadratic to linear; 0 is L1.
    """
    positive = labels.nonzero()[:, 0]
    own = labels[positive] if deltas.shape[1] > 4 else torch.zeros_like(positive)
    found = deltas.view(len(deltas), deltas.shape[1] // 4, 4)[positive, own]
    box = F.smooth_l1_loss(found, encoded[positive], beta=beta, reduction="sum")
    count = max(1, len(labels))
    return {"cls": F.cross_entropy(logits, labels, reduction="sum") / count, "box": box / count}


def mask_loss(logits: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy of the mask of the true class, mean over the pixels of all positive regions.

    Args:
        logits: `[N, C + 1, m, m]`.
        labels: `[N]` int64, of the positive regions.
        masks: `[N, m, m]` in 0 to 1, the truth cut out by the regions.
    """
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    return F.binary_cross_entropy_with_logits(own, masks, reduction="sum") / max(1, own.numel())
