"""`ProgressBar`: one line that says how far a run is."""

import math
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from tqdm import tqdm

from segfolio.callbacks.data_wait import DataWait
from segfolio.figure import Figure


class ProgressBar(LightningProgressBar):
    """One line: how far, how long, loss, share of time spent waiting for data, the family's main figure.

    A terminal's line is redrawn in place, five times a second at most, so that reading the loss never holds
    up a GPU. Elsewhere, as in a log file, a line is printed every `seconds`. Each validation's line stays.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._enabled = True
        self._drawn = -math.inf
        self._training = self._evaluation = _Phase("training")
        self._loss: Any = None
        self._metric = ""

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def print(self, *args: Any, **_: Any) -> None:
        if self._enabled:
            _write(" ".join(map(str, args)))

    def on_train_start(self, *_: Any) -> None:
        self._training, self._drawn = _Phase("training"), -math.inf

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.max_steps < 0:
            of = "" if trainer.max_epochs == -1 else f"/{trainer.max_epochs}"
            self._training = _Phase(f"epoch {trainer.current_epoch + 1}{of}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._loss = outputs["loss"]
        if trainer.max_steps < 0:
            self._training.advance(batch_idx + 1, trainer.num_training_batches)
        else:
            self._training.advance(trainer.global_step, trainer.max_steps)
        self._draw(trainer, self._training)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, self._training, stays=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluation = _Phase("sanity check" if trainer.sanity_checking else "validation")

    def on_test_start(self, *_: Any) -> None:
        self._evaluation = _Phase("test")

    def on_predict_start(self, *_: Any) -> None:
        self._evaluation = _Phase("prediction")

    def on_validation_batch_end(self, trainer: Trainer, *hook: Any) -> None:
        totals = trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches
        self._evaluated(trainer, totals, hook)

    def on_test_batch_end(self, trainer: Trainer, *hook: Any) -> None:
        self._evaluated(trainer, trainer.num_test_batches, hook)

    def on_predict_batch_end(self, trainer: Trainer, *hook: Any) -> None:
        self._evaluated(trainer, trainer.num_predict_batches, hook)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        figure: Figure | None = pl_module.main_figure
        if figure and (value := trainer.callback_metrics.get(f"val/{figure.name}")) is not None:
            self._metric = f"{figure.name} {value:.3f} {figure.unit}".rstrip()
        self._draw(trainer, self._training if trainer.state.fn == "fit" else self._evaluation, stays=True)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, self._evaluation, stays=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, self._evaluation, stays=True)

    def _evaluated(self, trainer: Trainer, totals: Sequence[float], hook: tuple[Any, ...]) -> None:
        _, _, _, batch_idx, *_ = hook  # after module, outputs and batch
        self._evaluation.advance(batch_idx + 1, totals[0])
        self._draw(trainer, self._evaluation)

    def _draw(self, trainer: Trainer, phase: "_Phase", stays: bool = False) -> None:
        now = time.monotonic()
        pause = 0.2 if sys.stdout.isatty() else self.seconds
        if not self._enabled or (phase.stood == phase.done if stays else now - self._drawn < pause):
            return
        self._drawn = now
        phase.stood = phase.done if stays else phase.stood
        _write(phase.line(self._figures(trainer) if phase is self._training else []), stays)

    def _figures(self, trainer: Trainer) -> list[str]:
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        shares = [c.share for c in callbacks if isinstance(c, DataWait) and c.share is not None]
        loss = self._loss * trainer.accumulate_grad_batches  # Lightning divides it
        return [f"loss {loss:.3f}", *(f"data wait {share:.0%}" for share in shares), self._metric]


class _Phase:
    """What the line is about and how far it is."""

    def __init__(self, name: str) -> None:
        self.name, self.start = name, time.monotonic()
        self.first: int | None = None  # a resumed run does not begin at 0
        self.done, self.total = 0, 0.0
        self.stood = 0  # what a line that stays has said

    def advance(self, done: int, total: float) -> None:
        self.first = done - 1 if self.first is None else self.first
        self.done, self.total = done, total

    def line(self, figures: list[str]) -> str:
        bar = "{bar:20}  " if sys.stdout.isatty() else ""
        parts = f"{self.name}  {bar}{{n_fmt}}/{{total_fmt}}  {{elapsed}}<{{remaining}}  {{rate_noinv_fmt}}"
        total = self.total if math.isfinite(self.total) else None
        elapsed = time.monotonic() - self.start
        progress = tqdm.format_meter(
            self.done,
            total,  # type: ignore[arg-type]  # the stub does not know that it may be unknown
            elapsed,
            initial=self.first or 0,
            bar_format=parts,
        )
        return "  ".join([progress, *filter(None, figures)])


def _write(text: str, stays: bool = True) -> None:
    if sys.stdout.isatty():
        text = f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        print(text, end="\n" if stays else "", flush=True)
    else:
        print(text, flush=True)
