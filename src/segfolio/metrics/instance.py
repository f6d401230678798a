"""The metric of instance segmentation, from predictions to the log."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segfolio.data.formats import rle
from segfolio.data.formats.rle import RLE
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError
from segfolio.figure import ratios
from segfolio.metrics.average_precision import AREAS, AveragePrecision, Bools, Floats, Kind, Objects, average_precision
from segfolio.metrics.records import RecordMetric

SUFFIX: dict[Kind, str] = {"segm": "", "bbox": "_box"}


class InstanceMetric(RecordMetric):
    """COCO's AP and AR of all images by their names in the log; see `average_precision`.

    The figures of boxes have the suffix `_box`. Beside the means there is `AP/<class>` (`AP_box/<class>`), NaN
    for a class that the truth lacks. Things count, or where the label space has none, all but the background;
    truths and detections of other classes are left out. A score is compared as the float32 that it is.

    Args:
        kinds: `segm` for masks, `bbox` for boxes: those annotated or predicted, else those around the masks.
        max_dets: see `average_precision`.

    Attributes:
        words: how it measures, in the words of the ledger.
    """

    words: ClassVar[str] = "COCO evaluation"

    def __init__(
        self, labels: LabelSpace, kinds: Sequence[Kind] = ("segm",), max_dets: Sequence[int] = (1, 10, 100)
    ) -> None:
        super().__init__()
        self.kinds, self.max_dets = tuple(kinds), tuple(max_dets)
        sizes = [f"{name}{size}" for name in ("AP", "AR") for size in AREAS if size]
        names = ["AP", "AP50", "AP75", *(f"AR_{n}" for n in self.max_dets), *sizes]
        of_classes = [f"AP{SUFFIX[kind]}/<class>" for kind in self.kinds]
        self.figures = ratios(*(f"{name}{SUFFIX[kind]}" for kind in self.kinds for name in names), *of_classes)
        things = labels.things or set(labels.names) - {labels.background}
        self.names = tuple(name for name in labels.names if name in things)
        self._category = np.array([self.names.index(n) if n in things else -1 for n in labels.names])

    def update(self, prediction: Prediction, target: Target) -> None:
        """Keep one image.

        Raises:
            SegfolioError: a mask that is not of the image's size; a truth without a mask where masks are measured.
        """
        truth, found = target.segments, prediction.instances
        if truth is None or found is None:
            raise ValueError("the instance metric compares objects; this dataset or family has none")
        if "segm" in self.kinds and truth.box_only is not None and truth.box_only.any():
            raise SegfolioError(f"{prediction.image_id} has objects with a box and no mask; measure kinds: [bbox]")
        masks = {"truth": truth.rles, "detection": found.rles}
        for name, rles in masks.items():
            if wrong := [mask["size"] for mask in rles if tuple(mask["size"]) != tuple(prediction.size)]:
                raise SegfolioError(
                    f"{prediction.image_id}: the mask of a {name} is {list(wrong[0])} (height, width) but the image is "
                    f"{list(prediction.size)}; masks are evaluated at the image's original size"
                )
        areas = torch.from_numpy(rle.areas(masks["truth"])) if truth.areas is None else truth.areas
        record = {
            "size": list(prediction.size),
            "truth": self._columns(masks["truth"], truth.labels, truth.boxes, area=areas, crowd=truth.crowd),
            "detection": self._columns(masks["detection"], found.labels, found.boxes, score=found.scores.float()),
        }
        self.keep(prediction.image_id, self._kept(prediction.image_id, record, target), number=target.number)

    def compute(self) -> dict[str, Tensor]:
        records = list(self.records().values())
        crowd = column(records, "truth", "crowd").astype(np.bool_)
        scores = column(records, "detection", "score")
        figures: dict[str, float] = {}
        for kind in self.kinds:
            truths, detections = (_objects(records, side, kind) for side in ("truth", "detection"))
            result = self._result(records, truths, crowd, detections, scores)
            suffix = SUFFIX[kind]
            figures |= {f"{name}{suffix}": value for name, value in self._means(result).items()}
            figures |= {f"AP{suffix}/{n}": ap for n, ap in zip(self.names, result.per_category, strict=True)}
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in figures.items()}

    def _kept(self, image_id: str, record: dict[str, Any], target: Target) -> dict[str, Any]:
        """What of an image's record is kept; columns may be added to its truths and detections."""
        return record

    def _result(
        self, records: list[dict[str, Any]], truths: Objects, crowd: Bools, detections: Objects, scores: Floats
    ) -> AveragePrecision:
        return average_precision(truths, crowd, detections, scores, len(self.names), self.max_dets)

    def _means(self, result: AveragePrecision) -> dict[str, float]:
        """The figures over classes, by name without suffix."""
        return result.figures

    def _columns(self, rles: list[RLE], labels: Tensor, boxes: Tensor | None, **others: Tensor) -> dict[str, Any]:
        """What is kept of the objects whose class counts."""
        category = self._category[labels.cpu().numpy()]
        rows = np.flatnonzero(category >= 0)
        rles = [rles[row] for row in rows.tolist()]
        columns: dict[str, Any] = {name: column.cpu().numpy()[rows] for name, column in others.items()}
        if "bbox" in self.kinds:
            columns["box"] = rle.boxes(rles) if boxes is None else boxes.cpu().numpy()[rows]
        return columns | {"category": category[rows], "counts": [mask["counts"] for mask in rles]}


def column(records: list[dict[str, Any]], side: str, name: str) -> npt.NDArray[np.float64]:
    """One column of the truths or detections of all images."""
    return np.concatenate([np.zeros(0), *(record[side][name].ravel() for record in records)])


def _objects(records: list[dict[str, Any]], side: str, kind: Kind) -> Objects:
    """The truths or detections of all images; areas are those annotated, or those of the regions detected."""
    images = np.repeat(np.arange(len(records)), [len(record[side]["counts"]) for record in records])
    category = column(records, side, "category").astype(np.int64)
    regions: Any
    if kind == "bbox":
        boxes = column(records, side, "box").reshape(-1, 4)
        regions, area = boxes.tolist(), boxes[:, 2] * boxes[:, 3]
    else:
        regions = [RLE(size=r["size"], counts=counts) for r in records for counts in r[side]["counts"]]
        area = rle.areas(regions).astype(np.float64) if side == "detection" else np.zeros(0)
    if side == "truth":
        area = column(records, side, "area")
    return Objects(images, category, area, regions)
