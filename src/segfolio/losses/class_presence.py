"""Which classes an image has: the loss of image-level logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segfolio.losses.base import Loss


class ClassPresence(Loss):
    """Binary cross-entropy of each class being somewhere in the image, mean over classes and images.

    EncNet's semantic encoding loss (Zhang et al. 2018, arXiv 1803.08904, section 3.1). An image without a pixel that
    counts is left out.
    """

    def forward(self, logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None = None) -> Tensor:
        """A scalar.

        Args:
            logits: `[B, C]`.
            target: `[B, H, W]`.
            weight: of pixels; it has no say in which classes are there.
        """
        images, classes = logits.shape
        valid = target != ignore_index
        present = torch.zeros(images, classes + 1, device=logits.device)  # the last for pixels without a class
        present.scatter_(1, target.where(valid, classes).flatten(1), 1.0)
        counts = valid.flatten(1).any(1)
        loss = F.binary_cross_entropy_with_logits(logits.float(), present[:, :classes], reduction="none").mean(1)
        return loss.where(counts, 0).sum() / counts.sum().clamp_min(1)
