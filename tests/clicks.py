"""A figure of one's own: `--model.init_args.metrics+=tests.clicks.Clicks`."""

import torch
from torch import Tensor

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Target
from segfolio.figure import Figure
from segfolio.metrics import RecordMetric


class Clicks(RecordMetric):
    """`NoC95` of two and three clicks on every other image, and of each class."""

    figures = (Figure("NoC95", "clicks", False), Figure("NoC95/<class>", "clicks", False))

    def __init__(self, labels: LabelSpace) -> None:
        super().__init__()
        self.labels = labels

    def update(self, prediction: Prediction, target: Target) -> None:
        self.keep(prediction.image_id, 2 + len(self.state) % 2)

    def compute(self) -> dict[str, Tensor]:
        clicks = torch.tensor([*self.records().values()]).double().mean()
        return {"NoC95": clicks} | {f"NoC95/{name}": clicks for name in self.labels.names}
