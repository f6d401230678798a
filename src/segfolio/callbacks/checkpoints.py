"""`Checkpoints`: `last.ckpt` and `best.ckpt` of a run, each whole or not there."""

import os
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn


class Checkpoints(Checkpoint):
    """Writes `<run>/checkpoints/last.ckpt` after every validation and at the end of training, and keeps the
    best of them by the family's main metric as `best.ckpt`.

    A file is written under another name and then renamed: a kill while writing loses the newest at most.

    Args:
        every_n_steps: write `last.ckpt` that often in between, too.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        self.every_n_steps = every_n_steps
        self.best: float | None = None
        self._saved_step = -1

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        score = trainer.callback_metrics.get(f"val/{pl_module.main_metric}")
        improved = score is not None and (self.best is None or float(score) > self.best)
        if improved:
            self.best = float(score)  # type: ignore[arg-type]
        path = self._save(trainer, again=True)
        if improved and trainer.is_global_zero:
            replace_by_copy(path, path.with_name("best.ckpt"))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: Trainer, again: bool = False) -> Path:
        path = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
        if getattr(trainer, "fast_dev_run", False) or (trainer.global_step == self._saved_step and not again):
            return path
        unfinished = path.with_name("unfinished.ckpt")
        trainer.save_checkpoint(unfinished, weights_only=False)
        if trainer.is_global_zero:
            os.replace(unfinished, path)
        self._saved_step = trainer.global_step
        return path


def replace_by_copy(source: Path, target: Path) -> None:
    unfinished = target.with_name("unfinished-" + target.name)
    shutil.copyfile(source, unfinished)
    os.replace(unfinished, target)
