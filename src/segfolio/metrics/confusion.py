"""The confusion matrix of per-pixel classification and the figures that are read from it.

Counts are summed over all images before any ratio is taken. With `n_ij` pixels of class i predicted as j,
`t_i` the pixels of class i and `p_j` those predicted as j, the figures are those of FCN (arXiv 1605.06211,
section 5). A class that a figure is not defined for is NaN and stays out of the mean; a figure of no pixels
at all is NaN, never 0.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

from segfolio.errors import SegfolioError


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Count the pixels of each class by the class predicted.

    Args:
        prediction: class indices, any shape, any integer type.
        target: same shape, class indices or `ignore_index`; what is predicted at ignored pixels is not read.
        num_classes: C.
        ignore_index: outside 0 to C - 1.

    Returns:
        `[C, C]` int64; rows are the truth, columns the prediction.

    Raises:
        SegfolioError: shapes that differ, or a value that is no class.
    """
    check_sizes(prediction, target)

    # one bin more at either end for what is no class, so that it cannot pass for one
    low, high = min(ignore_index, 0) - 1, max(ignore_index, num_classes - 1) + 1
    columns = num_classes + 2
    size = (high - low + 1) * columns
    small = size <= 0x7FFF and prediction.dtype.itemsize == target.dtype.itemsize == 1
    dtype = torch.int16 if small else torch.int32  # memory is what takes the time
    index = _bins(prediction, -1, num_classes, dtype).add_(_bins(target, low, high, dtype), alpha=columns)
    # without weights bincount is exact, and deterministic on CUDA
    counts = torch.bincount(index.flatten(), minlength=size).view(-1, columns)
    matrix = counts[-low : num_classes - low, 1:-1]
    if matrix.sum() + counts[ignore_index - low].sum() != target.numel():
        raise SegfolioError(no_class(prediction, target, num_classes, ignore_index))
    return matrix.contiguous()


def check_sizes(prediction: Tensor, target: Tensor) -> None:
    """Raise a `SegfolioError` where the shapes differ."""
    if prediction.shape != target.shape:
        raise SegfolioError(
            f"the prediction is {list(prediction.shape)} but its target is {list(target.shape)}; "
            "resize the logits to the target before argmax"
        )


def _bins(x: Tensor, low: int, high: int, dtype: torch.dtype) -> Tensor:
    """Values less `low`; what lies below or above comes to the first or last."""
    return x.to(dtype, copy=True).clamp_(low, high).sub_(low)


def no_class(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> str:
    """The sentence that names the values that are no class."""
    if 0 <= ignore_index < num_classes:
        return f"ignore_index {ignore_index} is one of the {num_classes} classes; choose a value that is none"
    valid = target != ignore_index
    found = {
        name: [v for v in values[valid].unique().tolist() if not 0 <= v < num_classes]
        for name, values in (("target", target), ("prediction", prediction))
    }
    name, values = next(item for item in found.items() if item[1])
    return (
        f"the {name} holds {', '.join(map(str, values[:5]))} where classes are 0 to {num_classes - 1} and "
        f"{ignore_index} is ignored; network, label space and dataset must have the same classes"
    )


def pixel_accuracy(matrix: Tensor) -> Tensor:
    """`sum_i n_ii / sum_i t_i`: the share of pixels that are right."""
    return matrix.diagonal().sum().double() / matrix.sum()


def accuracy_per_class(matrix: Tensor) -> Tensor:
    """`[C]`, `n_ii / t_i`; NaN for a class that the truth lacks."""
    return matrix.diagonal().double() / matrix.sum(1)


def mean_accuracy(matrix: Tensor) -> Tensor:
    """Mean of `accuracy_per_class` over the classes that occur in the truth."""
    return accuracy_per_class(matrix).nanmean()


def iou_per_class(matrix: Tensor) -> Tensor:
    """`[C]`, `n_ii / (t_i + p_i - n_ii)`; NaN for a class that both truth and prediction lack."""
    overlap = matrix.diagonal()
    return overlap.double() / (matrix.sum(0) + matrix.sum(1) - overlap)


def mIoU(matrix: Tensor) -> Tensor:
    """Mean of `iou_per_class` over the classes that occur in truth or prediction."""
    return iou_per_class(matrix).nanmean()


def mIoU_absent_as_zero(matrix: Tensor) -> Tensor:
    """Mean of `iou_per_class` over all C classes, 0 for one that does not occur: ADE20K's rule."""
    return iou_per_class(matrix).nan_to_num(0).mean()


def fwIoU(matrix: Tensor) -> Tensor:
    """`sum_i t_i iou_i / sum_i t_i`: IoU weighted by the pixels of each class."""
    return (matrix.sum(1) * iou_per_class(matrix)).nansum() / matrix.sum()


def dice_per_class(matrix: Tensor) -> Tensor:
    """`[C]`, `2 n_ii / (t_i + p_i)`; NaN for a class that both truth and prediction lack."""
    return 2 * matrix.diagonal().double() / (matrix.sum(0) + matrix.sum(1))


def dice(matrix: Tensor) -> Tensor:
    """Mean of `dice_per_class` over the classes that occur in truth or prediction."""
    return dice_per_class(matrix).nanmean()


Entries = tuple[npt.NDArray[np.int32], npt.NDArray[Any]]


def to_entries(matrix: Tensor) -> Entries:
    """The entries of a matrix that are not 0, as places in the flat matrix and values."""
    flat = matrix.cpu().numpy().reshape(-1)
    places = np.flatnonzero(flat).astype(np.int32)
    return places, flat[places]


def from_entries(entries: Entries, num_classes: int) -> Tensor:
    """The matrix `[C, C]` again."""
    places, values = entries
    flat = np.zeros(num_classes**2, values.dtype)
    flat[places] = values
    return torch.from_numpy(flat.reshape(num_classes, num_classes))


class ConfusionMatrix(Metric):
    """The figures of a whole split, equal on any number of processes.

    Args:
        num_classes: C.
        ignore_index: the target's value at pixels that do not count.
    """

    full_state_update = False
    higher_is_better = True
    matrix: Tensor

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrix", zeros, dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add an image `[H, W]` or a batch `[B, H, W]`; see `confusion_matrix`."""
        self.matrix += confusion_matrix(prediction, target, self.num_classes, self.ignore_index)

    def compute(self) -> dict[str, Tensor]:
        """Scalars `mIoU`, `pixel_accuracy`, `mean_accuracy`, `fwIoU` and `dice`."""
        figures = (mIoU, pixel_accuracy, mean_accuracy, fwIoU, dice)
        matrix = self.matrix.cpu()  # float64, which not every device has
        return {figure.__name__: figure(matrix) for figure in figures}
