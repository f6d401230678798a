"""`PredictionPictures`: the same few images at every validation, on disk and in Weights & Biases."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from segfolio.data.formats.images import encoded
from segfolio.data.sample import Batch, Prediction, Queries
from segfolio.errors import SegfolioError
from segfolio.files import OutputFolder, write_atomically
from segfolio.tracking import Wandb
from segfolio.viz.clip import clip_sheet, shown_frames
from segfolio.viz.overlay import Pixels, at_original_size
from segfolio.viz.panel import panel
from segfolio.viz.prompted import prompted_panel
from segfolio.viz.queries import query_sheet
from segfolio.viz.switchable import switchable
from segfolio.viz.views import views


class PredictionPictures(Callback):
    """Draws images evenly spaced over what the first process evaluates, the same ones every time.

    Of each image one picture per reading that the model has: `semantic`, `instances`, `panoptic`, `prompted`,
    `tracked`; of a mask classification network `queries`: which one took which object; and of a frame `clip`: how
    objects were followed through its clip. A validation writes
    `<run>/pictures/val/<image>/<reading>/step_<n>.png`, a test `<run>/pictures/test/<image>/<reading>.png`. Each W&B
    logger gets them as `<stage>/pictures/<image>/<reading>`, and the image with masks and boxes to switch on and off
    as `<stage>/masks/<image>`: each under its own key, because W&B misdraws lists of images of several sizes.

    While a model is trained, nothing is written before the checkpoint of the validation is: what room a disk has is for
    that first.

    Args:
        count: images per validation.
        max_width: of a picture in pixels; the image with masks is half as wide at most. A picture of 1600 pixels
            takes about 0.6 MB.
        every_n_validations: draw at the first validation and at every n-th after it.
        min_score: of the objects and queries that are drawn.

    Raises:
        SegfolioError: an argument below 1, or a `min_score` outside 0 to 1.
    """

    def __init__(
        self, count: int = 4, max_width: int = 1600, every_n_validations: int = 1, min_score: float = 0.5
    ) -> None:
        for name, value in (("count", count), ("every_n_validations", every_n_validations)):
            if value < 1:
                raise SegfolioError(f"PredictionPictures: {name} is {value}, expected 1 or more")
        if not 0 <= min_score <= 1:
            raise SegfolioError(f"PredictionPictures: min_score is {min_score:g}, expected 0 to 1")
        self.count, self.max_width, self.every_n_validations = count, max_width, every_n_validations
        self.min_score = min_score
        self._chosen: dict[str, set[str]] = {}
        self._validations = 0
        self._batch_size = 1
        self._drawing = False
        self._drawn: set[str] = set()
        self._files: dict[str, tuple[Path, bytes]] = {}  # by key: where to, and what
        self._masked: dict[str, Callable[[], Any]] = {}
        self._due = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._start(trainer, self._validations % self.every_n_validations == 0)
            self._validations += 1

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *step: Any) -> None:
        self._draw_some("val", trainer, pl_module, trainer.num_val_batches[0], *step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish("val", trainer)
        if trainer.state.fn != TrainerFn.FITTING:
            self._write(trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._write(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(trainer, True)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *step: Any) -> None:
        self._draw_some("test", trainer, pl_module, trainer.num_test_batches[0], *step)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._finish("test", trainer)
        self._write(trainer)

    def _start(self, trainer: Trainer, due: bool) -> None:
        self._drawn, self._files, self._masked = set(), {}, {}
        self._drawing = due and trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def _draw_some(
        self,
        stage: str,
        trainer: Trainer,
        family: Any,
        batches: float,
        outputs: list[Prediction],
        batch: Batch,
        batch_idx: int,
        *_: int,
    ) -> None:
        places = self._places(stage, batch, batch_idx, batches) if self._drawing else []
        queries: list[Queries | None] = [None] * len(batch)
        if places and hasattr(family, "queries"):
            with trainer.precision_plugin.forward_context():  # as the step had it
                queries = family.queries(batch.images)
        with self._never_ending_a_run():
            for i in places:
                found = move_data_to_device(outputs[i], torch.device("cpu"))
                self._draw(stage, trainer, family, found, batch, i, queries[i], outputs)

    def _draw(
        self,
        stage: str,
        trainer: Trainer,
        family: Any,
        found: Prediction,
        batch: Batch,
        i: int,
        queries: Queries | None,
        outputs: Sequence[Prediction],
    ) -> None:
        image_id, image, labels = batch.image_ids[i], at_original_size(batch, i, family.image_space), family.labels
        target = batch.targets[i] if batch.targets else None
        readings = views(found, target, labels, self.min_score)
        if not readings:
            return
        self._drawn.add(image_id)
        step = "" if stage == "test" else f"step {trainer.global_step}"
        title = " · ".join(filter(None, (image_id, step)))
        pictures = {}
        for view in readings:
            if view.name == "prompted" and found.prompted is not None:
                truth = target.segments if target else None
                pictures[view.name] = prompted_panel(image, found.prompted, view, truth, title, self.max_width)
            else:
                pictures[view.name] = panel(image, view, labels, title, self.max_width)
        if queries is not None and readings[-1].truth is not None:  # panoptic, which comes last, has most to take
            shown = readings[-1], labels, title, self.max_width, self.min_score
            pictures["queries"] = query_sheet(image, queries, *shown)
        if found.tracked is not None:
            pictures["clip"] = self._clip(family, batch, i, outputs, title)
        folder = OutputFolder(Path(trainer.default_root_dir))
        for name, picture in pictures.items():
            place = (name, f"step_{trainer.global_step:08d}.png") if step else (f"{name}.png",)
            file = folder.path("pictures", stage, image_id, *place)
            self._files[f"{stage}/pictures/{image_id}/{name}"] = file, encoded(picture, file.suffix)
        self._masked[f"{stage}/masks/{image_id}"] = partial(
            switchable, image, readings, found, target, labels, self.max_width // 2, self.min_score
        )

    def _clip(self, family: Any, batch: Batch, i: int, outputs: Sequence[Prediction], title: str) -> Pixels:
        """Of the clip of an image that was followed through it."""
        ends = np.cumsum(batch.clips)
        first, last = next(
            (int(end) - count, int(end)) for end, count in zip(ends, batch.clips, strict=True) if i < end
        )
        places = [first + frame for frame in shown_frames(last - first)]
        images = [at_original_size(batch, place, family.image_space) for place in places]
        targets = [batch.targets[place] if batch.targets else None for place in places]
        found = [move_data_to_device(outputs[place], torch.device("cpu")) for place in places]
        each = [views(one, target, family.labels)[-1] for one, target in zip(found, targets, strict=True)]
        headings = [f"frame {place - first}" for place in places]
        return clip_sheet(images, each, headings, family.labels, title, self.max_width)

    def _places(self, stage: str, batch: Batch, batch_idx: int, batches: float) -> list[int]:
        """Which images of this batch are drawn."""
        if stage in self._chosen:
            return [i for i, name in enumerate(batch.image_ids) if name in self._chosen[stage]]
        if batch_idx == 0:
            self._batch_size = len(batch)
        images = int(batches) * self._batch_size if math.isfinite(batches) else self.count
        wanted = np.linspace(0, images - 1, self.count).round().astype(int).tolist()
        here = (i - batch_idx * self._batch_size for i in wanted if i // self._batch_size == batch_idx)
        return sorted({min(i, len(batch) - 1) for i in here})

    def _finish(self, stage: str, trainer: Trainer) -> None:
        if not self._drawing:
            return
        self._drawing = False
        self._chosen.setdefault(stage, self._drawn)
        with self._never_ending_a_run():
            for logger in _of_wandb(trainer) if self._files else ():
                logger.announce_pictures({key: file for key, (file, _) in self._files.items()}, trainer.global_step)
            self._due = True

    def _write(self, trainer: Trainer) -> None:
        if not self._due:
            return
        self._due = False
        with self._never_ending_a_run():
            for file, content in self._files.values():
                write_atomically(file, content)
            loggers = list(_of_wandb(trainer)) if self._files else []
            masked = {key: made() for key, made in self._masked.items()} if loggers else {}
            for logger in loggers:
                logger.log_pictures({key: file for key, (file, _) in self._files.items()}, masked)
        self._files, self._masked = {}, {}

    @contextmanager
    def _never_ending_a_run(self) -> Iterator[None]:
        """A disk that is full is told; checkpoints are what a run is for."""
        try:
            yield
        except OSError as error:
            self._drawing = False
            rank_zero_warn(f"pictures cannot be written ({error.strerror or error}); the run goes on without them")


def _of_wandb(trainer: Trainer) -> Iterator[Wandb]:
    return (logger for logger in trainer.loggers if isinstance(logger, Wandb))
