"""`AllMasks`: what a network finds in an image before it is asked (FastSAM: Zhao et al., 2023, arXiv 2306.12156,
section 3.2, "All-instance Segmentation")."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from segfolio.data.sample import Batch, Prediction
from segfolio.errors import SegfolioError
from segfolio.inference.everything import Box, FindsAll, Found
from segfolio.inference.mask_runs import MaskRuns
from segfolio.inference.prompting import EmbeddedImages
from segfolio.inference.seen import Embeds
from segfolio.layers.prompting import SelectingNetwork, of_images
from segfolio.metrics.average_precision import Kind

OFFSET = 1.0
"""The logits by which the level of a mask is raised and lowered, to tell its stability, as in everything mode."""


@dataclass(frozen=True)
class AllMasks(FindsAll):
    """All masks of a `SelectingNetwork`, without a grid of points: what is one and what is a duplicate it has decided.

    Attributes:
        score_threshold: above which a mask stays; the network has its own beside it.
        kind: what is measured, `segm` of masks or `bbox` of the boxes around them.

    Raises:
        SegfolioError: a threshold outside 0 to 1.
    """

    lower = "--model.init_args.architecture.init_args.score_threshold"

    score_threshold: float = 0.0
    kind: Kind = "segm"

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold <= 1:
            raise SegfolioError(f"all masks: score_threshold is {self.score_threshold:g}, expected 0 to 1")

    @property
    def words(self) -> str:
        above = f" that score above {self.score_threshold:g}" if self.score_threshold else ""
        boxes = ", the boxes around them" if self.kind == "bbox" else ""
        return f"all masks{above} that are found without being asked{boxes}"

    def predict(self, family: Embeds, batch: Batch) -> list[Prediction]:
        """All that a batch shows, as instances of `ANYTHING`.

        Raises:
            SegfolioError: a network that has to be asked.
        """
        whole = family.embedded(batch.images, batch.sizes, batch.original_sizes)
        return [
            Prediction(image_id, size, instances=self.find(whole, place).instances())
            for place, (image_id, size) in enumerate(zip(batch.image_ids, batch.original_sizes, strict=True))
        ]

    @torch.no_grad()
    def find(self, whole: EmbeddedImages, image: int = 0, look: Callable[[Box], EmbeddedImages] | None = None) -> Found:
        """All that an image shows, best first; `points` are the middles of the masks' boxes.

        Args:
            whole: images, embedded.
            image: which of them.
            look: not used, see `Everything`.

        Raises:
            SegfolioError: a network that has to be asked.
        """
        if not isinstance(network := whole.network, SelectingNetwork):
            raise SegfolioError(
                f"{type(network).__name__} finds nothing without being asked; take everything mode, the protocol "
                "everything"
            )
        reading = network.all_masks(of_images(whole.embedding, slice(image, image + 1)))
        kept = reading.iou > self.score_threshold
        reader, scores = MaskRuns.of(whole, image), reading.iou[kept].float().cpu()
        logits = network.draw(reading, kept).float().cpu().numpy()
        stable = [reader.stable(mask, OFFSET, 0.0, strict=False) for mask in logits]
        masks = [mask for mask in stable if mask is not None]  # without a threshold all are
        height, width = whole.sizes[image]
        crops = torch.tensor([[0, 0, width, height]]).expand(len(masks), 4)
        stability = torch.tensor([stability for stability, _ in masks])
        found = Found([mask for _, mask in masks], scores, stability, torch.zeros(len(masks), 2), crops)
        corners = found.corners()
        found.points = (corners[:, :2] + corners[:, 2:] + 1) / 2
        return found
