"""How a family with scores per pixel is tested: under one protocol, and under others beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from segfolio.data.sample import Batch, Prediction
from segfolio.inference.protocols import DenseProtocol, Whole, find
from segfolio.inference.tiles import Network, argmax
from segfolio.metrics import Evaluation
from segfolio.metrics.evaluator import check_names


@dataclass(frozen=True)
class Protocols:
    """`model.test`.

    Attributes:
        protocol: of the test, and of `predict`: a preset or an object of `inference.protocols`.
        also: further protocols of the same test, by the name under which their figures are logged,
            `test/<name>/mIoU`.
    """

    protocol: str | DenseProtocol = "whole"
    also: Mapping[str, str | DenseProtocol] | None = None


class Scored(Protocol):
    """What a test needs of a family."""

    evaluation: Evaluation

    def reader(self) -> Network:
        """How a protocol sees the network."""

    def predict(self, batch: Batch) -> list[Prediction]:
        """Of the whole image, in one view."""

    def answer(self, batch: Batch) -> list[Prediction]:
        """The same where it is measured, which may read the truth."""


class DenseTest(nn.Module):
    """The protocols of a family's test, and what measures those beside the first.

    Args:
        asked: what `model.test` says.
        evaluation: makes an evaluation, of each further protocol.

    Raises:
        SegfolioError: an unknown preset, a name that cannot be part of a log key.
    """

    def __init__(self, asked: Protocols, evaluation: Callable[[], Evaluation]) -> None:
        super().__init__()
        also = asked.also or {}
        check_names("model.test.also", also)
        self.protocol, self.also = find(asked.protocol), {name: find(protocol) for name, protocol in also.items()}
        self.evaluations = nn.ModuleList(evaluation() for _ in also)

    @property
    def is_plain(self) -> bool:
        """Whether the whole image, in one view, is all that is asked for."""
        return isinstance(self.protocol, Whole) and not self.also

    def step(self, family: Scored, batch: Batch) -> list[Prediction]:
        """Measure a batch under every protocol; the predictions are those of the first."""
        predictions = _read(self.protocol, family, batch, family.answer)
        family.evaluation.update(predictions, batch.targets, batch.clips)
        for protocol, evaluation in zip(self.also.values(), self.evaluations, strict=True):
            evaluation.update(_read(protocol, family, batch, family.answer), batch.targets, batch.clips)  # type: ignore[operator]
        return predictions

    def predict(self, family: Scored, batch: Batch) -> list[Prediction]:
        """Under the first protocol."""
        return _read(self.protocol, family, batch, family.predict)

    def figures(self) -> dict[str, Tensor | float]:
        """`<name>/<figure>` of each further protocol; classes are told of the first alone."""
        return {
            f"{name}/{key}": value
            for name, evaluation in zip(self.also, self.evaluations, strict=True)
            for key, value in evaluation.figures().items()  # type: ignore[operator]
            if "/" not in key and key != "evaluation_seconds"
        }

    def words(self, measured_by: str) -> str:
        """All protocols in the words of the ledger."""
        also = [f"{name}: {protocol.words}" for name, protocol in self.also.items()]
        return "; ".join([f"{self.protocol.words}, at its original size; {measured_by}", *also])


def read(protocol: DenseProtocol, network: Network, batch: Batch) -> list[Prediction]:
    """Semantic predictions, from scores per pixel under a protocol."""
    found = protocol.read(network, batch.images, batch.original_sizes)
    return [
        Prediction(image_id, size, argmax(tiles, size))
        for image_id, size, tiles in zip(batch.image_ids, batch.original_sizes, found, strict=True)
    ]


def _read(
    protocol: DenseProtocol, family: Scored, batch: Batch, whole: Callable[[Batch], list[Prediction]]
) -> list[Prediction]:
    return whole(batch) if isinstance(protocol, Whole) else read(protocol, family.reader(), batch)
