"""`Family`: the skeleton of every training and evaluation loop."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction
from segfolio.errors import SegfolioError
from segfolio.families.checkpoint import check_fits, describe
from segfolio.families.optimization import apply_lr_factors, parameter_groups
from segfolio.families.schedules import planned_steps
from segfolio.families.transfer import transfer
from segfolio.figure import Figure
from segfolio.inference.protocols import Protocol, Whole, find
from segfolio.inference.tiles import Network, Scores, argmax
from segfolio.metrics import Evaluation, Evaluator

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Family(LightningModule):
    """A network, its losses, its metrics. A subclass says what differs between output contracts:

    * `compute_losses(batch)`: named scalars, already weighted; their sum is minimised;
    * `predict(batch)`: one `Prediction` per image, at its original size;
    * `make_metrics()`: `Evaluator`s, and `main_metric`: which of their figures chooses the best checkpoint;
    * `measured_by`: how predictions become figures, in the words of the ledger;
    * where it has scores per pixel, `scores(images)`, and in `scores_are` what they are: such a family is tested, and
      predicts, under any protocol of `inference.protocols`. Validation is of the whole image.

    Args:
        labels: comes from the dataset.
        architecture: called with the number of classes.
        optimizer: called with parameter groups.
        scheduler: called with the optimiser; steps once per optimiser step. Constant if not given.
        mean, std: of the network's input, per channel, in units of [0, 1].
        bias_lr_factor: learning rate of biases over that of weights (2 in Caffe's recipes).
        bias_weight_decay: whether biases decay.
        metrics: `Evaluator`s beside those of the family, each called with the dataset's labels.
        lr_factors: learning rate of parts of the network over that of the rest, by the beginning of their names.
        norm_weight_decay: whether normalisations and embeddings decay.
        lr_decay_per_layer: learning rate of a block over that of the next, by the name of the list that they are in.
        init_from: a checkpoint of another run, to start from the weights that fit; its classes may be others.
        test_protocol: a preset or an object of `inference.protocols`.
        also_test: further protocols of the same test, by the name under which their figures are logged,
            `test/<name>/mIoU`.

    Raises:
        SegfolioError: an unknown preset, a protocol of scores per pixel where the family has none, a name that cannot
            be part of a log key.
    """

    main_metric: str
    measured_by: str
    scores_are: Literal["logits", "probabilities"] | None = None
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        labels: LabelSpace,
        architecture: Callable[[int], nn.Module],
        optimizer: Callable[[Iterable[Any]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        bias_lr_factor: float = 1.0,
        bias_weight_decay: bool = True,
        metrics: Sequence[Callable[[LabelSpace], Metric]] = (),
        init_from: str | None = None,
        lr_factors: Mapping[str, float] | None = None,
        norm_weight_decay: bool = True,
        lr_decay_per_layer: Mapping[str, float] | None = None,
        test_protocol: str | Protocol = "whole",
        also_test: Mapping[str, str | Protocol] | None = None,
    ) -> None:
        super().__init__()
        self.labels, self.optimizer, self.scheduler = labels, optimizer, scheduler
        self.rules = bias_lr_factor, bias_weight_decay, lr_factors, norm_weight_decay, lr_decay_per_layer
        self.network = architecture(labels.num_classes)
        if init_from is not None:
            transfer(Path(init_from), self.network, labels, architecture, self.class_rows)
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None], persistent=False)
        self.evaluation = Evaluation([*self.make_metrics(), *(metric(labels) for metric in metrics)])
        self.test_protocol = find(test_protocol)
        check_names("model.also_test", also_test or {})
        self.also_test = {name: find(protocol) for name, protocol in (also_test or {}).items()}
        self.also_evaluations = nn.ModuleList(Evaluation(self.make_metrics()) for _ in self.also_test)
        if self.scores_are is None and (self.also_test or not isinstance(self.test_protocol, Whole)):
            raise SegfolioError(
                f"model.test_protocol and model.also_test need scores per pixel, which {type(self).__name__} does "
                "not have for its task; leave them out"
            )

    @staticmethod
    def class_rows(labels: LabelSpace) -> tuple[str | None, ...]:
        """The class of each row of the network's last layers, None of a row that is of no class of the dataset."""
        return labels.names

    def forward(self, images: Tensor) -> Any:
        """The network's output for uint8 images `[B, C, H, W]`."""
        return self.network(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]`, values 0 to 255, to the network's type and range."""
        return (images - self.mean).div_(self.std)

    def on_train_start(self) -> None:
        planned, steps = planned_steps(self.lr_schedulers()), self.trainer.estimated_stepping_batches
        if planned not in (None, steps):
            rank_zero_warn(
                f"the learning rate is planned for {planned} steps (total_iters of model.scheduler), but the trainer "
                f"ends after {steps}; give both the same number"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.compute_losses(batch)
        loss = torch.stack(list(losses.values())).sum()
        named = {f"train/loss_{name}": value.detach() for name, value in losses.items()}
        self.log_dict({"train/loss": loss.detach(), **named}, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:  # type: ignore[override]
        predictions = self.predict(batch)
        self.evaluation.update(predictions, batch.targets)
        return predictions

    def test_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:  # type: ignore[override]
        predictions = self.predict_by(self.test_protocol, batch)
        self.evaluation.update(predictions, batch.targets)
        for protocol, evaluation in zip(self.also_test.values(), self.also_evaluations, strict=True):
            evaluation.update(self.predict_by(protocol, batch), batch.targets)  # type: ignore[operator]
        return predictions

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        return self.predict_by(self.test_protocol, batch)

    def predict_by(self, protocol: Protocol, batch: Batch) -> list[Prediction]:
        """`predict` under a protocol."""
        if isinstance(protocol, Whole):
            return self.predict(batch)
        return self.read_scores(protocol, batch)

    def read_scores(self, protocol: Protocol, batch: Batch) -> list[Prediction]:
        """Semantic predictions, from scores per pixel."""
        network = Network(self.scores, self.scores_are == "logits", self.mean)
        found = protocol.read(network, batch.images, batch.original_sizes)
        return [
            Prediction(image_id, size, argmax(tiles, size))
            for image_id, size, tiles in zip(batch.image_ids, batch.original_sizes, found, strict=True)
        ]

    @property
    def protocol(self) -> str:
        """How a test arrives at its figures, in the words of the ledger."""
        also = [f"{name}: {protocol.words}" for name, protocol in self.also_test.items()]
        return "; ".join([f"{self.test_protocol.words}, at its original size; {self.measured_by}", *also])

    @property
    def main_figure(self) -> Figure:
        """The declaration of `main_metric`."""
        return self.evaluation.declared[self.main_metric]

    def on_validation_epoch_end(self) -> None:
        self._log_figures("val", self.evaluation.figures())

    def on_test_epoch_end(self) -> None:
        self._log_figures("test", self.evaluation.figures())
        for name, evaluation in zip(self.also_test, self.also_evaluations, strict=True):
            figures = evaluation.figures()  # type: ignore[operator]
            figures = {key: value for key, value in figures.items() if "/" not in key and key != "evaluation_seconds"}
            self._log_figures(f"test/{name}", figures)

    def _log_figures(self, stage: str, figures: Mapping[str, Tensor | float]) -> None:
        self.log_dict({f"{stage}/{name}": value for name, value in figures.items()})

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(parameter_groups(self.network, *self.rules))
        apply_lr_factors(optimizer)
        if self.scheduler is None:
            return {"optimizer": optimizer}
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"},
        }

    def before_last_checkpoint(self) -> None:
        """What the weights need at the end of training, before they are written for good."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["segfolio"] = describe(self.network, self.labels)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_fits(checkpoint, self.network, self.labels)

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    def predict(self, batch: Batch) -> list[Prediction]:
        raise NotImplementedError

    def make_metrics(self) -> list[Evaluator]:
        raise NotImplementedError

    def scores(self, images: Tensor) -> Sequence[Scores]:
        raise NotImplementedError


def check_names(key: str, names: Iterable[str]) -> None:
    """Raises the one sentence on a name that cannot be part of a log key."""
    if wrong := [name for name in names if not name or "/" in name]:
        raise SegfolioError(f"{key} has the name {wrong[0]!r}; figures are logged under it: give one without a slash")
