"""`PredictionWriter`: what `segfolio predict` leaves on disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer

from segfolio.data.formats import coco, label_studio
from segfolio.data.formats.images import write_id_map, write_image, write_palette
from segfolio.data.formats.panoptic import panoptic_annotation, panoptic_json, write_panoptic
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction, Segments
from segfolio.files import OutputFolder, write_atomically
from segfolio.viz.overlay import at_original_size
from segfolio.viz.regions import draw_regions
from segfolio.viz.views import views


class PredictionWriter(Callback):
    """Writes below the run's folder, per image at its original size, what the network predicts of it:

    * `ids/<image>.png`: class ids as the dataset's own files have them;
    * `palette/<image>.png`: the same ids with the label space's colours, where they fit into 8 bits;
    * `overlay/<image>.png`: the colours over the image; `overlay_instances/` and `overlay_panoptic/`: the objects or
      segments, each in a colour of its own with its class and score; `overlay_tracked/`: those that are followed
      through a clip, in one colour in all of its frames;
    * `instances/<image>.png`: 16 bits, 1 for the first object, 0 for none; of two that overlap the one with the
      higher score is seen; and `instances.json`: all objects as COCO results, in the same order;
    * `panoptic/<image>.png` and `panoptic.json`, as COCO has them.

    Args:
        label_studio: write `label_studio.json`, too: objects as brush annotations, to be imported and corrected.
        min_score: of the objects in `overlay_instances/`; the other files hold all.
    """

    def __init__(self, label_studio: bool = False, min_score: float = 0.5) -> None:
        self.label_studio, self.min_score = label_studio, min_score
        self._parts: dict[str, list[Any]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._parts = {"instances": [], "panoptic": [], "label_studio": []}
        predicted = getattr(getattr(trainer.predict_dataloaders, "dataset", None), "dataset", None)
        self._folder = OutputFolder(Path(trainer.default_root_dir), getattr(predicted, "files", tuple))
        self._suffixes = _suffixes(trainer) if self.label_studio else {}
        palette = np.zeros((0x10000, 3), np.uint8)
        labels = _labels(pl_module)
        palette[list(labels.ids)] = labels.palette
        self._palette = palette[:256]

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: list[Prediction],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        labels = _labels(pl_module)
        for i, prediction in enumerate(move_data_to_device(outputs, torch.device("cpu"))):
            number = batch.targets[i].number if batch.targets else None
            known_as = prediction.image_id if number is None else number
            if prediction.semantic is not None:
                self._write_semantic(prediction, labels)
            if prediction.instances is not None:
                self._write_instances(prediction, known_as, labels)
            if prediction.panoptic is not None:
                name = f"{prediction.image_id}.png"
                write_panoptic(self._folder.path("panoptic", name), prediction.panoptic.id_map.numpy())
                self._parts["panoptic"].append(panoptic_annotation(prediction.panoptic, labels, known_as, name))
            image = at_original_size(batch, i, pl_module.image_space)  # type: ignore[arg-type]
            for view in views(prediction, None, labels, self.min_score):
                folder = "overlay" if view.name == "semantic" else f"overlay_{view.name}"
                file = self._folder.path(folder, f"{prediction.image_id}.png")
                write_image(file, draw_regions(image, view.prediction, view.colors))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        for name, mine in self._parts.items():
            parts = [mine]
            if trainer.world_size > 1:
                parts = [[] for _ in range(trainer.world_size)]
                torch.distributed.all_gather_object(parts, mine)
            found: Any = [entry for part in parts for entry in part]
            if found and trainer.is_global_zero:
                content = panoptic_json(found, _labels(pl_module)) if name == "panoptic" else found
                write_atomically(self._folder.path(f"{name}.json"), json.dumps(content).encode())

    def _write_semantic(self, prediction: Prediction, labels: LabelSpace) -> None:
        assert prediction.semantic is not None
        indices, name = prediction.semantic.numpy(), f"{prediction.image_id}.png"
        ids: Any = labels.decode(indices)
        write_id_map(self._folder.path("ids", name), ids)
        if ids.dtype == np.uint8:
            write_palette(self._folder.path("palette", name), ids, self._palette)

    def _write_instances(self, prediction: Prediction, known_as: int | str, labels: LabelSpace) -> None:
        found = prediction.instances
        assert found is not None
        order = found.scores.argsort()
        crowd = torch.zeros(len(order), dtype=torch.bool)
        stacked = Segments([found.rles[i] for i in order], found.labels[order], crowd, prediction.size).id_map
        places = torch.cat([torch.zeros(1, dtype=order.dtype), order + 1])
        ids = places[stacked.long()].numpy().astype(np.uint16)
        write_id_map(self._folder.path("instances", f"{prediction.image_id}.png"), ids)
        self._parts["instances"] += coco.results(prediction, known_as, labels)
        if self.label_studio:
            name = prediction.image_id + self._suffixes.get(prediction.image_id, "")
            task = label_studio.prediction_task(prediction, labels, label_studio.url_of(name), "segfolio")
            self._parts["label_studio"].append(task)


def _labels(family: Any) -> LabelSpace:
    """Of what it predicts."""
    return getattr(family, "predicted_labels", None) or family.labels


def _suffixes(trainer: Trainer) -> dict[str, str]:
    """That of the file of each image which is predicted, by the image's id; of those that have a file."""
    dataset = getattr(getattr(trainer.predict_dataloaders, "dataset", None), "dataset", None)
    files = ((dataset.image_id(i), dataset.image_file(i)) for i in range(len(dataset))) if dataset else ()
    return {image_id: file.suffix for image_id, file in files if file}
