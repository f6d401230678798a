"""How a family is tested: under one protocol, and under others beside it."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from segfolio.data.sample import Batch, Prediction
from segfolio.figure import Figure
from segfolio.metrics import Evaluation
from segfolio.metrics.evaluator import check_names


class Worded(Protocol):
    """Any protocol."""

    @property
    def words(self) -> str:
        """How it comes to its predictions, in the words of the ledger."""


P = TypeVar("P", bound=Worded)
F = TypeVar("F")
"""What a test needs of a family."""


class ProtocolTest(nn.Module, Generic[P, F]):
    """`model.test: {protocol: ..., also: {<name>: ...}}`: the protocols of a test, and what measures them.

    A subclass says what is predicted under a protocol.

    Args:
        protocol: of the test, and of `predict`.
        also: further protocols of the same test, by the name under which their figures are logged.
        first: what measures the first protocol.
        evaluation: makes what measures a further one.

    Raises:
        SegfolioError: a name that cannot be part of a log key.
    """

    def __init__(
        self, protocol: P, also: Mapping[str, P], first: Evaluation, evaluation: Callable[[P], Evaluation]
    ) -> None:
        super().__init__()
        check_names("model.test.also", also)
        self.protocol, self.also = protocol, dict(also)
        self._first = (first,)  # whose module it is, the family or a subclass says
        self.evaluations = nn.ModuleList(evaluation(each) for each in also.values())

    def read(self, protocol: P, family: F, batch: Batch) -> list[Prediction]:
        """What is predicted under a protocol where it is measured, which may read the truth."""
        raise NotImplementedError

    def predict(self, family: F, batch: Batch) -> list[Prediction]:
        """Under the first protocol, without a truth."""
        raise NotImplementedError

    @property
    def protocols(self) -> list[P]:
        """All of them, the first one first."""
        return [self.protocol, *self.also.values()]

    def step(self, family: F, batch: Batch) -> list[Prediction]:
        """Measure a batch under every protocol; the predictions are those of the first."""
        every = []
        for protocol, evaluation in zip(self.protocols, self._measures(), strict=True):
            every.append(self.read(protocol, family, batch))
            evaluation.update(every[-1], batch.targets, batch.clips)
        return every[0]

    def figures(self) -> dict[str, Tensor | float]:
        """Of the first protocol, and `<name>/<figure>` of each further one; classes are told of the first alone."""
        first, *others = self._measures()
        return first.figures() | {
            f"{name}/{key}": value
            for name, evaluation in zip(self.also, others, strict=True)
            for key, value in evaluation.figures().items()
            if "/" not in key and key != "evaluation_seconds"
        }

    @property
    def declared(self) -> dict[str, Figure]:
        """The figures of all protocols."""
        return {name: figure for each in reversed(self._measures()) for name, figure in each.declared.items()}

    def words(self, measured_by: str) -> str:
        """All protocols in the words of the ledger.

        Args:
            measured_by: how predictions become figures.
        """
        also = [f"{name}: {protocol.words}" for name, protocol in self.also.items()]
        return "; ".join([f"{self.protocol.words}, at its original size; {measured_by}", *also])

    def _measures(self) -> list[Any]:
        return [*self._first, *self.evaluations]
