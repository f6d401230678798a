"""The criterion of promptable segmentation (SAM, arXiv 2304.02643, appendix A; SAM 2, arXiv 2408.00714, appendix D)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.checkpoint import checkpoint
from torchvision.ops import sigmoid_focal_loss

from segfolio.errors import SegfolioError
from segfolio.losses.mask_matching import FOCAL_ALPHA, FOCAL_GAMMA
from segfolio.precision import full_float32

Enlarge = Callable[[Tensor, int], Tensor]
"""Mask logits `[N, h, w]` of the image of a number to its own size, `[N, H, W]`."""

LOSSES = ("focal", "dice", "iou")
"""Of every network."""

_CHUNK = 4_000_000  # pixels that are compared at a time


class PromptLoss(nn.Module):
    """Focal and Dice losses of the one of M masks that fits best, and of the network's estimate of how well it fits.

    Masks are compared at the image's size, in full float32; that of M with the least weighted sum of focal and Dice
    loss learns, the others do not. The estimate learns the IoU of where the mask's logits are above 0. Losses are
    means over the prompts of an image, then over the images: equal however a batch is divided over processes and
    passes. An image without prompts counts with 0.

    Args:
        focal, dice, iou: weights.
        iou_loss: `mse` (SAM) or `l1` (SAM 2) between the estimate and the IoU.
        supervise_all_iou: the estimates of all M masks learn (SAM 2), not only that of the mask which does.
        object_score: weight of whether the object is there at all, of networks that say so; where it is not, nothing
            else is learned.

    Raises:
        SegfolioError: a weight below 0.
    """

    def __init__(
        self,
        focal: float = 20.0,
        dice: float = 1.0,
        iou: float = 1.0,
        iou_loss: Literal["mse", "l1"] = "mse",
        supervise_all_iou: bool = False,
        object_score: float = 1.0,
    ) -> None:
        super().__init__()
        self.weights = {"focal": focal, "dice": dice, "iou": iou, "object_score": object_score}
        if negative := [name for name, weight in self.weights.items() if weight < 0]:
            raise SegfolioError(f"{negative[0]} of PromptLoss is {self.weights[negative[0]]}, expected 0 or more")
        self.iou_loss, self.supervise_all_iou = iou_loss, supervise_all_iou

    def forward(
        self,
        masks: Tensor,
        iou: Tensor,
        object_score: Tensor | None,
        truths: Sequence[Tensor],
        enlarge: Enlarge,
        shown: Tensor,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The weighted losses `focal`, `dice` and `iou`, and `object_score` where the network has one.

        Args:
            masks: logits `[P, M, h, w]`, of the prompts of the first image, then of the second, ...
            iou: `[P, M]`, the network's estimates.
            object_score: `[P]` logits, or None.
            truths: of each image, the masks of its prompts, `[P_i, H, W]` bool.
            shown: `[P]`, which of the M is to be seen.

        Returns:
            The losses, and of each image the masks that are seen, `[P_i, H, W]` bool.
        """
        counts = [len(truth) for truth in truths]
        weight = torch.tensor([1 / (len(counts) * count) for count in counts for _ in range(count)], device=iou.device)
        with full_float32(iou.device):
            compared, seen = self._compared(masks, truths, enlarge, shown)
            (focal, dice, overlap), present = compared[:3], compared[3, :, 0]
            best = (self.weights["focal"] * focal + self.weights["dice"] * dice).detach().argmin(1, keepdim=True)
            off = iou.float() - overlap
            off = off.square() if self.iou_loss == "mse" else off.abs()
            each = {
                "focal": present * focal.gather(1, best)[:, 0],
                "dice": present * dice.gather(1, best)[:, 0],
                "iou": present * (off.mean(1) if self.supervise_all_iou else off.gather(1, best)[:, 0]),
            }
            if object_score is not None:
                each["object_score"] = binary_cross_entropy_with_logits(object_score.float(), present, reduction="none")
            return {name: self.weights[name] * (weight * loss).sum() for name, loss in each.items()}, seen

    def _compared(
        self, masks: Tensor, truths: Sequence[Tensor], enlarge: Enlarge, shown: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """`[4, P, M]`, see `_compare`, and of each image the masks that are seen."""
        counts, found, seen = [len(truth) for truth in truths], [], []
        for i, (logits, truth, place) in enumerate(zip(masks.split(counts), truths, shown.split(counts), strict=True)):
            if not len(truth):
                seen.append(truth)
                continue
            pixels = max(truth.shape[-2:].numel(), 16 * logits.shape[-2:].numel())  # and of the square on the way there
            chunk = max(1, _CHUNK // (masks.shape[1] * pixels))
            parts = []
            for some in zip(*(x.split(chunk) for x in (logits, truth, place)), strict=True):
                # computed again in the backward pass: M masks of all rounds at the image's size would not fit
                own = partial(_enlarge, enlarge, i)
                pairs, mask = checkpoint(_compare, *some, own, use_reentrant=False, preserve_rng_state=False)
                found.append(pairs)
                parts.append(mask)
            seen.append(torch.cat(parts))
        return torch.cat(found, 1), seen


def _enlarge(enlarge: Enlarge, image: int, masks: Tensor) -> Tensor:
    return enlarge(masks, image)


def _compare(
    logits: Tensor, truth: Tensor, shown: Tensor, enlarge: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Focal loss, Dice loss, IoU and whether there is an object, `[4, P, M]`, of logits `[P, M, h, w]` and masks
    `[P, H, W]`, and where the logits shown are above 0, `[P, H, W]`."""
    large = enlarge(logits.float().flatten(0, 1)).unflatten(0, logits.shape[:2])
    wanted = truth[:, None].expand_as(large)
    as_float = wanted.float()
    focal = sigmoid_focal_loss(large, as_float, FOCAL_ALPHA, FOCAL_GAMMA).mean((2, 3))
    probability, area = large.sigmoid(), as_float.sum((2, 3))
    both = (probability * as_float).sum((2, 3))
    dice = 1 - (2 * both + 1) / (probability.sum((2, 3)) + area + 1)
    inside = large > 0
    overlap = (inside & wanted).sum((2, 3)) / (inside | wanted).sum((2, 3)).clamp_min(1)
    seen = inside[torch.arange(len(shown), device=shown.device), shown]
    return torch.stack([focal, dice, overlap, (area > 0).float()]), seen
