"""The 95th percentile of the Hausdorff distance."""

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree
from torch import Tensor

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.figure import of_house
from segfolio.metrics.records import RecordMetric
from segfolio.metrics.semantic import by_name, class_maps, per_image_table

Bools = npt.NDArray[np.bool_]
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def hausdorff95(prediction: Bools, target: Bools) -> float:
    """The larger of the two directed 95th percentiles of the distances from surface to surface, in pixels.

    That is MONAI's definition; medpy takes one percentile of both directions' distances together. The surface
    of a mask are its pixels with one of the four neighbours outside mask or image; distances are Euclidean,
    between centres of pixels; percentiles are interpolated linearly.

    Args:
        prediction: `[H, W]`.
        target: same shape.

    Returns:
        0 where both masks are empty; the image's diagonal where one of them is, so that a mean stays finite.
    """
    surfaces = [_surface(mask) for mask in (prediction, target)]
    empty = [len(points) == 0 for points in surfaces]
    if any(empty):
        return 0.0 if all(empty) else math.hypot(*target.shape)
    pairs = (surfaces, surfaces[::-1])
    return max(float(np.percentile(cKDTree(there).query(here)[0], 95)) for here, there in pairs)


class Hausdorff95(RecordMetric):
    """`hausdorff95` in pixels: `HD95/<class>` is the mean over the images whose truth or prediction has the class,
    `HD95` the mean over classes, a background among them. Void pixels belong to no mask.

    Raises:
        SegfolioError: in `update`, see `semantic_maps`.
    """

    figures = of_house("HD95", "HD95/<class>")

    def __init__(self, labels: LabelSpace) -> None:
        super().__init__()
        self.labels = labels

    def update(self, prediction: Prediction, target: Target) -> None:
        predicted, true = class_maps(prediction, target, self.labels)
        distances = np.full(self.labels.num_classes, np.nan)
        for c in np.union1d(np.unique(predicted), np.unique(true)):
            if c:
                distances[c - 1] = hausdorff95(predicted == c, true == c)
        self.keep(prediction.image_id, distances, target.number)

    def compute(self) -> dict[str, Tensor]:
        distances = per_image_table(self.records().values(), self.labels.num_classes).nanmean(0)
        return {"HD95": distances.nanmean(), **by_name("HD95", self.labels.names, distances)}


def _surface(mask: Bools) -> npt.NDArray[Any]:
    """Places `[N, 2]`, x and y."""
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    inside = np.ascontiguousarray(mask[y : y + h, x : x + w]).view(np.uint8)
    if not inside.size:
        return np.zeros((0, 2))
    surface = inside - cv2.erode(inside, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return cv2.findNonZero(surface).reshape(-1, 2) + np.array([x, y])
