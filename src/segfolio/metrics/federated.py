"""LVIS's average precision, of datasets whose images were each searched for some of the classes alone.

The figures are those of the `lvis` package (0.5.3), to the last bit, where the truth has no crowds, which LVIS does not
know. As in `average_precision`, a truth of id 0 can be found here, and a mask has its own area whatever box comes with
it; no detection at all is 0 here and an error there.
"""

from collections.abc import Collection, Sequence
from itertools import compress
from typing import Any, ClassVar

import numpy as np

from segfolio.data.labels import FREQUENCIES, LabelSpace
from segfolio.data.sample import Target
from segfolio.errors import SegfolioError
from segfolio.figure import ratios
from segfolio.metrics.average_precision import (
    AveragePrecision,
    Bools,
    Floats,
    Ints,
    Kind,
    Objects,
    average_precision,
)
from segfolio.metrics.instance import SUFFIX, InstanceMetric, column

MAX_DETS = (300,)


def judged(categories: Ints, scores: Floats, known: Collection[int], max_dets: int) -> tuple[Bools, Ints]:
    """Which detections of an image count (LVIS, arXiv 1908.03195), and the rank of each: the best is 0.

    They are the best ones of all categories together, and of them those of a category of which something is known.

    Args:
        categories: `[D]`, of the detections.
        scores: `[D]`; of equal ones the first goes first.
        known: categories that the image has or is known to lack.
        max_dets: how many are the best ones.
    """
    rank = np.zeros(len(scores), np.int64)
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return np.isin(categories, list(known)) & (rank < max_dets), rank


class FederatedMetric(InstanceMetric):
    """LVIS's AP and AR of all images by their names in the log.

    An image is asked for the classes alone that it has or is known to lack. Of a class that is not exhaustive in it,
    what is found beyond the truth is neither right nor wrong. Truths and detections without area are left out. Beside
    the figures of `InstanceMetric` there are those of the classes of each frequency, as `AP_rare`.

    Args:
        labels: of a dataset that is federated.
        kinds: see `InstanceMetric`.
        max_dets: detections of an image that count, the best ones of all classes together; AP takes the largest.

    Raises:
        SegfolioError: a dataset that is not federated.
    """

    words: ClassVar[str] = "LVIS evaluation"

    def __init__(
        self, labels: LabelSpace, kinds: Sequence[Kind] = ("segm",), max_dets: Sequence[int] = MAX_DETS
    ) -> None:
        if not labels.frequencies:
            raise SegfolioError(
                "FederatedMetric is of datasets whose images were each searched for some of the classes alone, as "
                "LVIS's; this one does not say for which: use InstanceMetric"
            )
        super().__init__(labels, kinds, max_dets)
        self.figures += ratios(*(f"AP_{name}{SUFFIX[kind]}" for kind in self.kinds for name in FREQUENCIES))
        self._frequencies = np.array([labels.frequencies[labels.names.index(name)] for name in self.names])

    def _kept(self, image_id: str, record: dict[str, Any], target: Target) -> dict[str, Any]:
        if (searched := target.federated) is None:
            raise SegfolioError(
                f"{image_id}: its dataset does not say for which classes the image was searched (Target.federated), "
                "and others of its classes do"
            )
        absent, partial = (self._category[list(x)].tolist() for x in (searched.absent, searched.not_exhaustive))
        truth, found = record["truth"], record["detection"]
        truth = _rows(truth, truth["area"] > 0)
        known = {*truth["category"].tolist(), *absent}
        counting, rank = judged(found["category"], found["score"], known, max(self.max_dets))
        found |= {"rank": rank, "tolerated": np.isin(found["category"], partial)}
        return record | {"truth": truth, "detection": _rows(found, counting)}

    def _result(
        self, records: list[dict[str, Any]], truths: Objects, crowd: Bools, detections: Objects, scores: Floats
    ) -> AveragePrecision:
        rows = np.flatnonzero(detections.areas > 0)
        rank, tolerated = (column(records, "detection", name)[rows] for name in ("rank", "tolerated"))
        return average_precision(
            truths,
            crowd,
            detections.take(rows),
            scores[rows],
            len(self.names),
            self.max_dets,
            rank.astype(np.int64),
            tolerated.astype(np.bool_),
        )

    def _means(self, result: AveragePrecision) -> dict[str, float]:
        of_frequencies = {f"AP_{name}": result.of_categories(self._frequencies == name) for name in FREQUENCIES}
        return result.figures | of_frequencies


def instance_metric(
    labels: LabelSpace, kinds: Sequence[Kind] = ("segm",), max_dets: Sequence[int] = (1, 10, 100)
) -> InstanceMetric:
    """The metric by which a dataset's figures are published.

    LVIS's, with its own `MAX_DETS`, where the dataset is federated; else COCO's.
    """
    return FederatedMetric(labels, kinds) if labels.frequencies else InstanceMetric(labels, kinds, max_dets)


def _rows(columns: dict[str, Any], keep: Bools) -> dict[str, Any]:
    """Of what `InstanceMetric` keeps of an image's truths or detections, some."""
    return {
        name: list(compress(each, keep)) if isinstance(each, list) else each[keep] for name, each in columns.items()
    }
