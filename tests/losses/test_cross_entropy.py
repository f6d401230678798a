import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segfolio.losses import CrossEntropy

VOID = 255
CLASS_WEIGHT = [0.5, 1.0, 3.0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_equals_torch_without_class_weights(smoothing: float, reduction: str, logits: Tensor, target: Tensor) -> None:
    ours = CrossEntropy(reduction=reduction, label_smoothing=smoothing)(logits, target, VOID)
    theirs = F.cross_entropy(logits, target, ignore_index=VOID, reduction=reduction, label_smoothing=smoothing)
    images = len(target) if reduction == "sum" else 1
    torch.testing.assert_close(ours, theirs / images, rtol=1e-6, atol=1e-6)


def test_class_weights_do_not_enter_the_divisor(logits: Tensor, target: Tensor) -> None:
    """SegNet's Caffe layer: the weighted sum over the number of valid pixels."""
    weighted_sum = F.cross_entropy(logits, target, torch.tensor(CLASS_WEIGHT), ignore_index=VOID, reduction="sum")
    ours = CrossEntropy(CLASS_WEIGHT)(logits, target, VOID)
    torch.testing.assert_close(ours, weighted_sum / (target != VOID).sum(), rtol=1e-6, atol=1e-6)


def test_pixel_weights_do_not_enter_the_divisor(logits: Tensor, target: Tensor, weight: Tensor) -> None:
    """U-Net's energy, eq. 1, per valid pixel."""
    valid = target != VOID
    log_p = logits.log_softmax(1).gather(1, target.where(valid, 0)[:, None])[:, 0]
    energy = -(weight * log_p)[valid].sum()
    torch.testing.assert_close(CrossEntropy()(logits, target, VOID, weight), energy / valid.sum())
    torch.testing.assert_close(CrossEntropy(reduction="sum")(logits, target, VOID, weight), energy / len(target))


def test_class_and_pixel_weights_multiply(logits: Tensor, target: Tensor, weight: Tensor) -> None:
    target = target.where(target != VOID, 0)
    both = CrossEntropy(CLASS_WEIGHT)(logits, target, VOID, weight)
    as_pixels = CrossEntropy()(logits, target, VOID, weight * torch.tensor(CLASS_WEIGHT)[target])
    torch.testing.assert_close(both, as_pixels)


def test_the_weighted_mean_is_torchs() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 5, 5), torch.randint(3, (2, 5, 5))
    target[:, 0] = 255
    weight = [0.5, 1.0, 4.0]
    expected = torch.nn.CrossEntropyLoss(torch.tensor(weight), ignore_index=255)(logits, target)
    torch.testing.assert_close(CrossEntropy(weight, "weighted_mean")(logits, target, 255), expected)
    assert CrossEntropy(weight, "weighted_mean")(logits, torch.full_like(target, 255), 255) == 0
    plain = CrossEntropy(reduction="weighted_mean")(logits, target, 255)
    torch.testing.assert_close(plain, CrossEntropy()(logits, target, 255))


def test_a_sum_is_of_an_images_pixels_however_a_step_is_divided(logits: Tensor, target: Tensor) -> None:
    loss = CrossEntropy(reduction="sum")
    parts = [loss(*part, VOID) for part in zip(logits.split(1), target.split(1), strict=True)]
    torch.testing.assert_close(loss(logits, target, VOID), torch.stack(parts).mean())
