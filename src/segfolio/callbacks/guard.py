"""`NonFiniteGuard`: a run whose loss is no number stops, and says at which images."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from segfolio.data.sample import Batch
from segfolio.errors import SegfolioError


class NonFiniteGuard(Callback):
    """Stops training at a loss that is NaN or infinite.

    The flag of a step is read when the next one starts, so that a GPU never waits for it, and before anything
    is written to a checkpoint, so that the newest one on disk precedes the failure.

    Raises:
        SegfolioError: with the step and the batch's image ids.
    """

    def __init__(self) -> None:
        self._finite: Tensor | None = None
        self._step = 0
        self._image_ids: list[str] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._finite = torch.isfinite(outputs["loss"])
        self._step, self._image_ids = trainer.global_step, batch.image_ids

    def on_train_batch_start(self, *_: Any) -> None:
        self._check()

    def on_validation_start(self, *_: Any) -> None:
        self._check()

    def on_train_end(self, *_: Any) -> None:
        self._check()

    def on_save_checkpoint(self, *_: Any) -> None:
        self._check()

    def _check(self) -> None:
        finite, self._finite = self._finite, None
        if finite is not None and not finite:
            raise SegfolioError(
                f"the loss is not finite at step {self._step}, images {', '.join(self._image_ids)}; no "
                "checkpoint was written since: lower the learning rate, clip gradients, or look at these images"
            )
