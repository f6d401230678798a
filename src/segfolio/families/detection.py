"""Objects that are detected: Mask R-CNN and its line, and one-stage networks."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from segfolio.data.detection_truth import DetectionTruth
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction, Size, Target
from segfolio.data.task_truth import check_queries
from segfolio.errors import SegfolioError
from segfolio.families.base import Family
from segfolio.inference.paste_masks import instances
from segfolio.layers.detection import DetectionTarget
from segfolio.metrics import Evaluator, instance_metric
from segfolio.metrics.average_precision import Kind


class Detection(Family):
    """Networks with `forward(images [B, C_in, H, W], sizes, targets=None)`: a dict of losses in training, in evaluation
    one `Detections` per image; `layers.detection` says all of it.

    The network's classes are the things of the label space, in its order. Images may be padded
    (`data.pad_batches`); padding is 0 after normalisation.

    A network that says its `num_queries` finds no more objects than these; images of more are told before training.

    Args:
        kinds: what is measured, see `InstanceMetric`; `[bbox]` of networks without masks. The best checkpoint is
            chosen by the AP of the first.
        max_dets: detections of an image that are evaluated, see `average_precision`; to be raised with the network's
            own limit where images have more than 100 objects. Of a federated dataset it is 300 of all classes, as LVIS
            has it, and the network's limit should be.

    The others, by name, are those of `Family`.

    Raises:
        SegfolioError: a label space without things.
    """

    takes_padding = True
    networks_of = "Detection"

    def __init__(
        self,
        labels: LabelSpace,
        architecture: Callable[[int], nn.Module],
        kinds: Sequence[Kind] = ("segm", "bbox"),
        max_dets: Sequence[int] = (1, 10, 100),
        **recipe: Any,
    ) -> None:
        if not labels.things:
            raise SegfolioError(
                "no class of the dataset is a thing, so there are no objects to find; name its countable classes as "
                "things, or choose another family"
            )
        self.kinds, self.max_dets = tuple(kinds), tuple(max_dets)
        self.main_metric = "AP_box" if self.kinds[0] == "bbox" else "AP"
        self.preparation = DetectionTruth(labels)
        stuff = labels.is_thing.count(False)  # of whatever number of classes the network is asked for, see `transfer`
        super().__init__(labels, partial(_of_things, architecture, stuff), **recipe)
        self.needs_masks = "segm" in self.kinds or getattr(self.network, "learns_masks", True)
        known = getattr(self.network, "weights_of", ())
        if known and known != (here := thing_names(labels)):
            place = next(place for place, pair in enumerate(zip(known, here, strict=True)) if len(set(pair)) > 1)
            rank_zero_warn(
                f"the weights are of other classes than the dataset's, or in another order: {here[place]} starts as "
                f"{known[place]}; before training the names of what is found are wrong"
            )
        self.things: Tensor
        self.places: Tensor  # of each class among the things, -1 of stuff
        is_thing = torch.tensor(labels.is_thing)
        self.register_buffer("things", is_thing.nonzero()[:, 0], persistent=False)
        self.register_buffer("places", torch.where(is_thing, is_thing.cumsum(0) - 1, -1), persistent=False)

    def setup(self, stage: str) -> None:
        """Before the first step: tells training images of more objects than queries."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        queries: int | None = getattr(self.network, "num_queries", None)
        if stage == "fit" and data is not None and queries is not None:
            check_queries(data.split(data.train_split), data.train_split, queries)

    @staticmethod
    def class_rows(labels: LabelSpace) -> tuple[str | None, ...]:
        """The background, then the things."""
        return None, *thing_names(labels)

    def forward(
        self, images: Tensor, sizes: list[Size] | None = None, targets: list[DetectionTarget] | None = None
    ) -> Any:
        """The network's output for a dataset's images `[B, C_in, H, W]`, of its own `sizes` at the upper left each."""
        sizes = sizes or [(images.shape[-2], images.shape[-1])] * len(images)
        return self.network(zero_beyond(self.normalize(images), sizes), sizes, targets)

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        targets = [
            detection_target(image_id, target, self.places)
            for image_id, target in zip(batch.image_ids, batch.targets, strict=True)
        ]
        return self(batch.images, batch.sizes, targets)

    def predict(self, batch: Batch) -> list[Prediction]:
        return [
            Prediction(image_id, size, instances=instances(found, self.things, valid, size))
            for image_id, valid, size, found in zip(
                batch.image_ids, batch.sizes, batch.original_sizes, self(batch.images, batch.sizes), strict=True
            )
        ]

    def make_metrics(self) -> list[Evaluator]:
        metric = instance_metric(self.labels, self.kinds, self.max_dets)
        self.measured_by = metric.words
        return [metric]


def _of_things(architecture: Callable[[int], nn.Module], stuff: int, num_classes: int) -> nn.Module:
    return architecture(num_classes - stuff)


def zero_beyond(images: Tensor, sizes: Sequence[Size]) -> Tensor:
    """Images `[B, C, H, W]`, of `sizes` at the upper left each, with 0 on the right and below, in place."""
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    return images


def thing_names(labels: LabelSpace) -> tuple[str, ...]:
    """In the order of the network's classes."""
    return tuple(name for name, thing in zip(labels.names, labels.is_thing, strict=True) if thing)


def detection_target(image_id: str, target: Target, places: Tensor) -> DetectionTarget:
    """The objects that are trained on: things that have a pixel and are no crowd, in the boxes around their masks;
    without masks where one has a box alone. Where the target is, which need not be one that `DetectionTruth` has made.

    Args:
        places: `[C]`, the network's class of each class of the dataset; -1 of those that it does not know.

    Raises:
        SegfolioError: a target without objects.
    """
    if (segments := target.segments) is None:
        raise SegfolioError(
            f"{image_id} has no objects but a semantic map alone; a detection network needs instances (some datasets "
            "read them with instances: true)"
        )
    masks, labels = segments.masks.as_subclass(Tensor), places[segments.labels]
    pixels = masks.view(torch.uint8)  # whose maximum is 10 times as quick as `any`
    columns, rows = pixels.amax(1), pixels.amax(2)
    wanted = (labels >= 0) & ~segments.crowd & (columns.amax(1) > 0)
    if not wanted.all():  # thousands of masks are not copied for nothing
        masks, labels, columns, rows = (each[wanted] for each in (masks, labels, columns, rows))
    (left, right), (top, bottom) = _extent(columns), _extent(rows)
    drawn = segments.box_only is not None and bool(segments.box_only[wanted].any())
    return DetectionTarget(torch.stack([left, top, right, bottom], 1).float(), labels, None if drawn else masks)


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """Of `[N, L]` of 0 and 1, the first place that is set and the one behind the last, `[N]` each."""
    return line.argmax(1), line.shape[1] - line.flip(1).argmax(1)
