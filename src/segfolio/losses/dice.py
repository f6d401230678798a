"""Soft Dice loss of per-pixel classification."""

import torch
from torch import Tensor

from segfolio.losses.base import Loss, of_each_image


def soft_dice(
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    weight: Tensor | None = None,
    smooth: float = 1.0,
    per_image: bool = False,
) -> Tensor:
    """1 - soft Dice; arguments as `Dice`."""
    valid = target != ignore_index
    share = valid if weight is None else valid * weight
    sums = of_each_image(_sums, logits, target, share)
    overlap, total, truth_size = (sums if per_image else sums.sum(0, keepdim=True)).unbind(1)
    loss = 1 - (2 * overlap + smooth) / (total + smooth).clamp_min(1e-7)
    present = truth_size > 0
    return (loss * present).sum() / present.sum().clamp_min(1)


def _sums(logits: Tensor, target: Tensor, share: Tensor) -> Tensor:
    """Of each image and class what probability and truth have in common, both, and the truth alone, `[B, 3, C]`."""
    classes = torch.arange(logits.shape[1], device=target.device)[:, None, None]
    truth = target[:, None] == classes  # bool: a quarter of a float one-hot, an eighth of F.one_hot's int64
    probability = logits.float().softmax(1) * share[:, None]
    truth_size = (truth * share[:, None]).sum((2, 3))
    return torch.stack([(probability * truth).sum((2, 3)), probability.sum((2, 3)) + truth_size, truth_size], 1)


class Dice(Loss):
    """`1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)` with softmax `p` and one-hot truth `t`.

    Mean over the classes that occur in the truth; one that does not needs no term, as its probability is
    taken from those that do. The denominator sums `p` and `t` themselves (Drozdzal et al. 2016, arXiv
    1608.04117), not their squares (V-Net, arXiv 1606.04797). Pixel weights multiply both.

    Args:
        smooth: in pixels.
        per_image: whether to sum over each image and average over all pairs of image and class, instead of
            summing over the batch, which is steadier where classes are small.
    """

    def __init__(self, smooth: float = 1.0, per_image: bool = False) -> None:
        super().__init__()
        self.smooth = smooth
        self.per_image = per_image

    def forward(self, logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None = None) -> Tensor:
        return soft_dice(logits, target, ignore_index, weight, self.smooth, self.per_image)
