"""How well a promptable network is led to an object: by clicks, and by a box."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.labels import LabelSpace
from segfolio.data.prompts import NOT_OBJECT
from segfolio.data.sample import Prediction, Prompted, Target
from segfolio.errors import SegfolioError
from segfolio.figure import of_house
from segfolio.metrics.records import RecordMetric

Floats = npt.NDArray[np.float64]
_NAMES = {1: "mIoU_1click", 3: "mIoU_3clicks", 5: "mIoU_5clicks"}
_NOC = {"NoC85": 0.85, "NoC90": 0.90}
_NOC_CLICKS = 20  # of which others reckon it


def ious(masks: Sequence[Sequence[RLE]], truth: Sequence[RLE]) -> Floats:
    """IoU `[P, K]` of the K masks for each of P objects with the object."""
    found = [rle.ious(each, true) for each, true in zip(masks, truth, strict=True)]
    return np.stack(found) if found else np.zeros((0, 0))


def clicks_needed(ious: Floats, threshold: float) -> npt.NDArray[np.int64]:
    """NoC (number of clicks) of each object: with how many of K clicks its IoU, `[P, K]`, first reaches the threshold;
    K where it does not, the usual reckoning of interactive segmentation (f-BRS, Sofiiuk et al. 2020)."""
    reached = ious >= threshold
    return np.where(reached.any(1), reached.argmax(1) + 1, ious.shape[1])


class InteractiveMetric(RecordMetric):
    """Figures of masks that a simulated user clicks for, each a mean over all objects of all images.

    `mIoU_1click`, `mIoU_3clicks` and `mIoU_5clicks` are of the mask after so many clicks, as far as there are; after
    the first, the network chooses among several by its own estimate. `mIoU_1click_oracle` is of the best among these.
    `NoC85` and `NoC90` see `clicks_needed`; they are of 20 clicks, as the field reckons, and there are none of fewer or
    more. `click_seconds` is the time that a click takes, from its place to the mask
    in host memory, with all objects of an image asked together: a mean, which does not hold the embedding.

    Args:
        clicks: that each object gets.
    """

    def __init__(self, labels: LabelSpace, clicks: int = 20) -> None:
        super().__init__()
        self.clicks = clicks
        self.shown = {name: k for k, name in _NAMES.items() if k <= clicks}
        self.noc = _NOC if clicks == _NOC_CLICKS else {}
        self.figures = of_house(*self.shown, "mIoU_1click_oracle", *self.noc, "click_seconds")

    def update(self, prediction: Prediction, target: Target) -> None:
        """Keep one image.

        Raises:
            SegfolioError: a mask that is not of the truth's size.
            ValueError: a prediction without clicks, or with another number of them.
        """
        found, truth = _pair(prediction, target)
        if found.clicks is None or found.clicks.kinds is None or found.iou.shape[1:] != (self.clicks,):
            raise ValueError(f"the interactive metric measures {self.clicks} clicks for each object")
        record = {
            "ious": ious(found.rles, truth).reshape(-1, self.clicks),
            "oracle": np.array([rle.ious(m, t).max() for m, t in zip(found.candidates, truth, strict=True)]),
            "seconds": found.seconds,
            "given": int((found.clicks.kinds >= NOT_OBJECT).sum()),
        }
        self.keep(prediction.image_id, record, target.number)

    def compute(self) -> dict[str, Tensor]:
        records = list(self.records().values())
        every = np.concatenate([np.zeros((0, self.clicks)), *(record["ious"] for record in records)])
        figures = {name: every[:, k - 1] for name, k in self.shown.items()}
        figures["mIoU_1click_oracle"] = np.concatenate([np.zeros(0), *(record["oracle"] for record in records)])
        figures |= {name: clicks_needed(every, threshold) for name, threshold in self.noc.items()}
        seconds, given = (sum(record[name] for record in records) for name in ("seconds", "given"))
        time = torch.tensor(seconds / given if given else torch.nan, dtype=torch.float64)
        return {name: _mean(values) for name, values in figures.items()} | {"click_seconds": time}


class BoxMetric(RecordMetric):
    """`mIoU_box`: of the one mask for the box around each object, a mean over all objects of all images."""

    figures = of_house("mIoU_box")

    def __init__(self, labels: LabelSpace) -> None:
        super().__init__()

    def update(self, prediction: Prediction, target: Target) -> None:
        found, truth = _pair(prediction, target)
        self.keep(prediction.image_id, ious(found.rles, truth).ravel(), target.number)

    def compute(self) -> dict[str, Tensor]:
        return {"mIoU_box": _mean(np.concatenate([np.zeros(0), *self.records().values()]))}


def _pair(prediction: Prediction, target: Target) -> tuple[Prompted, list[RLE]]:
    """What was answered, and the truth of each prompt."""
    found, segments = prediction.prompted, target.segments
    if found is None or segments is None:
        raise ValueError("masks that were prompted are compared with objects; this dataset or family has none")
    masks = segments.rles
    truth = [masks[i] for i in found.of.tolist()]
    for mask in (mask for masks in (*found.rles, *found.candidates) for mask in masks):
        if list(mask["size"]) != list(segments.size):
            raise SegfolioError(
                f"{prediction.image_id}: a mask is {list(mask['size'])} (height, width) but the truth is "
                f"{list(segments.size)}; masks are evaluated at the image's original size"
            )
    return found, truth


def _mean(values: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(values).double().mean()
