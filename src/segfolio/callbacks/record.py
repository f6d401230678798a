"""`RunRecord`: what a run was, kept beside what it found."""

import platform
import resource
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import lightning
import numpy as np
import torch
import torchvision
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

import segfolio
from segfolio.data.checks.fingerprint import fingerprint
from segfolio.data.sample import Batch
from segfolio.families.batch_norm import batch_share
from segfolio.figure import HOUSE
from segfolio.layers.counting import parameters
from segfolio.ledger.record import Record, code, machine, recipe_hash, throughput
from segfolio.precision import float32_in_words
from segfolio.runs import run_of
from segfolio.words import counted


class RunRecord(Callback):
    """Writes `record.json` into the run's folder: at the start, with every checkpoint, and at its end,
    whichever it is.

    A resumed run goes on with its record. Data of another size than published is told, once, and recorded.

    Args:
        experiment: `<paper>/<variant>`.
        config: resolved.
    """

    def __init__(self, experiment: str, config: Mapping[str, Any]) -> None:
        self.experiment, self.config = experiment, config
        self._record: Record | None = None  # of the first process alone
        self._tested = 0  # images, of this process

    @property
    def caveat(self) -> str:
        """Why figures of this run are not to be compared with a paper's, once it has ended; "" where they are."""
        return self._record.caveat if self._record else ""

    @property
    def protocol(self) -> str:
        """How a test came to its figures, in words, once it has ended; "" before."""
        return self._record.protocol if self._record else ""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        share = batch_share(pl_module, data.batch_size, trainer.world_size, trainer.accumulate_grad_batches)
        whole = share in (None, data.batch_size)
        words = "" if whole else f"batch normalisation over {share} of the {data.batch_size} images of a step"
        self._start(trainer, set(data.splits_of("fit")), Record(self.experiment, "", 0, batch_statistics=words))

    def on_save_checkpoint(self, trainer: Trainer, *_: Any) -> None:
        self._write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            logger.save()
        self._write(trainer, finished=True)

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        run = run_of(Path(trainer.ckpt_path)) if trainer.ckpt_path else None
        self._tested = 0
        trained = (Record.read(run) if run else None) or Record(self.experiment, "", 0)
        self._start(trainer, {data.test_split}, trained)

    def on_test_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, *_: Any) -> None:
        self._tested += len(batch.image_ids)

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        tested = int(trainer.strategy.reduce(torch.tensor(self._tested, device=pl_module.device), reduce_op="sum"))
        if self._record is None:
            return
        if tested != (whole := len(data.split(data.test_split))):
            self._record.partial = f"{tested} of {counted(whole, 'image')}"
        images = self._record.partial or counted(whole, "image")
        checkpoint = Path(trainer.ckpt_path).name if trainer.ckpt_path else "no checkpoint"
        transforms = [type(transform).__name__ for transform in data.test_transforms]
        words = [f"{images} of {data.test_split}, {checkpoint}", *transforms, getattr(pl_module, "protocol", "")]
        self._record.protocol = "; ".join(filter(None, words))
        declared = pl_module.declared
        self._record.figures = [asdict(figure) for name, figure in declared.items() if name not in HOUSE]
        self._write(trainer, finished=True)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        if self._record is not None:
            stopped = isinstance(exception, KeyboardInterrupt | SIGTERMException)
            self._record.state = "interrupted" if stopped else "failed"
            with suppress(OSError):  # of the exception there is more to say
                self._write(trainer)

    def _start(self, trainer: Trainer, splits: set[str], trained: Record) -> None:
        if not trainer.is_global_zero:
            return
        data, resumed = trainer.datamodule, trainer.training and trainer.ckpt_path  # type: ignore[attr-defined]
        earlier = Record.read(Path(trainer.default_root_dir)) if resumed else None
        unlike = {name: said for name in sorted(splits) if (said := data.split(name).unlike_published(name))}
        self._begin, self._processor_begin = time.perf_counter(), time.process_time()
        self._earlier = earlier or Record(self.experiment, "", 0, started=_now(), sessions=0)
        self._record = Record(
            experiment=self.experiment,
            config=recipe_hash(self.config),
            seed=int(self.config["seed_everything"]),
            data={name: fingerprint(data.split(name)) for name in sorted(splits)},
            other_data={**trained.other_data, **unlike},
            batch_statistics=trained.batch_statistics or self._earlier.batch_statistics,
            **code(),
            versions=_versions(),
            hardware={**machine(), **_gpus(trainer)},
            world_size=trainer.world_size,
            precision=str(trainer.precision),
            parameters=parameters(trainer.lightning_module.network),  # type: ignore[arg-type]
            float32=float32_in_words(),
            deterministic=torch.get_deterministic_debug_mode() == 2,  # not where torch only warns
            started=self._earlier.started,
            sessions=self._earlier.sessions + 1,
        )
        if other := self._record.other_data:
            said = "; ".join(other.values())
            warnings.warn(f"{said}: figures are not comparable with the paper's", stacklevel=2)
        self._write(trainer)

    def _write(self, trainer: Trainer, finished: bool = False) -> None:
        if (record := self._record) is None:
            return
        folder = Path(trainer.default_root_dir)
        record.wall_time = round(self._earlier.wall_time + time.perf_counter() - self._begin, 1)
        processor = (self._earlier.processor_time or 0.0) + time.process_time() - self._processor_begin
        record.processor_time = round(processor, 1)
        record.steps, record.epochs = trainer.global_step, trainer.current_epoch
        record.peak_memory = round(max(_peak_memory(trainer), self._earlier.peak_memory or 0.0), 3)
        record.wandb = next((str(g.version) for g in trainer.loggers if isinstance(g, WandbLogger)), None)
        if finished:
            record.state, record.finished = "finished", _now()
            record.data_wait, record.samples_per_second = throughput(folder / "metrics.csv") or (None, None)
        record.write(folder)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _versions() -> dict[str, str]:
    modules = {m.__name__: str(m.__version__) for m in (torch, torchvision, lightning, np, segfolio)}
    cuda = {"cuda": torch.version.cuda} if torch.version.cuda else {}
    return {"python": platform.python_version(), "opencv": cv2.__version__, **modules, **cuda}


def _gpus(trainer: Trainer) -> dict[str, Any]:
    device = trainer.strategy.root_device
    if device.type == "cpu":
        return {"gpu": None, "gpus": 0}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"gpu": name, "gpus": trainer.world_size}


def _peak_memory(trainer: Trainer) -> float:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
