"""Video segmentation by prompts: a network that is told of objects in some frames and follows them through the others
(SAM 2 and its line)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segfolio.data.clip_prompts import ClipPrompts, check_clips
from segfolio.data.labels import ANYTHING, LabelSpace
from segfolio.data.sample import Batch, Prediction, Size
from segfolio.errors import SegfolioError
from segfolio.families.base import Family
from segfolio.families.checkpoint import check_fits
from segfolio.families.clip_rounds import losses_of_clips
from segfolio.families.prompt_rounds import with_all
from segfolio.families.transfer import transfer
from segfolio.inference.asking import PromptProtocol
from segfolio.inference.everything import Everything
from segfolio.inference.prompt_protocols import find
from segfolio.inference.prompt_test import PromptProtocols, PromptTest
from segfolio.inference.prompting import EmbeddedImages, embed
from segfolio.layers.tracking import TrackingNetwork
from segfolio.losses.promptable import LOSSES, PromptLoss
from segfolio.metrics import Evaluator


class Video(Family):
    """Networks that remember; `layers.tracking` says all of it.

    In training, objects of clips are prompted, corrected and followed, see `ClipPrompts` and `data.clip_frames`; what
    is remembered of a frame learns from those after it. A step's losses are sums over frames and rounds. In evaluation
    a clip is followed frame by frame, at constant memory.

    Frames come as they are stored, or cropped; the family resizes them to what the network sees, bicubically where it
    is evaluated, as the release does. Classes do not matter: a checkpoint fits a dataset of others, and that of a
    `Promptable` of the same network as well.

    Args:
        criterion: of each round; if not given, a `PromptLoss` as SAM 2 has it, with `l1` and all estimates supervised.
        prompts: which objects of a clip are asked for in training, where, and how often; it is the `preparation`.
        recompute_rounds: compute the answers of each round a second time in the backward pass, and keep less.
        validation: the protocol of validation, a preset or an object of `inference.video_protocols`.
        test: the protocol of the test, and further ones of the same test, see `inference.prompt_test`.
        predict_with: how frames are predicted where nobody asks, each by itself, see `inference.everything`.

    The others, by name, are those of `Family`.

    Raises:
        SegfolioError: a network without memory; before training or a test, a dataset that has no clips, or no objects
            that are followed.
    """

    network: TrackingNetwork
    predicted_labels = ANYTHING
    preparation: ClipPrompts
    takes_padding = True
    measured_by = "at its original size"

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
        self.validation, self.predict_with = find(validation), predict_with
        self.main_metric = self.validation.main_metric
        super().__init__(labels, architecture, **recipe)
        if not isinstance(self.network, TrackingNetwork):
            raise SegfolioError(
                f"{type(self.network).__name__} has no memory by which to follow objects; take SAM2, or "
                "segfolio.families.Promptable for images"
            )
        self.criterion = criterion or PromptLoss(iou_loss="l1", supervise_all_iou=True)
        self.recompute_rounds, self.preparation = recompute_rounds, prompts
        self.seed = 0  # of the data, as soon as there are any
        self.tester = tester = PromptTest(test, labels, self.evaluation_of)
        self.tested = tester.protocols

    def start_from(self, checkpoint: Path) -> None:
        transfer(checkpoint, self.network)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_fits(checkpoint, self.network, self.image_space)

    def setup(self, stage: str) -> None:
        """Refuses a split that has nothing to follow, before the first step."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None or stage == "predict":  # or loaders of a user's own
            return
        self.seed = data.seed
        if stage == "fit":
            check_clips(data.split(data.train_split), data.train_split, data.clip_frames)
        for name in data.splits_of(stage):
            for protocol in self.tested if stage == "test" else [self.validation]:
                protocol.check(data.split(name), name)

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        images = self.embedded(batch.images, batch.sizes)
        draw = (self.seed, self.global_step)
        losses = losses_of_clips(images, batch, self.preparation, draw, self.criterion, self.recompute_rounds)
        return with_all(losses, self.network, (*LOSSES, "object_score"))

    def make_metrics(self) -> list[Evaluator]:
        return self.validation.evaluators(self.labels)

    def predict(self, batch: Batch) -> list[Prediction]:
        return self.predict_with.predict(self, batch)

    def answer(self, batch: Batch) -> list[Prediction]:
        return self.validation.answer(self, batch)

    def embedded(self, images: Tensor, sizes: Sequence[Size], own: Sequence[Size] | None = None) -> EmbeddedImages:
        """The dataset's images `[B, C, H, W]`, of `sizes` at the upper left each, ready to be asked about.

        Args:
            own: the sizes in whose pixels they are asked; `sizes` if not given.
        """
        return embed(self.network, self.normalize, images, sizes, own, bicubic=not self.training)
