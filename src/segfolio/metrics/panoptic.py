"""The metric of panoptic segmentation, from predictions to the log."""

import numpy as np
import torch
from torch import Tensor

from segfolio.data.labels import LabelSpace
from segfolio.data.panoptic_truth import panoptic_truth
from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError
from segfolio.figure import of_house
from segfolio.metrics.panoptic_quality import match, quality
from segfolio.metrics.records import RecordMetric


class PanopticMetric(RecordMetric):
    """Panoptic quality of a split, equal to panopticapi's; figures by their names in the log.

    `PQ`, `SQ` and `RQ` are means over the classes that occur, `PQ_things`, `PQ_stuff`, ... over those of their
    kind, and there is `PQ/<class>`; NaN where a figure is not defined.
    """

    figures = of_house(*(f"{n}{kind}" for n in ("PQ", "SQ", "RQ") for kind in ("", "_things", "_stuff")), "PQ/<class>")

    def __init__(self, labels: LabelSpace) -> None:
        super().__init__()
        self.labels = labels

    def update(self, prediction: Prediction, target: Target) -> None:
        """Compare one image.

        Raises:
            ValueError: a prediction or a target without panoptic segments.
            SegfolioError: sizes that differ.
        """
        if prediction.panoptic is None:
            raise ValueError("the panoptic metric compares panoptic segments; this family predicts none")
        truth = panoptic_truth(target, self.labels)
        if prediction.panoptic.size != truth.size:
            sizes = "{1}x{0} pixels but its truth is {3}x{2}".format(*prediction.panoptic.size, *truth.size)
            raise SegfolioError(
                f"the prediction of {prediction.image_id} is {sizes}; predictions have their image's original size"
            )
        stats = match(prediction.panoptic, truth, self.labels.num_classes)
        classes = np.flatnonzero(stats.any(1))
        self.keep(prediction.image_id, (classes, stats[classes]), target.number)

    def compute(self) -> dict[str, Tensor]:
        stats = np.zeros((self.labels.num_classes, 4))
        for classes, counts in self.records().values():
            stats[classes] += counts
        per_class = quality(torch.from_numpy(stats))
        things = torch.tensor(self.labels.is_thing)
        figures = {
            f"{name}{kind}": mean
            for kind, chosen in (("", things | True), ("_things", things), ("_stuff", ~things))
            for name, mean in zip(("PQ", "SQ", "RQ"), per_class[chosen].nanmean(0), strict=True)
        }
        return figures | {f"PQ/{n}": v for n, v in zip(self.labels.names, per_class[:, 0], strict=True)}
