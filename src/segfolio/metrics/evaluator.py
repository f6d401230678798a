"""What a family's metric offers."""

from typing import Protocol

from torch import Tensor

from segfolio.data.sample import Prediction, Target


class Evaluator(Protocol):
    """Predictions and truths in, named figures out; a `torchmetrics.Metric`, so that processes add up."""

    def update(self, prediction: Prediction, target: Target) -> None: ...
    def compute(self) -> dict[str, Tensor]: ...
    def reset(self) -> None: ...
