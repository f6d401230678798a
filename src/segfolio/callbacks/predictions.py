"""`PredictionWriter`: what `segfolio predict` leaves on disk."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from segfolio.data.formats.images import write_id_map, write_image, write_palette
from segfolio.data.sample import Batch, Prediction
from segfolio.viz.overlay import at_original_size, overlay


class PredictionWriter(Callback):
    """Writes per image, at its original size, below the run's folder:

    * `ids/<image>.png`: class ids as the dataset's own files have them;
    * `palette/<image>.png`: the same class indices with the label space's colours;
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
        root, labels = Path(trainer.default_root_dir), pl_module.labels
        for i, prediction in enumerate(outputs):
            if prediction.semantic is None:
                continue
            indices = prediction.semantic.cpu().numpy()
            name = f"{prediction.image_id}.png"
            image: Any = at_original_size(batch, i)
            write_id_map(root / "ids" / name, labels.decode(indices))
            write_palette(root / "palette" / name, indices, labels.palette)
            write_image(root / "overlay" / name, overlay(image, indices, labels))
