"""`Checkpoints`: `last.ckpt` and `best.ckpt` of a run, each whole or not there."""

import math
import os
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from segfolio.errors import SegfolioError
from segfolio.families.trained import Trained
from segfolio.runs import mark_latest


class Checkpoints(Checkpoint):
    """Writes `<run>/checkpoints/last.ckpt` after every validation and at the end of training, and keeps the
    best of them by the family's main metric as `best.ckpt`.

    A file is written under another name and then renamed: a kill while writing loses the newest at most.

    Checkpoints fall between optimiser steps, so that no accumulated gradient is lost. Beside what Lightning
    keeps in one (weights, optimiser, scheduler, scaler, progress) there is `run`, what the session was asked
    for, and `history`, how much each logger had been told.

    Args:
        every_n_steps: write `last.ckpt` that often in between, too.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        self.every_n_steps = every_n_steps
        self.run: dict[str, Any] = {}
        self.best: float | None = None
        self._saved_step = -1
        self._entries_due = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["run"] = self.run
        checkpoint["history"] = [getattr(logger, "calls", 0) + self._entries_due for logger in trainer.loggers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        every, accumulate = trainer.val_check_batch, trainer.accumulate_grad_batches
        if isinstance(every, int) and every % accumulate:
            raise SegfolioError(
                f"validation after every {every} batches falls between two of the {accumulate} that one step "
                f"accumulates; set trainer.val_check_interval to a multiple of {accumulate}"
            )

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            # Lightning logs the step when all callbacks are done with it
            self._entries_due = int(trainer.global_step % trainer.log_every_n_steps == 0)  # type: ignore[attr-defined]
            self._save(trainer)
            self._entries_due = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        score = float(trainer.callback_metrics.get(f"val/{pl_module.main_metric}", math.nan))
        improved = not math.isnan(score) and (self.best is None or score > self.best)
        if improved:
            self.best = score
        path = self._save(trainer, again=True)
        if improved and trainer.is_global_zero:
            replace_by_copy(path, path.with_name("best.ckpt"))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, Trained):
            pl_module.before_last_checkpoint()
        self._save(trainer, again=True)

    def _save(self, trainer: Trainer, again: bool = False) -> Path:
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if getattr(trainer, "fast_dev_run", False) or (trainer.global_step == self._saved_step and not again):
            return path
        unfinished = path.with_name("unfinished.ckpt")
        trainer.save_checkpoint(unfinished, weights_only=False)
        if trainer.is_global_zero:
            os.replace(unfinished, path)
            mark_latest(path.parents[1])
        self._saved_step = trainer.global_step
        return path


def replace_by_copy(source: Path, target: Path) -> None:
    unfinished = target.with_name("unfinished-" + target.name)
    shutil.copyfile(source, unfinished)
    os.replace(unfinished, target)
