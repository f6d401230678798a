"""Callbacks that end a run before its end."""

import os
import signal
from typing import Any

from lightning.pytorch import Callback, Trainer


class KillAt(Callback):
    """SIGKILL when the forward pass after `step` optimiser steps is about to begin."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class RaiseAt(KillAt):
    """The same for a run within the process that tests: an exception."""

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise RuntimeError(f"ended at step {self.step}")


class StopAt(KillAt):
    """A signal that can be caught: Ctrl-C, or the end that a machine announces."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__(step)
        self.number = number

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)
