"""`Checkpoints`: `last.ckpt` and `best.ckpt` of a run, each whole or not there."""

import math
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from segfolio.callbacks.interrupt import Interrupt
from segfolio.errors import SegfolioError
from segfolio.families.trained import Trained
from segfolio.figure import Figure
from segfolio.files import naming
from segfolio.runs import mark_latest

_UNFINISHED, _UNFINISHED_BEST = "unfinished.ckpt", "unfinished-best.ckpt"


class Checkpoints(Checkpoint):
    """Writes `<run>/checkpoints/last.ckpt` after every validation and at the end of training, and keeps the
    best of them by the family's main figure, in its direction, as `best.ckpt`. Where nothing is validated it writes
    when that would be due: at the end of every epoch, or as `trainer.val_check_interval` says.

    A file is written under another name and then renamed, `best.ckpt` before `last.ckpt`: a kill at any moment loses
    the newest at most, and never leaves a best score without its checkpoint. What it leaves unfinished goes at the
    next start.

    Checkpoints fall between optimiser steps, so that no accumulated gradient is lost. Beside what Lightning
    keeps in one (weights, optimiser, scheduler, scaler, progress) there is `run`, what the session was asked
    for, and `history`, how much each logger had been told; none is renamed before they have been. Ctrl-C or SIGTERM
    writes one after the step at hand, and says how to go on.

    Args:
        every_n_steps: write `last.ckpt` that often in between, too. Where a validation follows, it is written after it
            alone: a run that goes on from before it would leave the validation out.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        self.every_n_steps = every_n_steps
        self.run: dict[str, Any] = {}
        self.best: float | None = None
        self.interrupt = Interrupt()
        self._step = -1
        self._entries_due = 0
        self._best: bool | None = None  # whether the unfinished file is to be best.ckpt, too; None where there is none
        self._stopping = self._stop_due = False

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["run"] = self.run
        checkpoint["history"] = [getattr(logger, "calls", 0) + self._entries_due for logger in trainer.loggers]
        epochs = trainer.fit_loop.epoch_progress.current
        if 0 < epochs.ready == epochs.completed:
            (_leave_epoch if trainer.is_last_batch else _reopen_epoch)(checkpoint)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        every, accumulate = trainer.val_check_batch, trainer.accumulate_grad_batches
        dry = trainer.fast_dev_run  # type: ignore[attr-defined]  # of so many batches, and no checkpoint
        if isinstance(every, int) and every % accumulate and not dry:
            raise SegfolioError(
                f"validation after every {every} batches falls between two of the {accumulate} that one step "
                f"accumulates; set trainer.val_check_interval to a multiple of {accumulate}"
            )

        self._step = trainer.global_step
        self.interrupt.listen()
        if trainer.is_global_zero:
            for name in (_UNFINISHED, _UNFINISHED_BEST):
                (_folder(trainer) / name).unlink(missing_ok=True)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        stepped, self._step = trainer.global_step != self._step, trainer.global_step  # not inside an accumulation
        if not stepped:  # nor does a training end there, where its time is over
            self._stop_due |= trainer.should_stop
            trainer.should_stop = False
            return
        trainer.should_stop |= self._stop_due
        self._stopping = self.interrupt.asked_of(trainer)
        often = (
            self.every_n_steps and trainer.global_step % self.every_n_steps == 0 and not _validation_follows(trainer)
        )
        if self._stopping or often or _validation_would_follow(trainer):
            # Lightning logs the step when all callbacks are done with it
            self._entries_due = int(trainer.global_step % trainer.log_every_n_steps == 0)  # type: ignore[attr-defined]
            self._write(trainer)
            self._entries_due = 0

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._rename(trainer)
        if self._stopping:
            raise KeyboardInterrupt

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        self._rename(trainer)

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self._rename(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        figure: Figure | None = pl_module.main_figure
        score = float(trainer.callback_metrics.get(f"val/{figure.name}", math.nan)) if figure else math.nan
        if best := figure is not None and figure.improves(score, self.best):
            self.best = score
        self._write(trainer, best)
        self._rename(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, Trained):
            pl_module.before_last_checkpoint()
        self._write(trainer)
        self._rename(trainer)
        self.interrupt.leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.interrupt.leave()
        last = _folder(trainer) / "last.ckpt"
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero and last.exists():
            print(f"stopped; go on with\n  segfolio fit --ckpt_path {last}", file=sys.stderr)

    def _write(self, trainer: Trainer, best: bool = False) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        folder = _folder(trainer)
        with _whole_or_gone(folder), naming(folder / "last.ckpt"):
            trainer.save_checkpoint(folder / _UNFINISHED, weights_only=False)
        self._best = best

    def _rename(self, trainer: Trainer) -> None:
        """The file that is written gets its names, `last.ckpt` last."""
        best, self._best = self._best, None
        if best is None or not trainer.is_global_zero:
            return
        folder = _folder(trainer)
        if best:
            with _whole_or_gone(folder), naming(folder / "best.ckpt"):
                shutil.copyfile(folder / _UNFINISHED, folder / _UNFINISHED_BEST)
            os.replace(folder / _UNFINISHED_BEST, folder / "best.ckpt")
        os.replace(folder / _UNFINISHED, folder / "last.ckpt")
        mark_latest(folder.parent)


@contextmanager
def _whole_or_gone(folder: Path) -> Iterator[None]:
    """On a disk that is full, nothing is left of what could not be written whole."""
    try:
        yield
    except OSError:
        for name in (_UNFINISHED, _UNFINISHED_BEST):
            (folder / name).unlink(missing_ok=True)
        raise


def _validation_follows(trainer: Trainer) -> bool:
    """Whether the batch at hand is one after which there is a validation."""
    loop = trainer.fit_loop
    fetcher: Any = loop._data_fetcher
    return trainer.enable_validation and loop.epoch_loop._should_check_val_fx(fetcher)


def _validation_would_follow(trainer: Trainer) -> bool:
    """Whether the batch at hand is one after which a training that validates nothing would do so."""
    loop, every = trainer.fit_loop, trainer.val_check_batch or math.inf
    if trainer.enable_validation:
        return False
    if trainer.check_val_every_n_epoch is None:
        return (loop.total_batch_idx + 1) % every == 0
    return trainer.is_last_batch or (loop.batch_idx + 1) % every == 0


def _reopen_epoch(checkpoint: dict[str, Any]) -> None:
    """Lightning counts an epoch that `max_steps` ends as a whole one; with more steps it is to go on in its middle."""
    checkpoint["epoch"] -= 1
    for epochs in (checkpoint["loops"]["fit_loop"]["epoch_progress"][each] for each in ("total", "current")):
        epochs["processed"] -= 1
        epochs["completed"] -= 1


def _leave_epoch(checkpoint: dict[str, Any]) -> None:
    """Of a whole epoch at the end of training, Lightning keeps how many batches it had; of the next none is done."""
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    batches["is_last_batch"] = False
    batches["current"] = dict.fromkeys(batches["current"], 0)


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"
