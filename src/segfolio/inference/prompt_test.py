"""How a promptable family is tested: under one protocol, and under others beside it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction
from segfolio.inference.asking import Asked, PromptProtocol
from segfolio.inference.prompt_protocols import find
from segfolio.inference.protocol_test import ProtocolTest
from segfolio.metrics import Evaluation, Evaluator


@dataclass(frozen=True)
class PromptProtocols:
    """`model.test` of a promptable family.

    Attributes:
        protocol: of the test: a preset or an object of `inference.prompt_protocols`.
        also: further protocols of the same test, by the name under which their figures are logged,
            `test/<name>/mIoU_box`.
    """

    protocol: str | PromptProtocol = "clicks"
    also: Mapping[str, str | PromptProtocol] | None = None


class Predicts(Asked, Protocol):
    """A family of prompts, which predicts without a truth, too."""

    def predict(self, batch: Batch) -> list[Prediction]:
        """What there is to be found where nobody asks."""


class PromptTest(ProtocolTest[PromptProtocol, Predicts]):
    """The protocols of a test of prompts; each brings what measures it.

    Args:
        asked: what `model.test` says.
        labels: of the dataset.
        evaluation: makes the evaluation of the first protocol of its evaluators.

    Raises:
        SegfolioError: an unknown preset, a name that cannot be part of a log key.
    """

    def __init__(
        self,
        asked: PromptProtocols,
        labels: LabelSpace,
        evaluation: Callable[[Iterable[Evaluator]], Evaluation],
    ) -> None:
        protocol, also = find(asked.protocol), {name: find(each) for name, each in (asked.also or {}).items()}
        first = evaluation(protocol.evaluators(labels))
        super().__init__(protocol, also, first, lambda each: Evaluation(each.evaluators(labels)))
        self.evaluation = first

    def read(self, protocol: PromptProtocol, family: Predicts, batch: Batch) -> list[Prediction]:
        return protocol.answer(family, batch)

    def predict(self, family: Predicts, batch: Batch) -> list[Prediction]:
        return family.predict(batch)

    def words(self, measured_by: str) -> str:
        also = [f"{name}: {protocol.words}" for name, protocol in self.also.items()]
        return "; ".join([f"{self.protocol.words}, {measured_by}", *also])
