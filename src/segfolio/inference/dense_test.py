"""How a family with scores per pixel is tested: under one protocol, and under others beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from segfolio.data.sample import Batch, Prediction
from segfolio.inference.protocol_test import ProtocolTest
from segfolio.inference.protocols import DenseProtocol, Whole, find
from segfolio.inference.tiles import Network, argmax
from segfolio.metrics import Evaluation


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

    def reader(self) -> Network:
        """How a protocol sees the network."""

    def predict(self, batch: Batch) -> list[Prediction]:
        """Of the whole image, in one view."""

    def answer(self, batch: Batch) -> list[Prediction]:
        """The same where it is measured, which may read the truth."""


class DenseTest(ProtocolTest[DenseProtocol, Scored]):
    """The protocols of a test of scores per pixel.

    Args:
        asked: what `model.test` says.
        first: the family's evaluation.
        evaluation: makes another, of each further protocol.

    Raises:
        SegfolioError: an unknown preset, a name that cannot be part of a log key.
    """

    def __init__(self, asked: Protocols, first: Evaluation, evaluation: Callable[[], Evaluation]) -> None:
        also = {name: find(protocol) for name, protocol in (asked.also or {}).items()}
        super().__init__(find(asked.protocol), also, first, lambda _: evaluation())

    @property
    def is_plain(self) -> bool:
        """Whether the whole image, in one view, is all that is asked for."""
        return isinstance(self.protocol, Whole) and not self.also

    def read(self, protocol: DenseProtocol, family: Scored, batch: Batch) -> list[Prediction]:
        return _read(protocol, family, batch, family.answer)

    def predict(self, family: Scored, batch: Batch) -> list[Prediction]:
        return _read(self.protocol, family, batch, family.predict)


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
