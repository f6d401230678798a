"""The scores of the ISBI 2012 challenge: how cells are split and merged.

Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for connectomics",
Frontiers in Neuroanatomy 2015, section 2 (Rand and information theoretic scores, foreground-restricted). With
`p_ij` the share of the pixels in segment i of the prediction and j of the truth, `s_i` and `t_j` its sums and
alpha = 1/2,

    V_rand = sum p_ij^2 / (alpha sum s_i^2 + (1 - alpha) sum t_j^2)
    V_info = I(S; T) / (alpha H(S) + (1 - alpha) H(T))

Pixels that the truth has as membrane, 0, are left out. A pixel of a cell that the prediction has as membrane is a
segment by itself, as in the challenge's software. Two things of the challenge are not done: it thins the
predicted membrane to a line of one pixel, and takes the best over the thresholds of a probability map.
"""

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError
from segfolio.figure import of_house
from segfolio.metrics.records import RecordMetric
from segfolio.metrics.semantic import class_maps, per_image_table

Ids = npt.NDArray[np.integer]
Shares = npt.NDArray[np.float64]


def contingency(prediction: Ids, target: Ids) -> tuple[Shares, Shares, Shares]:
    """`p_ij` where it is not 0, `s_i` and `t_j`, each `[N]` with a sum of 1; empty where the truth has no segment.

    Args:
        prediction: segment of each pixel, any shape, 0 where there is none.
        target: same shape.
    """
    counts = target != 0
    predicted, true = prediction[counts].astype(np.int64), target[counts].astype(np.int64)
    alone = predicted == 0
    predicted[alone] = predicted.max(initial=0) + 1 + np.arange(alone.sum())
    pairs = predicted * (true.max(initial=0) + 1) + true
    joint, s, t = (np.unique(ids, return_counts=True)[1] / max(len(true), 1) for ids in (pairs, predicted, true))
    return joint, s, t


def v_rand(prediction: Ids, target: Ids) -> float:
    """The Rand score of two maps of segments; 1 where they agree, NaN where the truth has no segment."""
    joint, s, t = contingency(prediction, target)
    return float(2 * (joint**2).sum() / ((s**2).sum() + (t**2).sum())) if len(t) else np.nan


def v_info(prediction: Ids, target: Ids) -> float:
    """The information theoretic score of two maps of segments; NaN where the truth has no segment.

    One segment that is predicted as one has no entropy to share, and is 1.
    """
    joint, s, t = map(_entropy, shares := contingency(prediction, target))
    if not len(shares[2]):
        return np.nan
    return 2 * (s + t - joint) / (s + t) if s + t else 1.0


class RandInformation(RecordMetric):
    """`V_rand` and `V_info`, means over images.

    The segments of truth and prediction are the components of the class `cell`, connected over four neighbours
    in one image.

    Args:
        cell: name of the class; all others are membrane.

    Raises:
        SegfolioError: a cell that is no class; in `update`, see `semantic_maps`.
    """

    figures = of_house("V_rand", "V_info")

    def __init__(self, labels: LabelSpace, cell: str = "cell") -> None:
        super().__init__()
        if cell not in labels.names:
            raise SegfolioError(f"cell is {cell!r}, which is no class of the dataset: {', '.join(labels.names)}")
        self.labels, self.cell = labels, cell

    def update(self, prediction: Prediction, target: Target) -> None:
        cell = self.labels.names.index(self.cell) + 1
        maps = [components(m == cell) for m in class_maps(prediction, target, self.labels)]
        self.keep(prediction.image_id, (v_rand(*maps), v_info(*maps)), target.number)

    def compute(self) -> dict[str, Tensor]:
        means = per_image_table(self.records().values(), 2).nanmean(0)
        return dict(zip(("V_rand", "V_info"), means, strict=True))


def components(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Number of each pixel's component, `[H, W]`, connected over four neighbours; 0 outside."""
    return cv2.connectedComponents(mask.view(np.uint8), connectivity=4)[1]


def _entropy(shares: Shares) -> float:
    return float(-(shares * np.log(shares)).sum())
