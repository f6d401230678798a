"""The metric of per-pixel classification, from predictions to the log, and what its relatives share with it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError
from segfolio.figure import of_house
from segfolio.metrics.confusion import (
    accuracy_per_class,
    check_sizes,
    confusion_matrix,
    dice,
    dice_per_class,
    from_entries,
    fwIoU,
    iou_per_class,
    mean_accuracy,
    mIoU,
    mIoU_absent_as_zero,
    no_class,
    pixel_accuracy,
    to_entries,
)
from segfolio.metrics.records import RecordMetric


class SemanticMetric(RecordMetric):
    """One confusion matrix over all images; figures by their names in the log.

    `mIoU`, `pixel_accuracy`, `mean_accuracy`, `fwIoU`, `dice` and `mIoU_absent_as_zero` are read from the sum
    of all images. `mIoU_per_image` and `dice_per_image` are means over images of each image's own `mIoU` and
    `dice`; an image without a pixel that counts is left out. Beside the means there is `IoU/<class>`,
    `accuracy/<class>` and `dice/<class>`; NaN where a figure is not defined for a class.

    Raises:
        SegfolioError: in `update`, a semantic map that is missing, sizes that differ, a value that is no class.
    """

    figures = of_house(
        *("mIoU", "pixel_accuracy", "mean_accuracy", "fwIoU", "dice", "mIoU_absent_as_zero"),
        *("mIoU_per_image", "dice_per_image", "IoU/<class>", "accuracy/<class>", "dice/<class>"),
    )

    def __init__(self, labels: LabelSpace) -> None:
        super().__init__()
        self.labels = labels

    def update(self, prediction: Prediction, target: Target) -> None:
        matrix = confusion_matrix(*semantic_maps(prediction, target), self.labels.num_classes, self.labels.ignore_index)
        self.keep(prediction.image_id, to_entries(matrix), target.number)

    def compute(self) -> dict[str, Tensor]:
        total = torch.zeros((self.labels.num_classes,) * 2, dtype=torch.int64)
        per_image = []
        for entries in self.records().values():
            total += (matrix := from_entries(entries, self.labels.num_classes))
            per_image.append([mIoU(matrix), dice(matrix)])
        figures = {
            figure.__name__: figure(total)
            for figure in (mIoU, pixel_accuracy, mean_accuracy, fwIoU, dice, mIoU_absent_as_zero)
        }
        figures["mIoU_per_image"], figures["dice_per_image"] = per_image_table(per_image, 2).nanmean(0)
        return (
            figures
            | by_name("IoU", self.labels.names, iou_per_class(total))
            | by_name("accuracy", self.labels.names, accuracy_per_class(total))
            | by_name("dice", self.labels.names, dice_per_class(total))
        )


def semantic_maps(prediction: Prediction, target: Target) -> tuple[Tensor, Tensor]:
    """The two maps `[H, W]`.

    Raises:
        SegfolioError: one of them is missing, or their sizes differ.
    """
    predicted, truth = prediction.semantic, target.semantic
    if predicted is None or truth is None:
        lacks = "family predicts" if predicted is None else "dataset has"
        raise SegfolioError(f"{prediction.image_id}: the metric compares semantic maps but the {lacks} none; remove it")
    check_sizes(predicted, truth)
    return predicted, truth.as_subclass(Tensor)


def class_maps(prediction: Prediction, target: Target, labels: LabelSpace) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Prediction and truth `[H, W]`, uint8 where it suffices, classes counted from 1; 0 where the truth is void.

    Raises:
        SegfolioError: see `semantic_maps`; a value that is no class.
    """
    maps = semantic_maps(prediction, target)
    predicted, truth = (m.cpu().numpy() for m in maps)
    counts = truth != labels.ignore_index
    if any(((m < 0) | (m >= labels.num_classes))[counts].any() for m in (predicted, truth)):
        raise SegfolioError(no_class(*maps, labels.num_classes, labels.ignore_index))
    dtype = np.dtype(np.uint8 if labels.num_classes < 0xFF else np.uint16)
    return (predicted.astype(dtype) + 1) * counts, (truth.astype(dtype) + 1) * counts


def per_image_table(records: Iterable[Any], columns: int) -> Tensor:
    """One row per image, `[images, columns]` float64."""
    return torch.from_numpy(np.array(list(records), np.float64).reshape(-1, columns))


def by_name(figure: str, names: Iterable[str], values: Tensor) -> dict[str, Tensor]:
    """`<figure>/<name>` of each value."""
    return {f"{figure}/{name}": value for name, value in zip(names, values, strict=True)}
