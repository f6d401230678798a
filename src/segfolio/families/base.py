"""`Family`: the skeleton of every training and evaluation loop."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction
from segfolio.families.checkpoint import check_fits, describe
from segfolio.families.optimization import apply_lr_factors, parameter_groups
from segfolio.families.transfer import transfer
from segfolio.metrics import Evaluation, Evaluator

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Family(LightningModule):
    """A network, its losses, its metrics. A subclass says what differs between output contracts:

    * `compute_losses(batch)`: named scalars, already weighted; their sum is minimised;
    * `predict(batch)`: one `Prediction` per image, at its original size;
    * `make_metrics()`: `Evaluator`s, and `main_metric`: which of their figures chooses the best checkpoint;
    * `protocol`: how a test arrives at its figures, in the words of the ledger.

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
        init_from: a checkpoint of another run, to start from the weights that fit; its classes may be others.
    """

    main_metric: str
    protocol: str
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
    ) -> None:
        super().__init__()
        self.labels, self.optimizer, self.scheduler = labels, optimizer, scheduler
        self.rules = bias_lr_factor, bias_weight_decay, lr_factors, norm_weight_decay
        self.network = architecture(labels.num_classes)
        if init_from is not None:
            transfer(Path(init_from), self.network, labels, architecture)
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None], persistent=False)
        self.evaluation = Evaluation([*self.make_metrics(), *(metric(labels) for metric in metrics)])

    def forward(self, images: Tensor) -> Any:
        """The network's output for uint8 images `[B, C, H, W]`."""
        return self.network(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 `[B, C, H, W]` to the network's type and range."""
        return images.to(self.mean.dtype).sub_(self.mean).div_(self.std)

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

    test_step = validation_step  # type: ignore[assignment]

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        return self.predict(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_figures("val")

    def on_test_epoch_end(self) -> None:
        self._log_figures("test")

    def _log_figures(self, stage: str) -> None:
        self.log_dict({f"{stage}/{name}": value for name, value in self.evaluation.figures().items()})

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
