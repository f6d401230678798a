"""The metric of per-pixel classification, from predictions to the log."""

from torch import Tensor

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.metrics.confusion import ConfusionMatrix, accuracy_per_class, dice_per_class, iou_per_class


class SemanticMetric(ConfusionMatrix):
    """One confusion matrix over all images; figures by their names in the log.

    Beside the means there is `IoU/<class>`, `accuracy/<class>` and `dice/<class>`; NaN where a figure is not
    defined for a class.
    """

    def __init__(self, labels: LabelSpace) -> None:
        super().__init__(labels.num_classes, labels.ignore_index)
        self.names = labels.names

    def update(self, prediction: Prediction, target: Target) -> None:  # type: ignore[override]
        if prediction.semantic is None or target.semantic is None:
            raise ValueError("the semantic metric compares semantic maps; this dataset or family has none")
        super().update(prediction.semantic, target.semantic.as_subclass(Tensor))

    def compute(self) -> dict[str, Tensor]:
        figures = super().compute()
        for kind, per_class in (
            ("IoU", iou_per_class),
            ("accuracy", accuracy_per_class),
            ("dice", dice_per_class),
        ):
            figures |= {f"{kind}/{n}": v for n, v in zip(self.names, per_class(self.matrix.cpu()), strict=True)}
        return figures
