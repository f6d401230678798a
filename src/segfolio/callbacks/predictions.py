"""`PredictionWriter`: what `segfolio predict` leaves on disk."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from segfolio.data.formats.images import write_id_map, write_image, write_palette
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction
from segfolio.viz.overlay import at_original_size, overlay


class PredictionWriter(Callback):
    """Writes per image, at its original size, below the run's folder:

    * `ids/<image>.png`: class ids as the dataset's own files have them;
    * `palette/<image>.png`: the same ids with the label space's colours, where they fit into 8 bits;
    * `overlay/<image>.png`: the colours over the image.
    """

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: list[Prediction],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        root = Path(trainer.default_root_dir)
        labels: LabelSpace = pl_module.labels  # type: ignore[assignment]
        palette = np.zeros((0x10000, 3), np.uint8)
        palette[list(labels.ids)] = labels.palette
        for i, prediction in enumerate(outputs):
            if prediction.semantic is None:
                continue
            indices = prediction.semantic.cpu().numpy()
            name = f"{prediction.image_id}.png"
            ids: Any = labels.decode(indices)
            write_id_map(root / "ids" / name, ids)
            if ids.dtype == np.uint8:
                write_palette(root / "palette" / name, ids, palette[:256])
            write_image(root / "overlay" / name, overlay(at_original_size(batch, i), indices, labels))
