"""What the losses of per-pixel classification share."""

import torch
from torch import Tensor, nn

from segfolio.errors import SegfolioError


class Loss(nn.Module):
    """A loss between per-pixel logits and a map of class indices.

    Every loss computes in float32 whatever the logits' type, leaves ignored pixels without influence on
    its value or gradient, and is 0, with zero gradients, where every pixel is ignored.
    """

    def forward(self, logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None = None) -> Tensor:
        """A scalar.

        Args:
            logits: `[B, C, H, W]`.
            target: `[B, H, W]` int64, 0 to C - 1 or `ignore_index`.
            ignore_index: value of a pixel without a class.
            weight: `[B, H, W]`, a factor for each pixel.
        """
        raise NotImplementedError


def pixel_mean(loss: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None) -> Tensor:
    """Weighted sum of `loss` `[B, H, W]`, 0 at ignored pixels, over the number of pixels not ignored.

    Weights do not enter the divisor: a weight of 2 counts the pixel twice whatever else the batch holds.
    """
    total = loss.sum() if weight is None else (loss * weight).sum()
    return total / (target != ignore_index).sum().clamp_min(1)


def class_factors(factors: Tensor | None, logits: Tensor, argument: str) -> Tensor | None:
    """`[C]` float32.

    Raises:
        SegfolioError: not one factor per class.
    """
    if factors is None:
        return None
    if len(factors) != logits.shape[1]:
        raise SegfolioError(
            f"{argument} has {len(factors)} values but the logits have {logits.shape[1]} classes; "
            "list one value per class, in the order of the label space"
        )
    return factors.float()


def as_tensor(values: list[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32)
