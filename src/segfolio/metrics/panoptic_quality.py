"""Panoptic quality (Kirillov et al., arXiv 1801.00868, section 4), by the rules of panopticapi.

A predicted and a true segment match if they are of one class and their IoU is above 0.5; there is at most one
such pair for each. The union leaves out what the prediction has in void. Crowd regions are never matched and
never missed. A prediction without a match is no false positive if more than half of it lies in void or in the
crowd region of its class; where a class has several in an image, the last one counts, as in panopticapi.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segfolio.data.formats.panoptic import runs
from segfolio.data.segments import Segments

Stats = npt.NDArray[np.float64]
"""`[C, 4]`: of each class the sum of IoU over matched pairs, TP, FP and FN."""


def match(prediction: Segments, truth: Segments, num_classes: int) -> Stats:
    """Compare the segments of one image.

    Args:
        prediction: an id map and its labels; `crowd` is not read. A segment without a pixel is none.
        truth: likewise, of the same size; 0 is void.
        num_classes: C.

    Raises:
        ValueError: sizes that differ, an id that is not 0 to N, or a label that is no class.
    """
    if prediction.size != truth.size:
        raise ValueError(f"the prediction is {prediction.size}, its truth {truth.size} pixels")
    p_ids, t_ids = (segments.id_map.cpu().numpy().reshape(-1) for segments in (prediction, truth))
    p_labels, t_labels = (segments.labels.cpu().numpy() for segments in (prediction, truth))
    starts, lengths = runs(p_ids, t_ids)
    p_ids, t_ids = _checked("ids", p_ids[starts], len(p_labels)), _checked("ids", t_ids[starts], len(t_labels))
    for labels in (p_labels, t_labels):
        _checked("labels", labels, num_classes - 1)

    rows, columns = len(t_labels) + 1, len(p_labels) + 1
    joint = np.bincount(t_ids * columns + p_ids, lengths, rows * columns).reshape(rows, columns)
    overlap, void = joint[1:, 1:], joint[0, 1:]
    t_area, p_area = joint[1:].sum(1), joint[:, 1:].sum(0)
    crowd = truth.crowd.cpu().numpy()

    union = t_area[:, None] + p_area - overlap - void
    iou = overlap / np.maximum(union, 1)
    of_one_class = (t_labels[:, None] == p_labels) & ~crowd[:, None]
    t_matched, p_matched = np.nonzero(of_one_class & (iou > 0.5))

    ignored = void.copy()
    for label, place in {int(t_labels[place]): place for place in np.flatnonzero(crowd)}.items():
        ignored += np.where(p_labels == label, overlap[place], 0)
    false_positive = (p_area > 0) & (ignored / np.maximum(p_area, 1) <= 0.5)
    false_negative = (t_area > 0) & ~crowd
    false_positive[p_matched] = false_negative[t_matched] = False

    def count(labels: npt.NDArray[np.int64], weights: Stats | None = None) -> npt.NDArray[np.number]:
        return np.bincount(labels, weights, minlength=num_classes)

    pairs = t_labels[t_matched]
    return np.stack(
        [
            count(pairs, iou[t_matched, p_matched]),
            count(pairs),
            count(p_labels[false_positive]),
            count(t_labels[false_negative]),
        ],
        axis=1,
    )


def quality(stats: Tensor) -> Tensor:
    """PQ, SQ and RQ of each class, `[C, 3]`, from the `Stats` of a whole split.

    NaN for a class that occurs in neither truth nor prediction, so that it stays out of means; SQ of a class
    without a match is 0.
    """
    iou, tp, fp, fn = stats.unbind(1)
    counted = tp + (fp + fn) / 2
    sq = torch.where(counted > 0, iou / tp.clamp(min=1), torch.nan)
    return torch.stack([iou / counted, sq, tp / counted], 1)


def _checked(name: str, values: npt.NDArray[np.integer], highest: int) -> npt.NDArray[np.integer]:
    if values.size and not 0 <= values.min() <= values.max() <= highest:
        raise ValueError(f"{name} are {values.min()} to {values.max()}, expected 0 to {highest}")
    return values
