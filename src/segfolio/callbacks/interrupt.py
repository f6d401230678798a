"""`Interrupt`: Ctrl-C, or the end that a machine announces, as a wish that waits for the end of the step."""

import signal
import sys
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Trainer


class Interrupt:
    """Listens for SIGINT and SIGTERM while a training runs. The second one stops at once, as without it.

    Attributes:
        asked: whether the first has come.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before = dict[int, Any]()

    def listen(self) -> None:
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {each: signal.signal(each, self._handle) for each in (signal.SIGINT, signal.SIGTERM)}

    def leave(self) -> None:
        for each, before in self._before.items():
            signal.signal(each, before)
        self._before = {}

    def asked_of(self, trainer: Trainer) -> bool:
        """Whether any process was asked; of several, all learn of it at the same step, that of the next log entry."""
        if trainer.world_size == 1:
            return self.asked
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return False
        return trainer.strategy.reduce_boolean_decision(self.asked, all=False)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.leave()
        self.asked = True
        print("\nstopping after this step; once more stops at once", file=sys.stderr, flush=True)
