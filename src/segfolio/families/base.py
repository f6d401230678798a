"""`Family`: a training with labels, and how what it learnt is measured."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torchmetrics import Metric

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction
from segfolio.families.built import built
from segfolio.families.checkpoint import check_fits, describe
from segfolio.families.contract import of_family
from segfolio.families.trained import Trained
from segfolio.families.transfer import Classes, transfer
from segfolio.figure import Figure
from segfolio.inference.protocol_test import ProtocolTest
from segfolio.inference.tiles import Network
from segfolio.metrics import Evaluation, Evaluator


class Family(Trained):
    """A network of the dataset's classes. Beside what `Trained` asks for, a subclass says

    * `predict(batch)`: one `Prediction` per image, at its original size;
    * `answer(batch)`: what is measured, which may read the truth, as a simulated user does; else `predict`;
    * `make_metrics()`: `Evaluator`s; `main_metric` is one of their figures;
    * `tester`: where there are several, the protocols of its test;
    * `measured_by`: how predictions become figures, in the words of the ledger; `networks_of`: see `contract`;
    * `preparation`: makes of each sample what is trained on, from a random stream; pickled, so without the network.

    Args:
        labels: comes from the dataset.
        architecture: called with the number of classes; a `SegfolioError` where it gives a network of another family.
        metrics: `Evaluator`s beside those of the family, each called with the dataset's labels.

    The others, by name, are those of `Trained`.
    """

    measured_by: str
    networks_of: str
    predicted_labels: LabelSpace | None = None  # of `predict`, where these are not the dataset's
    needs_truth = True
    needs_masks: bool = True  # of an object, to learn it or to measure it, where a box is not enough
    takes_padding: bool = False  # for padding, which `batch.sizes` tells, and not for image

    def __init__(
        self,
        labels: LabelSpace,
        architecture: Callable[[int], nn.Module],
        metrics: Sequence[Callable[[LabelSpace], Metric]] = (),
        **recipe: Any,
    ) -> None:
        self.labels, self.architecture = labels, architecture
        super().__init__(of_family(built(architecture, labels.num_classes), type(self)), **recipe)
        self.tester: ProtocolTest[Any, Any] | None = None
        self.metrics = metrics
        self.evaluation = self.evaluation_of(self.make_metrics())

    @staticmethod
    def class_rows(labels: LabelSpace) -> tuple[str | None, ...]:
        """The class of each row of the network's last layers, None of a row that is of no class of the dataset."""
        return labels.names

    def start_from(self, checkpoint: Path) -> None:
        transfer(checkpoint, self.network, Classes(self.labels, self.architecture, self.class_rows))

    def make_metrics(self) -> list[Evaluator]:
        raise NotImplementedError

    def evaluation_of(self, evaluators: Iterable[Evaluator]) -> Evaluation:
        """Evaluators, and those that the user gave beside them."""
        return Evaluation([*evaluators, *(metric(self.labels) for metric in self.metrics)])

    def predict(self, batch: Batch) -> list[Prediction]:
        raise NotImplementedError

    def reader(self) -> Network:
        """Of a family with scores per pixel: how a protocol of its test sees the network."""
        raise NotImplementedError

    def answer(self, batch: Batch) -> list[Prediction]:
        return self.predict(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:  # type: ignore[override]
        return self._measured(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:  # type: ignore[override]
        return self.tester.step(self, batch) if self.tester else self._measured(batch)

    def _measured(self, batch: Batch) -> list[Prediction]:
        predictions = self.answer(batch)
        self.evaluation.update(predictions, batch.targets, batch.clips)
        return predictions

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        return self.tester.predict(self, batch) if self.tester else self.predict(batch)

    def on_validation_epoch_end(self) -> None:
        self.log_figures("val", self.evaluation.figures())

    def on_test_epoch_end(self) -> None:
        self.log_figures("test", (self.tester or self.evaluation).figures())

    @property
    def protocol(self) -> str:
        """How a test arrives at its figures, in the words of the ledger."""
        seen = self.tester.words if self.tester else "whole image, one view, at its original size; {}".format
        return seen(self.measured_by)

    @property
    def declared(self) -> Mapping[str, Figure]:
        return self.evaluation.declared | (self.tester.declared if self.tester else {})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["segfolio"] = describe(self.network, self.image_space, self.labels, self.lora)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_fits(checkpoint, self.network, self.image_space, self.labels)
