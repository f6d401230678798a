"""What a family's metrics offer, and all of them as one."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from torch import Tensor, nn

from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError


class Evaluator(Protocol):
    """Predictions and truths in, named figures out; a `torchmetrics.Metric`, so that processes add up."""

    def update(self, prediction: Prediction, target: Target) -> None: ...
    def compute(self) -> dict[str, Tensor]: ...
    def reset(self) -> None: ...


class Evaluation(nn.Module):
    """All evaluators of a family, and the time that they take."""

    def __init__(self, evaluators: Iterable[Evaluator]) -> None:
        super().__init__()
        self.evaluators = nn.ModuleList(evaluators)  # type: ignore[arg-type]
        self.seconds = 0.0

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None:
        with self._timed():
            for prediction, target in zip(predictions, targets, strict=True):
                for evaluator in self._each():
                    evaluator.update(prediction, target)

    def figures(self) -> dict[str, Tensor | float]:
        """Of all that was seen since the last call, and `evaluation_seconds` of this process."""
        found: dict[str, Tensor | float] = {}
        with self._timed():
            for evaluator in self._each():
                found |= evaluator.compute()
                evaluator.reset()
        found["evaluation_seconds"], self.seconds = self.seconds, 0.0
        return found

    def _each(self) -> Iterator[Evaluator]:
        return iter(self.evaluators)  # type: ignore[arg-type]

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start


def check_names(key: str, names: Iterable[str]) -> None:
    """Raises the one sentence on a name that cannot be part of a log key."""
    if wrong := [name for name in names if not name or "/" in name]:
        raise SegfolioError(f"{key} has the name {wrong[0]!r}; figures are logged under it: give one without a slash")
