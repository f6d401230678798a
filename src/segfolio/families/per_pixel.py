"""Per-pixel classification by an encoder and a decoder: FCN, U-Net, SegNet and their like."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction
from segfolio.errors import SegfolioError
from segfolio.families.base import Family
from segfolio.families.batch_norm import batch_statistics, recompute_statistics
from segfolio.losses import Loss
from segfolio.metrics import Evaluator
from segfolio.metrics.semantic import SemanticMetric


class PerPixel(Family):
    """Networks with `forward(images [B, 3, H, W]) -> logits [B, C, h, w]`.

    Logits of another size than the truth are resized bilinearly, in training to the input and in evaluation
    to the image's original size, before softmax or argmax.

    Args:
        losses: by the name under which each is logged.
        loss_weights: factor of each loss; 1 where none is given.
        bn_mode: batch statistics in evaluation. `running`: the averages of training, as usual. `recompute`:
            over the whole training set, whose images are of one size, before every validation and test,
            and at the end of training (SegNet). `batch`: of the batch at hand (FC-DenseNet); figures then depend on
            `eval_batch_size`.

    The others, by name, are those of `Family`.

    Raises:
        SegfolioError: a weight for a loss that does not exist.
    """

    main_metric = "mIoU"
    protocol = "whole image, one view, at its original size; one confusion matrix"

    def __init__(
        self,
        labels: LabelSpace,
        architecture: Callable[[int], nn.Module],
        losses: dict[str, Loss],
        loss_weights: Mapping[str, float] | None = None,
        bn_mode: Literal["running", "recompute", "batch"] = "running",
        **recipe: Any,
    ) -> None:
        super().__init__(labels, architecture, **recipe)
        self.losses, self.loss_weights, self.bn_mode = nn.ModuleDict(losses), dict(loss_weights or {}), bn_mode
        if unknown := sorted(self.loss_weights.keys() - losses.keys()):
            raise SegfolioError(
                f"model.loss_weights names {', '.join(unknown)}, but model.losses has {', '.join(losses) or 'none'}"
            )

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        target, weight = batch.semantic(), batch.weight()
        logits = resize(self(batch.images), (target.shape[-2], target.shape[-1]))
        return {
            name: self.loss_weights.get(name, 1.0) * loss(logits, target, self.labels.ignore_index, weight)
            for name, loss in self.losses.items()
        }

    def predict(self, batch: Batch) -> list[Prediction]:
        with batch_statistics(self.network, enabled=self.bn_mode == "batch"):
            logits = self(batch.images)
        return [
            Prediction(image_id, size, resize(one[None], size)[0].argmax(0).to(self._index_dtype))
            for image_id, size, one in zip(batch.image_ids, batch.original_sizes, logits, strict=True)
        ]

    def make_metrics(self) -> list[Evaluator]:
        return [SemanticMetric(self.labels)]

    @property
    def _index_dtype(self) -> torch.dtype:
        return torch.uint8 if self.labels.num_classes <= 256 else torch.int16

    def on_validation_start(self) -> None:
        if self.bn_mode == "recompute" and not self.trainer.sanity_checking:
            self._recompute()

    def on_test_start(self) -> None:
        if self.bn_mode == "recompute":
            self._recompute()

    before_last_checkpoint = on_test_start

    def _recompute(self) -> None:
        batches = self.trainer.datamodule.statistics_dataloader()  # type: ignore[attr-defined]
        images = (self.transfer_batch_to_device(batch, self.device, 0).images for batch in batches)
        recompute_statistics(self.network, map(self.normalize, images))


def resize(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners not aligned; the same tensor where the size is right already."""
    if logits.shape[-2:] == size:
        return logits
    return interpolate(logits, size, mode="bilinear", align_corners=False)
