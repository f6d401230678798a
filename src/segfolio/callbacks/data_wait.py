"""`DataWait`: how much of training is waiting for data."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from segfolio.data.sample import Batch


class DataWait(Callback):
    """Logs `train/data_wait`, the share of training time in which there was no batch to work on, and
    `train/samples_per_second`, every `log_every_n_steps` steps and at the end of an epoch.

    A wait is from the end of a batch to the start of the next: logging, loading, the way to the device. On
    CUDA the device's own clock is read, so that loading behind a busy GPU does not count. Validation and the
    first fetch after it are in neither figure. Both are the first process's, the samples times their number:
    the others wait for it before each batch, for whatever reason.
    """

    logs = ("train/data_wait", "train/samples_per_second")

    def __init__(self) -> None:
        self._waits: list[tuple[Any, Any]] = []
        self._steps: list[tuple[Any, Any]] = []
        self._samples = 0
        self._mark: Any = None
        self._logged_step = 0
        self.share: float | None = None  # when last logged

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = _stamp(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        now = _stamp(pl_module.device)
        if self._mark is not None:
            self._waits.append((self._mark, now))
        self._mark = now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        now = _stamp(pl_module.device)
        self._steps.append((self._mark, now))
        self._mark = now
        self._samples += len(batch)
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % every == 0 and step > self._logged_step:
            self._logged_step = step
            self._log(trainer, pl_module, on_step=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._steps:
            self._log(trainer, pl_module, on_step=False)

    def _log(self, trainer: Trainer, pl_module: LightningModule, on_step: bool) -> None:
        waited = sum(_seconds(*pair) for pair in self._waits)
        total = waited + sum(_seconds(*pair) for pair in self._steps)
        self.share = waited / total
        figures = {
            "train/data_wait": self.share,
            "train/samples_per_second": self._samples * trainer.world_size / total,
        }
        pl_module.log_dict(figures, on_step=on_step, on_epoch=not on_step, rank_zero_only=True, batch_size=1)
        self._waits, self._steps, self._samples = [], [], 0


def _stamp(device: torch.device) -> Any:
    """Now: seconds, or on CUDA an event in the queue behind the work given to the device so far."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return end - start
    end.synchronize()
    return start.elapsed_time(end) / 1000
