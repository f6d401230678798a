"""`PredictionPictures`: the same few images at every validation, on disk and in Weights & Biases."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from segfolio.data.formats.images import write_image
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction
from segfolio.errors import SegfolioError
from segfolio.tracking import Wandb
from segfolio.viz.overlay import Indices, Pixels, at_original_size, fit, fit_map
from segfolio.viz.panel import panel


@dataclass
class Picture:
    """One image at its original size, `[H, W, 3]`, and its maps of class indices `[H, W]`."""

    image_id: str
    image: Pixels
    truth: Indices | None
    prediction: Indices


class PredictionPictures(Callback):
    """Draws images evenly spaced over what the first process evaluates, the same ones every time.

    A validation writes `<run>/pictures/val/<image>/step_<n>.png`, a test `<run>/pictures/test/<image>.png`.
    Each W&B logger gets a panel as `<stage>/pictures/<image>` and the image with masks to switch on and off
    as `<stage>/masks/<image>`: each under its own key, because W&B misdraws lists of images of several sizes.

    Args:
        count: images per validation.
        max_width: of a panel in pixels; the image with masks is half as wide at most. A panel of 1600 pixels
            takes about 0.6 MB.
        every_n_validations: draw at the first validation and at every n-th after it.

    Raises:
        SegfolioError: an argument below 1.
    """

    def __init__(self, count: int = 4, max_width: int = 1600, every_n_validations: int = 1) -> None:
        for name, value in (("count", count), ("every_n_validations", every_n_validations)):
            if value < 1:
                raise SegfolioError(f"PredictionPictures: {name} is {value}, expected 1 or more")
        self.count, self.max_width, self.every_n_validations = count, max_width, every_n_validations
        self._chosen: dict[str, set[str]] = {}
        self._validations = 0
        self._batch_size = 1
        self._drawing = False
        self._pictures: list[Picture] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._start(trainer, self._validations % self.every_n_validations == 0)
            self._validations += 1

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *step: Any) -> None:
        self._collect("val", trainer.num_val_batches[0], *step)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._finish("val", trainer, pl_module.labels)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start(trainer, True)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *step: Any) -> None:
        self._collect("test", trainer.num_test_batches[0], *step)

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._finish("test", trainer, pl_module.labels)

    def _start(self, trainer: Trainer, due: bool) -> None:
        self._pictures = []
        self._drawing = due and trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]

    def _collect(
        self, stage: str, batches: float, outputs: list[Prediction], batch: Batch, batch_idx: int, *_: int
    ) -> None:
        if not self._drawing:
            return
        for i in self._places(stage, batch, batch_idx, batches):
            prediction = index_map(outputs[i])
            if prediction is not None:
                truth = batch.targets[i].semantic if batch.targets else None
                maps = None if truth is None else truth.cpu().numpy(), prediction
                self._pictures.append(Picture(batch.image_ids[i], at_original_size(batch, i), *maps))

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

    def _finish(self, stage: str, trainer: Trainer, labels: LabelSpace) -> None:
        if not self._drawing:
            return
        self._drawing = False
        self._chosen.setdefault(stage, {p.image_id for p in self._pictures})
        folder, step = Path(trainer.default_root_dir) / "pictures" / stage, trainer.global_step
        files = {}
        for p in self._pictures:
            title = p.image_id if stage == "test" else f"{p.image_id} · step {step}"
            name = p.image_id if stage == "test" else f"{p.image_id}/step_{step:08d}"
            files[f"{stage}/pictures/{p.image_id}"] = file = folder / f"{name}.png"
            write_image(file, panel(p.image, p.truth, p.prediction, labels, title, self.max_width))
        for logger in trainer.loggers:
            if isinstance(logger, Wandb) and files:
                drawn = self._pictures if labels.ignore_index <= 0xFF else []  # W&B's masks have 8 bits
                masked = {f"{stage}/masks/{p.image_id}": self._masked(p, labels) for p in drawn}
                logger.log_pictures(files, masked, step)
        self._pictures = []

    def _masked(self, picture: Picture, labels: LabelSpace) -> Any:
        """W&B's image with masks; all three in one size, which is what keeps them aligned."""
        import wandb

        height, width = picture.image.shape[:2]
        scale = min(1.0, self.max_width / 2 / width)
        size = round(width * scale), max(1, round(height * scale))
        names = {**dict(enumerate(labels.names)), labels.ignore_index: "ignored"}
        maps = {"prediction": picture.prediction, "ground_truth": picture.truth}
        masks = {
            key: {"mask_data": fit_map(indices, size), "class_labels": names}
            for key, indices in maps.items()
            if indices is not None
        }
        return wandb.Image(fit(picture.image, size), masks=masks, file_type="jpg")


def index_map(prediction: Prediction) -> Indices | None:
    """What is drawn of a prediction, `[H, W]` class indices; None for outputs that have no such map."""
    return None if prediction.semantic is None else prediction.semantic.cpu().numpy()
