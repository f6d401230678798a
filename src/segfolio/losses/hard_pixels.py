"""Cross-entropy of the pixels that are hard."""

from functools import partial

import torch
from torch import Tensor

from segfolio.errors import SegfolioError
from segfolio.losses.base import Loss, of_each_image, pixel_entropy


class OHEM(Loss):
    """Cross-entropy of the pixels whose own class has a low probability, mean over them.

    "Online hard example mining" as OCRNet trains (Yuan et al. 2020, arXiv 1909.11065; released code,
    `OhemCrossEntropy`): 0.9 and 131,072 there.

    Args:
        threshold: a pixel is hard whose class has a probability below it.
        min_kept: so many pixels of the batch count in any case, the hardest. Of each GPU's batch, there too: with
            other numbers of images per GPU it is another share.
    """

    def __init__(self, threshold: float = 0.9, min_kept: int = 131_072) -> None:
        super().__init__()
        if not 0 < threshold <= 1 or min_kept < 0:
            raise SegfolioError(f"OHEM: threshold {threshold}, min_kept {min_kept}; give a probability and a count")
        self.threshold, self.min_kept = threshold, min_kept

    def forward(self, logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None = None) -> Tensor:
        loss, valid = _per_pixel(logits, target, ignore_index)
        least = -torch.log(torch.tensor(self.threshold))
        hard = valid & (loss > least.to(loss.device))
        if count := min(self.min_kept, loss.numel()):
            ranked = loss.detach().masked_fill(~valid, -1)
            hard |= valid & (ranked >= ranked.topk(count, sorted=False).values.min())
        return _mean(loss, hard, weight)


class HardestPixels(Loss):
    """Cross-entropy of a share of the pixels, those with the highest, mean over them.

    As in DeeperLab (Yang et al. 2019, arXiv 1902.05093, section 3.3) and detectron2's DeepLab (`DeepLabCE`). The
    share is of the pixels that are not ignored; there it is of all pixels.

    Args:
        share: of the pixels of the batch, in (0, 1].
    """

    def __init__(self, share: float = 0.2) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise SegfolioError(f"HardestPixels: share is {share}; give one above 0 and at most 1, such as 0.2")
        self.share = share

    def forward(self, logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None = None) -> Tensor:
        loss, valid = _per_pixel(logits, target, ignore_index)
        ranked = loss.detach().masked_fill(~valid, -1)
        most, order = ranked.topk(max(1, int(self.share * loss.numel())))
        # of the valid pixels alone; worked out on the device
        count = (self.share * valid.sum()).long().clamp_min(1)
        hard = (torch.arange(len(order), device=order.device) < count) & (most >= 0)
        return _mean(loss[order], hard, None if weight is None else weight.flatten()[order])


def _per_pixel(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """`[B * H * W]`: the loss, 0 at ignored pixels, and which are not ignored."""
    loss = of_each_image(partial(pixel_entropy, ignore_index=ignore_index), logits, target)
    return loss.flatten(), (target != ignore_index).flatten()


def _mean(loss: Tensor, hard: Tensor, weight: Tensor | None) -> Tensor:
    """Of the hard pixels; weights do not enter the divisor, see `valid_pixels`."""
    weighted = loss if weight is None else loss * weight.flatten()
    return weighted.where(hard, 0).sum() / hard.sum().clamp_min(1)
