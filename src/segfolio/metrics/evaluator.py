"""What a family's metrics offer, and all of them as one."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torchmetrics import Metric

from segfolio.data.sample import Prediction, Target
from segfolio.errors import SegfolioError
from segfolio.figure import HOUSE, Figure, by_name, of_house, of_name


class Evaluator(Protocol):
    """Predictions and truths in, named figures out; a `torchmetrics.Metric`, so that processes add up."""

    @property
    def figures(self) -> Sequence[Figure]:
        """What `compute` returns: `mIoU`, and `IoU/<class>` for one figure of each class."""

    def compute(self) -> dict[str, Tensor]: ...
    def reset(self) -> None: ...


@runtime_checkable
class ImageEvaluator(Evaluator, Protocol):
    """One that sees each image by itself."""

    def update(self, prediction: Prediction, target: Target) -> None: ...


@runtime_checkable
class ClipEvaluator(Evaluator, Protocol):
    """One that sees each clip whole."""

    def update_clip(self, predictions: Sequence[Prediction], targets: Sequence[Target]) -> None: ...


class Evaluation(nn.Module):
    """All evaluators of a family, and the time that they take.

    Attributes:
        declared: the figures of all of them, and `evaluation_seconds`, by name.

    Raises:
        SegfolioError: an evaluator that declares no figures, or one that the house has with another unit or direction.
    """

    def __init__(self, evaluators: Iterable[Evaluator | Metric]) -> None:
        super().__init__()
        self.evaluators = nn.ModuleList(evaluators)  # type: ignore[arg-type]
        self.seconds = 0.0
        self.declared = by_name(of_house("evaluation_seconds"))
        for evaluator in self._each():
            self.declared |= by_name(_declared(evaluator))

    def update(self, predictions: Sequence[Prediction], targets: Sequence[Target], clips: Sequence[int] = ()) -> None:
        """Measure a batch.

        Args:
            clips: how many consecutive images are one clip; each is by itself if not given.
        """
        pairs = iter(list(zip(predictions, targets, strict=True)))
        with self._timed():
            for frames in clips or [1] * len(predictions):
                clip = list(islice(pairs, frames))
                for evaluator in self._each():
                    if isinstance(evaluator, ClipEvaluator):
                        evaluator.update_clip(*map(list, zip(*clip, strict=True)))
                        continue
                    assert isinstance(evaluator, ImageEvaluator)
                    for prediction, target in clip:
                        evaluator.update(prediction, target)

    def figures(self) -> dict[str, Tensor | float]:
        """Of all that was seen since the last call, and `evaluation_seconds` of this process.

        Raises:
            SegfolioError: a figure that its evaluator does not declare.
        """
        found: dict[str, Tensor | float] = {}
        with self._timed():
            for evaluator in self._each():
                figures = evaluator.compute()
                if undeclared := [name for name in figures if of_name(name, by_name(evaluator.figures)) is None]:
                    raise SegfolioError(_lacks(evaluator, undeclared[0]))
                found |= figures
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


def _declared(evaluator: Evaluator) -> Sequence[Figure]:
    figures: Sequence[Figure] = getattr(evaluator, "figures", ())
    if not figures:
        raise SegfolioError(_lacks(evaluator, "NAME"))
    for figure in figures:
        if HOUSE.get(figure.name, figure) != figure:
            raise SegfolioError(
                f"{type(evaluator).__name__} declares {figure.name} with another unit or direction than the house; "
                "give it a name of its own"
            )
    return figures


def _lacks(evaluator: Evaluator, name: str) -> str:
    cls, (family, slash, _) = type(evaluator), name.partition("/")
    name = f"{family}/<class>" if slash else name
    return (
        f"{cls.__module__}.{cls.__name__} does not declare unit and direction of its figures; give the class a tuple "
        f"`figures` with a segfolio.figure.Figure('{name}', unit, higher_is_better) for each that compute() returns"
    )


def check_names(key: str, names: Iterable[str]) -> None:
    """Raises the one sentence on a name that cannot be part of a log key."""
    if wrong := [name for name in names if not name or "/" in name]:
        raise SegfolioError(f"{key} has the name {wrong[0]!r}; figures are logged under it: give one without a slash")
