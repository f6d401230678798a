"""Video segmentation by prompts: a network that is told of objects in some frames and follows them through the others
(SAM 2 and its line)."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from segfolio.data.clip_prompts import ClipPrompts, check_clips
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch
from segfolio.errors import SegfolioError
from segfolio.families.clip_rounds import losses_of_clips
from segfolio.families.prompt_rounds import with_all
from segfolio.families.prompted import Prompted
from segfolio.inference.asking import PromptProtocol
from segfolio.inference.everything import Everything
from segfolio.inference.prompt_test import PromptProtocols
from segfolio.layers.tracking import TrackingNetwork
from segfolio.losses.promptable import LOSSES, PromptLoss


class Video(Prompted):
    """Networks that remember; `layers.tracking` says all of it.

    In training, objects of clips are prompted, corrected and followed, see `ClipPrompts` and `data.clip_frames`; what
    is remembered of a frame learns from those after it. A step's losses are sums over frames and rounds. In evaluation
    a clip is followed frame by frame, at constant memory.

    A checkpoint of a `Promptable` of the same network fits as well.

    Args:
        criterion: of each round; if not given, a `PromptLoss` as SAM 2 has it, with `l1` and all estimates supervised.
        prompts: which objects of a clip are asked for in training, where, and how often; it is the `preparation`.
        recompute_rounds: compute the answers of each round a second time in the backward pass, and keep less.
        validation: the protocol of validation, a preset or an object of `inference.video_protocols`.

    The others are those of `Prompted`, and, by name, of `Family`.

    Raises:
        SegfolioError: a network without memory; before training or a test, a dataset that has no clips, or no objects
            that are followed.
    """

    network: TrackingNetwork
    preparation: ClipPrompts

    def __init__(
        self,
        labels: LabelSpace,
        architecture: Callable[[int], nn.Module],
        criterion: PromptLoss | None = None,
        prompts: ClipPrompts = ClipPrompts(),  # noqa: B008  it is immutable
        recompute_rounds: bool = False,
        validation: str | PromptProtocol = "first_mask",
        test: PromptProtocols = PromptProtocols("first_mask"),  # noqa: B008  it is immutable
        predict_with: Everything = Everything(),  # noqa: B008  it is immutable
        **recipe: Any,
    ) -> None:
        super().__init__(labels, architecture, validation, test, predict_with, **recipe)
        if not isinstance(self.network, TrackingNetwork):
            raise SegfolioError(
                f"{type(self.network).__name__} has no memory by which to follow objects; take SAM2, or "
                "segfolio.families.Promptable for images"
            )
        self.criterion = criterion or PromptLoss(iou_loss="l1", supervise_all_iou=True)
        self.recompute_rounds, self.preparation = recompute_rounds, prompts

    def check_training(self, data: Any) -> None:
        check_clips(data.split(data.train_split), data.train_split, data.clip_frames)

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        images = self.embedded(batch.images, batch.sizes)
        draw = (self.seed, self.global_step)
        losses = losses_of_clips(images, batch, self.preparation, draw, self.criterion, self.recompute_rounds)
        return with_all(losses, self.network, (*LOSSES, "object_score"))

    @property
    def resizes_bicubically(self) -> bool:
        """In evaluation, as the release does."""
        return not self.training
