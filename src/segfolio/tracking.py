"""What a run tells while it runs: its loggers, how long it waits for data, and one line of progress."""

import csv
import math
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from tqdm import tqdm  # type: ignore[import-untyped]

from segfolio.data.sample import Batch

INIT_TIMEOUT = 30.0
"""Seconds after which W&B counts as out of reach."""


def build_loggers(
    run_dir: Path, name: str, config: dict[str, Any] | None = None, project: str = "segfolio"
) -> list[Logger]:
    """`<run_dir>/metrics.csv` and a Weights & Biases run whose files are in `<run_dir>/wandb`.

    W&B is online where an API key is found (environment, netrc or W&B's settings) and offline where none is
    or the server is out of reach; `WANDB_MODE` decides if it is set. It never asks. Both begin when the
    first thing is logged, on the first process alone, and go on where a killed run in the folder stopped.

    Args:
        name: of the run in W&B.
        config: shown by W&B as the run's configuration.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    return [
        MetricsFile(run_dir, name="", version=""),
        Wandb(
            name=name,
            save_dir=run_dir,
            project=project,
            config=config,
            resume="auto",
            settings={"silent": True, "console": "off", "init_timeout": INIT_TIMEOUT},
        ),
    ]


class MetricsFile(CSVLogger):
    """Lightning's CSV logger, which deletes the file of an earlier run: this one goes on with it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is None:
            path = Path(self.log_dir) / "metrics.csv"
            kept = path.rename(path.with_suffix(".kept")) if path.exists() else None
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*exists and is not empty")
                writer = super().experiment
            if kept:
                with kept.open(newline="") as file:
                    writer.metrics_keys = next(csv.reader(file))
                kept.rename(path)
        return super().experiment


class Wandb(WandbLogger):
    """Lightning's W&B logger, offline where online is not possible."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is not None:
            return self._experiment
        import wandb

        if wandb.run is not None:  # of an earlier run in this process
            wandb.finish()
        self._wandb_init.pop("anonymous", None)  # Lightning passes it, W&B complains of it
        try:
            self._wandb_init["mode"] = _mode()
            run = super().experiment
        except wandb.errors.Error as error:
            reason = str(error).partition("\n")[0]
            rank_zero_warn(f"W&B is out of reach ({reason}); this run stays offline, `wandb sync` sends it")
            wandb.teardown()  # its service holds on to the id of the run that failed
            self._wandb_init["mode"] = "offline"
            run = super().experiment
        if not run.disabled:
            rank_zero_info(f"W&B: {f'offline, in {Path(run.dir).parent}' if run.offline else run.url}")
        return run


def _mode() -> str:
    import wandb

    mode = wandb.setup().settings.mode
    return "offline" if mode == "online" and not wandb.login(prompt=False, verify=False) else mode


class DataWait(Callback):
    """Logs `train/data_wait`, the share of training time in which there was no batch to work on, and
    `train/samples_per_second`, every `log_every_n_steps` steps and at the end of an epoch.

    A wait is from the end of a batch to the start of the next: logging, loading, the way to the device. On
    CUDA the device's own clock is read, so that loading behind a busy GPU does not count. Validation and the
    first fetch after it are in neither figure. Both are the first process's, the samples times their number:
    the others wait for it before each batch, for whatever reason.
    """

    def __init__(self) -> None:
        self._waits: list[tuple[Any, Any]] = []
        self._steps: list[tuple[Any, Any]] = []
        self._samples = 0
        self._mark: Any = None
        self._logged_step = 0
        self.share: float | None = None  # when last logged

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._mark = _stamp(pl_module.device)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int
    ) -> None:
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


class ProgressBar(LightningProgressBar):
    """One line: how far, how long, loss, share of time spent waiting for data, the family's main metric.

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

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if (value := trainer.callback_metrics.get(f"val/{pl_module.main_metric}")) is not None:
            self._metric = f"{pl_module.main_metric} {value:.3f}"
        self._draw(trainer, self._training if trainer.state.fn == "fit" else self._evaluation, stays=True)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, self._evaluation, stays=True)

    on_predict_end = on_test_end

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
        return [f"loss {self._loss:.3f}", *(f"data wait {share:.0%}" for share in shares), self._metric]


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
        progress = tqdm.format_meter(self.done, total, elapsed, initial=self.first or 0, bar_format=parts)
        return "  ".join([progress, *filter(None, figures)])


def _write(text: str, stays: bool = True) -> None:
    if sys.stdout.isatty():
        text = f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        print(text, end="\n" if stays else "", flush=True)
    else:
        print(text, flush=True)
