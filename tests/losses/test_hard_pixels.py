"""Which pixels count, against sorting them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segfolio.errors import SegfolioError
from segfolio.losses import OHEM, CrossEntropy, HardestPixels

VOID = 255


def sorted_losses(logits: Tensor, target: Tensor) -> Tensor:
    """Of the pixels that are not ignored, the highest first."""
    loss = F.cross_entropy(logits, target, ignore_index=VOID, reduction="none")
    return loss[target != VOID].sort(descending=True).values


@pytest.mark.parametrize("min_kept", [0, 1, 30, 10_000])
@pytest.mark.parametrize("threshold", [0.01, 0.5, 1.0])
def test_ohem_is_the_mean_below_the_threshold_or_of_so_many(
    threshold: float, min_kept: int, logits: Tensor, target: Tensor
) -> None:
    losses = sorted_losses(logits, target)
    below = int((losses > -torch.log(torch.tensor(threshold))).sum())
    expected = losses[: max(below, min_kept)].mean()
    torch.testing.assert_close(OHEM(threshold, min_kept)(logits, target, VOID), expected)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_the_hardest_share_of_the_valid_pixels_counts(share: float, logits: Tensor, target: Tensor) -> None:
    losses = sorted_losses(logits, target)
    kept = max(1, int(share * len(losses)))
    torch.testing.assert_close(HardestPixels(share)(logits, target, VOID), losses[:kept].mean())


def test_easy_pixels_have_no_gradient(logits: Tensor, target: Tensor) -> None:
    logits.requires_grad_()
    HardestPixels(0.2)(logits, target, VOID).backward()
    assert logits.grad is not None
    count = int((logits.grad.abs().sum(1) > 0).sum())
    assert count == int(0.2 * (target != VOID).sum())


def test_all_pixels_are_the_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> None:
    expected = CrossEntropy()(logits, target, VOID, weight)
    torch.testing.assert_close(OHEM(1.0)(logits, target, VOID, weight), expected)
    torch.testing.assert_close(HardestPixels(1.0)(logits, target, VOID, weight), expected)


def test_a_share_or_threshold_that_is_none_is_refused() -> None:
    with pytest.raises(SegfolioError, match=r"share is 20; give one above 0 and at most 1, such as 0\.2"):
        HardestPixels(20)
    with pytest.raises(SegfolioError, match=r"threshold 0\.0, min_kept 1"):
        OHEM(0.0, 1)
