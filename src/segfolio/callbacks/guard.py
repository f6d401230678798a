"""`NonFiniteGuard`: a run whose loss is no number stops, and says at which images."""

from collections import deque
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from segfolio.data.sample import Batch
from segfolio.errors import SegfolioError


class _Flag(NamedTuple):
    """Whether a step's loss was finite; on CUDA on its way to host memory, where it is once `copied`."""

    finite: Tensor
    copied: torch.cuda.Event | None
    step: int
    image_ids: list[str]


class NonFiniteGuard(Callback):
    """Stops training at a loss that is NaN or infinite.

    The flag of a step is read when the next but one starts, so that the host never waits for the work that a GPU has
    been given since, and before anything is written to a checkpoint, so that the newest one on disk precedes the
    failure. With a gradient scaler (`16-mixed`) a step that overflows is skipped by it and changes no weight; only
    as many in a row stop the run.

    Args:
        skipped_in_a_row: steps that a gradient scaler may skip one after the other.

    Raises:
        SegfolioError: with the step and the batch's image ids.
    """

    def __init__(self, skipped_in_a_row: int = 20) -> None:
        if skipped_in_a_row < 1:
            raise SegfolioError(f"NonFiniteGuard: skipped_in_a_row is {skipped_in_a_row}, expected 1 or more")
        self.skipped_in_a_row = skipped_in_a_row
        self._flags: deque[_Flag] = deque()
        self._allowed = self._skipped = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scales = getattr(trainer.precision_plugin, "scaler", None) is not None
        self._allowed, self._skipped = self.skipped_in_a_row - 1 if scales else 0, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        finite, copied = torch.isfinite(outputs["loss"]), None
        if finite.is_cuda:
            finite = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        self._flags.append(_Flag(finite, copied, trainer.global_step, batch.image_ids))

    def on_train_batch_start(self, *_: Any) -> None:
        self._check(but=1)

    def on_validation_start(self, *_: Any) -> None:
        self._check()

    def on_train_end(self, *_: Any) -> None:
        self._check()

    def on_save_checkpoint(self, *_: Any) -> None:
        self._check()

    def _check(self, but: int = 0) -> None:
        """Read all flags but that many of the newest."""
        while len(self._flags) > but:
            flag = self._flags.popleft()
            if flag.copied is not None:
                flag.copied.synchronize()
            self._skipped = 0 if flag.finite else self._skipped + 1
            if self._skipped > self._allowed:
                self._flags.clear()
                what = f"not finite, {self._skipped} times in a row," if self._allowed else "not finite"
                raise SegfolioError(
                    f"the loss is {what} at step {flag.step}, images {', '.join(flag.image_ids)}; no checkpoint has "
                    "weights of it: lower the learning rate, clip gradients, or look at these images"
                )
