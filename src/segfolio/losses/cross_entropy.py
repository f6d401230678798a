"""Cross-entropy of per-pixel classification."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from segfolio.errors import SegfolioError
from segfolio.losses.base import Loss, as_tensor, class_factors, pixel_entropy, pixel_sum, valid_pixels

Reduction = Literal["mean", "sum", "weighted_mean"]


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    ignore_index: int,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy; arguments as `CrossEntropy`."""
    class_weight = class_factors(class_weight, logits, "the class weighting of CrossEntropy")
    compute = partial(
        pixel_entropy, ignore_index=ignore_index, class_weight=class_weight, label_smoothing=label_smoothing
    )
    total = pixel_sum(compute, logits, target, weight)
    if reduction == "sum":
        return total / len(target)
    if reduction == "weighted_mean" and class_weight is not None:
        counts = target != ignore_index
        shares = class_weight[target.where(counts, 0)] * counts
        return total / shares.sum().clamp_min(torch.finfo(torch.float32).tiny)
    return total / valid_pixels(target, ignore_index)


class CrossEntropy(Loss):
    """Softmax cross-entropy.

    The mean divides by the number of pixels that are not ignored, whether or not there are weights. This is
    what SegNet's Caffe layer does with its class weights (github.com/alexgkendall/caffe-segnet,
    `softmax_loss_layer.cpp`), and U-Net's energy (arXiv 1505.04597, eq. 1) over the number of its pixels.
    `torch.nn.CrossEntropyLoss` divides by the sum of the class weights instead, which makes a pixel's
    gradient depend on the classes that share its batch; that is `weighted_mean`.

    Args:
        weight: one factor per class.
        reduction: `mean` over the pixels of the batch; `sum` over those of each image, mean over the images, as FCN
            accumulates it (arXiv 1605.06211); `weighted_mean`, of papers that give class weights to torch's loss
            (HRNet, OCRNet).
        label_smoothing: share of the target that is spread over all classes (arXiv 1512.00567, section 7).

    Raises:
        SegfolioError: a `label_smoothing` outside 0 to 1.
    """

    weight: Tensor | None

    def __init__(
        self, weight: list[float] | None = None, reduction: Reduction = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise SegfolioError(f"CrossEntropy: label_smoothing is {label_smoothing}; it lies between 0 and 1")
        # not persistent: the experiment's YAML says what they are, not a checkpoint
        self.register_buffer("weight", as_tensor(weight), persistent=False)
        self.reduction: Reduction = reduction
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor, ignore_index: int, weight: Tensor | None = None) -> Tensor:
        return cross_entropy(logits, target, ignore_index, weight, self.weight, self.reduction, self.label_smoothing)
