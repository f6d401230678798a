"""Promptable segmentation by a detector: all masks of an image are found at once, and prompts choose among them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segfolio.data.detection_truth import DetectionTruth
from segfolio.data.labels import LabelSpace
from segfolio.data.prompt_sampling import check_objects
from segfolio.data.sample import Batch
from segfolio.errors import SegfolioError
from segfolio.families.checkpoint import architecture_of, read_checkpoint
from segfolio.families.detection import detection_target, zero_beyond
from segfolio.families.prompted import Prompted
from segfolio.families.transfer import transfer
from segfolio.inference.all_masks import AllMasks
from segfolio.inference.asking import PromptProtocol
from segfolio.inference.prompt_test import PromptProtocols
from segfolio.layers.prompting import SelectingNetwork


class PromptableDetection(Prompted):
    """Networks that select, `layers.prompting.SelectingNetwork`: FastSAM.

    It is trained on objects of whatever class as a detector of one class, on images as they come from the transforms:
    they are best of the scale that the network sees in the test, `image_size` on the longest side. What validation and
    test ask is what they ask of a `Promptable`.

    `init_from` also takes a run of `Detection` whose network is that which finds the masks, whatever its classes.

    Args:
        validation: the protocol of validation, a preset or an object of `inference.prompt_protocols`.
        test: the protocol of the test, and further ones of the same test, see `inference.prompt_test`.
        predict_with: how images are predicted where nobody asks, see `inference.all_masks`.

    The others, by name, are those of `Family`.

    Raises:
        SegfolioError: a network that does not select; before training or a test, a dataset that has no objects.
    """

    network: SelectingNetwork

    def __init__(
        self,
        labels: LabelSpace,
        architecture: Callable[[int], nn.Module],
        validation: str | PromptProtocol = "clicks_5",
        test: PromptProtocols = PromptProtocols(),  # noqa: B008  it is immutable
        predict_with: AllMasks = AllMasks(),  # noqa: B008  it is immutable
        **recipe: Any,
    ) -> None:
        super().__init__(labels, architecture, validation, test, predict_with, **recipe)
        if not isinstance(self.network, SelectingNetwork):
            raise SegfolioError(
                f"{type(self.network).__name__} finds no masks by itself among which prompts could choose; take "
                "FastSAM, or segfolio.families.Promptable"
            )
        objects = tuple(name for name in labels.names if name != labels.background)
        self.preparation = DetectionTruth(replace(labels, things=objects))
        self.places: Tensor  # of each class that of the network: all are objects
        places = torch.tensor([0 if name in objects else -1 for name in labels.names])
        self.register_buffer("places", places, persistent=False)

    def start_from(self, checkpoint: Path) -> None:
        there = read_checkpoint(checkpoint).get("segfolio", {}).get("architecture")
        detector = self.network.image_encoder
        transfer(checkpoint, detector if there == architecture_of(detector) else self.network)

    def check_training(self, data: Any) -> None:
        check_objects(data.split(data.train_split), data.train_split)

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        targets = [
            detection_target(image_id, target, self.places)
            for image_id, target in zip(batch.image_ids, batch.targets, strict=True)
        ]
        images = zero_beyond(self.normalize(batch.images), batch.sizes)
        return self.network.losses(images, batch.sizes, targets)
