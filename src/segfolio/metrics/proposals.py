"""The metric of masks without classes, as everything mode finds them: which part of the objects is among the best."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Instances, Prediction, Target
from segfolio.figure import ratios
from segfolio.metrics.average_precision import AREAS, Kind
from segfolio.metrics.instance import SUFFIX, InstanceMetric


class ProposalMetric(InstanceMetric):
    """COCO's AR of masks or boxes, where neither truths nor detections have a class (pycocotools with `useCats = 0`).

    The figures are `AR_<n>` of the n detections of an image that score most, and AR_small, AR_medium and AR_large of
    the largest n, those of boxes with the suffix `_box`. Objects of the truth are those that `InstanceMetric` counts;
    detections count whatever their class.

    Args:
        max_dets: the n.
        kind: `segm` or `bbox`, see `InstanceMetric`.
    """

    def __init__(self, labels: LabelSpace, max_dets: Sequence[int] = (10, 100, 1000), kind: Kind = "segm") -> None:
        super().__init__(labels, (kind,), max_dets)
        names = (*(f"AR_{n}" for n in self.max_dets), *(f"AR{size}" for size in AREAS if size))
        self.figures = ratios(*(f"{name}{SUFFIX[kind]}" for name in names))
        self._ids = torch.tensor(labels.ids)
        self._counted = int((self._category >= 0).argmax())
        self.names, self._category = ("object",), self._category.clip(max=0)

    def update(self, prediction: Prediction, target: Target) -> None:
        """Keep one image; see `InstanceMetric.update`."""
        found, truth = prediction.instances, target.segments
        if found is not None and truth is not None:  # in the order of pycocotools, which decides between equals
            order = self._ids[found.labels.cpu()].argsort(stable=True)
            rles, scores = [found.rles[i] for i in order.tolist()], found.scores.cpu()[order]
            boxes = None if found.boxes is None else found.boxes.cpu()[order]
            same = Instances(rles, torch.full_like(order, self._counted), scores, boxes)
            prediction = replace(prediction, instances=same)
            target = replace(target, segments=truth[self._ids[truth.labels.cpu()].argsort(stable=True)])
        super().update(prediction, target)

    def compute(self) -> dict[str, Tensor]:
        named = {figure.name for figure in self.figures}
        return {name: value for name, value in super().compute().items() if name in named}
