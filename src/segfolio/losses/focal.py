"""Focal loss of per-pixel classification (Lin et al. 2017, arXiv 1708.02002)."""

import torch
from torch import Tensor

from segfolio.losses.base import Loss, as_tensor, class_factors, pixel_entropy, pixel_sum, valid_pixels


def focal(
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    weight: Tensor | None = None,
    gamma: float = 2.0,
    alpha: Tensor | None = None,
) -> Tensor:
    """Softmax focal loss; arguments as `Focal`."""
    alpha = class_factors(alpha, logits, "alpha of Focal")

    def compute(logits: Tensor, target: Tensor) -> Tensor:
        entropy = pixel_entropy(logits, target, ignore_index)
        # 1 - p; kept above 0, where the power has no finite slope if gamma < 1
        miss = (-torch.expm1(-entropy)).clamp_min(1e-8)
        loss = miss.pow(gamma) * entropy
        return loss if alpha is None else loss * alpha[target.where(target != ignore_index, 0)]

    return pixel_sum(compute, logits, target, weight) / valid_pixels(target, ignore_index)


class Focal(Loss):
    """`-alpha_t (1 - p_t)^gamma log(p_t)` (eq. 5) with softmax `p`, mean over the pixels not ignored.

    The paper has sigmoids and divides by the number of objects' anchors. With a softmax per pixel the
    divisor is that of `CrossEntropy`, which this loss equals at `gamma` 0.

    Args:
        gamma: at least 0; the higher, the less a pixel that is right already counts.
        alpha: one factor per class.
    """

    alpha: Tensor | None

    def __init__(self, gamma: float = 2.0, alpha: list[float] | None = None) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("alpha", as_tensor(alpha), persistent=False)

    def forward(self, logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None = None) -> Tensor:
        return focal(logits, target, ignore_index, weight, self.gamma, self.alpha)
