"""How well a segmentation follows the boundaries between classes."""

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError
from segfolio.figure import of_house
from segfolio.metrics.records import RecordMetric
from segfolio.metrics.semantic import by_name, class_maps, per_image_table

Map = npt.NDArray[Any]
"""`[H, W]` uint8 or uint16: classes counted from 1, 0 where a pixel is void."""


def boundary_f1(prediction: Map, target: Map, num_classes: int, tolerance: float) -> npt.NDArray[np.float64]:
    """F1 of each class's boundary pixels (Csurka et al., BMVC 2013, section 3.2).

    A boundary pixel of a class has a pixel of another class among its four neighbours; void and the image's
    border make no boundary, so that where void traces every object no boundary is left. A boundary pixel is
    right if the other map has one of the same class nearer than `tolerance`: precision is the share of those
    of the prediction, recall of those of the truth.

    Args:
        prediction: void where the truth is.
        num_classes: C.
        tolerance: in pixels.

    Returns:
        `[C]`; NaN for a class that the truth lacks, or that has no boundary in either map; 0 where it has one
        in one map alone.
    """
    boundaries = [_boundaries(m) for m in (prediction, target)]
    hits, counts = [], []
    for here, there in (boundaries, boundaries[::-1]):
        counts.append(np.bincount(here.reshape(-1), minlength=num_classes + 1)[1:])
        hits.append(counts[-1] - np.bincount(missed(here, there, tolerance), minlength=num_classes + 1)[1:])
    precision, recall = (h / np.maximum(n, 1) for h, n in zip(hits, counts, strict=True))
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    present = np.bincount(target.reshape(-1), minlength=num_classes + 1)[1:] > 0
    return np.where(present & (counts[0] + counts[1] > 0), f1, np.nan)


def inner_band(classes: Map, width: int) -> npt.NDArray[np.bool_]:
    """Pixels `[H, W]` that lie within `width` of the contour of their class, the image's border being contour.

    For each class the mask less its erosion by `width` passes of 3 x 3 (Cheng et al., arXiv 2103.16562), but of
    all classes at once: a pixel stays if its window, void left out, holds one class and lies in the image.
    """
    window = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    top = np.iinfo(classes.dtype).max
    lowest = cv2.erode(np.where(classes == 0, top, classes), window, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return (lowest != cv2.dilate(classes, window)) & (classes > 0)


def boundary_overlap(prediction: Map, target: Map, num_classes: int, width: int) -> npt.NDArray[np.int64]:
    """Pixels in the intersection and in the union of each class's two bands, `[2, C]`; see `inner_band`."""
    bands = [np.where(inner_band(m, width), m, 0) for m in (prediction, target)]
    predicted, true, both = (
        np.bincount(m.reshape(-1), minlength=num_classes + 1)[1:]
        for m in (*bands, np.where(bands[0] == bands[1], bands[0], 0))
    )
    return np.stack([both, predicted + true - both])


class BoundaryF1(RecordMetric):
    """SegNet's BF (arXiv 1511.00561, section 4): see `boundary_f1`.

    `boundary_f1` is the mean over images of each image's mean over the classes in its truth;
    `boundary_f1/<class>` is the mean over the images that have the class. Void is left out.

    Args:
        tolerance: share of the image's diagonal.

    Raises:
        SegfolioError: a tolerance that is no share; in `update`, see `semantic_maps`.
    """

    figures = of_house("boundary_f1", "boundary_f1/<class>")

    def __init__(self, labels: LabelSpace, tolerance: float = 0.0075) -> None:
        super().__init__()
        self.labels, self.tolerance = labels, _share("tolerance", tolerance)

    def update(self, prediction: Prediction, target: Target) -> None:
        maps = class_maps(prediction, target, self.labels)
        tolerance = self.tolerance * math.hypot(*maps[0].shape)
        self.keep(prediction.image_id, boundary_f1(*maps, self.labels.num_classes, tolerance), target.number)

    def compute(self) -> dict[str, Tensor]:
        f1 = per_image_table(self.records().values(), self.labels.num_classes)
        return {"boundary_f1": f1.nanmean(1).nanmean(), **by_name("boundary_f1", self.labels.names, f1.nanmean(0))}


class BoundaryIoU(RecordMetric):
    """Boundary IoU (Cheng et al., arXiv 2103.16562): IoU of the bands inside the contours, see `inner_band`.

    Pixels are summed over all images before a ratio is taken, as in `mIoU`: `boundary_IoU/<class>`, and
    `boundary_mIoU`, the mean over the classes that occur in truth or prediction. Void is left out.

    Args:
        dilation: width of the band, share of the image's diagonal; a pixel at least.

    Raises:
        SegfolioError: a dilation that is no share; in `update`, see `semantic_maps`.
    """

    figures = of_house("boundary_mIoU", "boundary_IoU/<class>")

    def __init__(self, labels: LabelSpace, dilation: float = 0.02) -> None:
        super().__init__()
        self.labels, self.dilation = labels, _share("dilation", dilation)

    def update(self, prediction: Prediction, target: Target) -> None:
        maps = class_maps(prediction, target, self.labels)
        width = max(1, round(self.dilation * math.hypot(*maps[0].shape)))
        self.keep(prediction.image_id, boundary_overlap(*maps, self.labels.num_classes, width), target.number)

    def compute(self) -> dict[str, Tensor]:
        records = np.array(list(self.records().values()), np.int64).reshape(-1, 2, self.labels.num_classes)
        intersection, union = torch.from_numpy(records.sum(0)).double()
        iou = intersection / union
        return {"boundary_mIoU": iou.nanmean(), **by_name("boundary_IoU", self.labels.names, iou)}


def _boundaries(classes: Map) -> Map:
    """The map with 0 at all pixels but those of a boundary, see `boundary_f1`."""
    boundary = np.zeros(classes.shape, np.bool_)
    for m, b in ((classes, boundary), (classes.T, boundary.T)):
        differ = (m[1:] != m[:-1]) & (m[1:] > 0) & (m[:-1] > 0)
        b[1:] |= differ
        b[:-1] |= differ
    return np.where(boundary, classes, 0)


def missed(here: Map, there: Map, tolerance: float) -> npt.NDArray[Any]:
    """The class `[N]` of each pixel of `here` without its like in `there` nearer than `tolerance`.

    All pixels look outwards step by step, and those that have found one stop: most do soon. Those that have none
    in the tiles around their own do not begin.
    """
    reach = math.ceil(tolerance)
    y, x = np.nonzero(here)
    classes = here[y, x]
    hopeful = _classes_around(there, reach, max(here.max(), there.max()))[y // reach + 1, x // reach + 1, classes]
    padded = np.pad(there, reach)
    width, flat = padded.shape[1], padded.reshape(-1)
    places, looking = ((y + reach) * width + x + reach)[hopeful], classes[hopeful]
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    squared = dy**2 + dx**2
    nearest_first = np.argsort(squared, kind="stable")[: np.count_nonzero(squared < tolerance**2)]
    for step in (dy * width + dx)[nearest_first]:
        missing = flat[places + step] != looking
        places, looking = places[missing], looking[missing]
    return np.concatenate([classes[~hopeful], looking])


def _classes_around(classes: Map, side: int, last: int) -> npt.NDArray[np.bool_]:
    """Whether a class is in a tile of `side` pixels or one beside it: `[rows + 2, columns + 2, last + 1]`."""
    tiles = np.zeros((classes.shape[0] // side + 3, classes.shape[1] // side + 3, last + 1), np.bool_)
    y, x = np.nonzero(classes)
    tiles[y // side + 1, x // side + 1, classes[y, x]] = True
    for axis in (0, 1):
        tiles |= np.roll(tiles, 1, axis) | np.roll(tiles, -1, axis)
    return tiles


def _share(name: str, value: float) -> float:
    if not 0 < value < 1:
        raise SegfolioError(f"{name} is {value}, expected a share of the image's diagonal, as 0.02; not pixels")
    return value
