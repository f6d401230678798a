"""The figures of Cityscapes' pixel-level task beside the IoU of its classes.

Cordts et al., arXiv 1604.01685, section 3.3, as cityscapesscripts' `evalPixelLevelSemanticLabeling` computes
them. Its class IoU is `mIoU` and `IoU/<class>` of `SemanticMetric`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.figure import of_house
from segfolio.metrics.confusion import confusion_matrix, from_entries, to_entries
from segfolio.metrics.records import RecordMetric
from segfolio.metrics.semantic import by_name, semantic_maps

CATEGORIES: dict[str, Sequence[str]] = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
INSTANCE_SIZES: dict[str, float] = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Average pixels of an instance in Cityscapes' training set."""


class CityscapesMetric(RecordMetric):
    """`IoU_category`, `iIoU` and `iIoU_category`, and each of them by class or category.

    In `iIoU` a pixel of an instance weighs its class's average size over the instance's own, in true positives
    and false negatives; false positives are plain pixels. So it is of things alone, and of the categories of
    things alone; the pixels of a crowd are neither true positive nor false negative. The means are over what occurs
    in truth or prediction.

    Args:
        categories: the classes of each category, by name.
        instance_sizes: average pixels of an instance of each thing.

    Raises:
        SegfolioError: a class that does not exist, a thing without size; in `update`, a target without segments,
            and see `semantic_maps`.
    """

    figures = of_house(
        *(f"{name}{kind}" for name in ("IoU_category", "iIoU", "iIoU_category") for kind in ("", "/<class>"))
    )

    def __init__(
        self,
        labels: LabelSpace,
        categories: Mapping[str, Sequence[str]] = CATEGORIES,
        instance_sizes: Mapping[str, float] = INSTANCE_SIZES,
    ) -> None:
        super().__init__()
        if unknown := sorted({name for names in categories.values() for name in names} - set(labels.names)):
            raise SegfolioError(
                f"categories name {', '.join(unknown)}, which the dataset lacks; its classes are "
                f"{', '.join(labels.names)}"
            )
        if missing := sorted(set(labels.things) - set(instance_sizes)):
            raise SegfolioError(f"instance_sizes lacks the thing {', '.join(missing)}; give its average pixels")
        self.labels = labels
        self.categories = {name: [labels.names.index(c) for c in classes] for name, classes in categories.items()}
        self.sizes = np.array([instance_sizes[name] if name in labels.things else 0.0 for name in labels.names])

    def update(self, prediction: Prediction, target: Target) -> None:
        if target.segments is None:
            raise SegfolioError(
                f"{prediction.image_id}: iIoU weighs pixels by their instance but the dataset has no segments; "
                "remove the metric"
            )
        predicted, truth = semantic_maps(prediction, target)
        matrix = confusion_matrix(predicted, truth, self.labels.num_classes, self.labels.ignore_index)
        weighted = weighted_matrix(predicted.cpu().numpy(), target.segments, self.sizes)
        self.keep(prediction.image_id, (to_entries(matrix), to_entries(weighted)), target.number)

    def compute(self) -> dict[str, Tensor]:
        matrix, weighted = torch.zeros(2, *(self.labels.num_classes,) * 2, dtype=torch.float64)
        for plain_entries, weighted_entries in self.records().values():
            matrix += from_entries(plain_entries, self.labels.num_classes)
            weighted += from_entries(weighted_entries, self.labels.num_classes)
        things = {name: [self.labels.names.index(name)] for name in self.labels.things}
        of_things = {name: c for name, c in self.categories.items() if all(self.labels.is_thing[i] for i in c)}
        figures: dict[str, Tensor] = {}
        for figure, groups, truth in (
            ("IoU_category", self.categories, matrix),
            ("iIoU", things, weighted),
            ("iIoU_category", of_things, weighted),
        ):
            ious = torch.tensor([group_iou(matrix, truth, c) for c in groups.values()], dtype=torch.float64)
            figures |= {figure: ious.nanmean(), **by_name(figure, groups, ious)}
        return figures


def weighted_matrix(prediction: npt.NDArray[np.integer], segments: Segments, sizes: npt.NDArray[np.float64]) -> Tensor:
    """The confusion matrix `[C, C]` of the pixels of instances, each weighing `sizes` over its instance's pixels.

    Args:
        prediction: class indices, `[H, W]`.
        segments: those that are crowds, or of a class of size 0, are left out.
        sizes: of the average instance of each class, `[C]`, in pixels.
    """
    ids, n = segments.id_map.cpu().numpy(), len(sizes)
    inside = ids > 0
    pairs = (ids[inside] - 1) * n + prediction[inside]
    pixels = np.bincount(pairs, minlength=len(segments) * n).reshape(len(segments), n)  # of instance by class predicted
    labels, crowd = segments.labels.cpu().numpy(), segments.crowd.cpu().numpy()
    weights = np.where(crowd, 0, sizes[labels]) / np.maximum(pixels.sum(1), 1)
    matrix = np.zeros((n, n))
    np.add.at(matrix, labels, weights[:, None] * pixels)
    return torch.from_numpy(matrix)


def group_iou(matrix: Tensor, truth: Tensor, classes: Sequence[int]) -> Tensor:
    """IoU of classes taken as one; NaN where they do not occur.

    Args:
        matrix: `[C, C]`, its false positives are read from.
        truth: `[C, C]`, its true positives and false negatives are read from.
    """
    columns = matrix[:, classes]
    false_positives = columns.sum() - columns[classes].sum()
    return truth[classes][:, classes].sum() / (truth[classes].sum() + false_positives)
