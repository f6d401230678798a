"""What families have in common whose networks are asked for objects: of images, and of clips."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segfolio.data.labels import ANYTHING, LabelSpace
from segfolio.data.sample import Batch, Prediction, Size
from segfolio.families.base import Family
from segfolio.families.checkpoint import check_fits
from segfolio.families.transfer import transfer
from segfolio.inference.asking import PromptProtocol
from segfolio.inference.everything import FindsAll
from segfolio.inference.prompt_protocols import find
from segfolio.inference.prompt_test import PromptProtocols, PromptTest
from segfolio.inference.prompting import EmbeddedImages, embed
from segfolio.layers.prompting import PromptableNetwork
from segfolio.metrics import Evaluator


class Prompted(Family):
    """How they are evaluated: by a protocol that asks, in validation one, in the test one or several.

    Images come as they are stored, or cropped, and may be padded (`data.pad_batches`); the family resizes them to what
    the network sees. Prompts are in pixels of the sample, answers at the image's original size. Classes do not matter:
    a checkpoint fits a dataset of others.

    Args:
        validation: the protocol of validation, a preset or an object.
        test: the protocol of the test, and further ones of the same test, see `inference.prompt_test`.
        predict_with: how images are predicted where nobody asks, see `inference.everything` and `inference.all_masks`.
    """

    network: PromptableNetwork
    predicted_labels = ANYTHING
    takes_padding = True
    measured_by = "at its original size"
    networks_of = "Promptable"

    def __init__(
        self,
        labels: LabelSpace,
        architecture: Callable[[int], nn.Module],
        validation: str | PromptProtocol,
        test: PromptProtocols,
        predict_with: FindsAll,
        **recipe: Any,
    ) -> None:
        self.validation, self.predict_with = find(validation), predict_with
        self.main_metric = self.validation.main_metric
        super().__init__(labels, architecture, **recipe)
        self.seed = 0  # of the data, as soon as there are any
        self.tester = tester = PromptTest(test, labels, self.evaluation_of)
        self.tested = tester.protocols

    def check_training(self, data: Any) -> None:
        """Refuse data on which the family cannot be trained.

        Raises:
            SegfolioError: what is wrong with them.
        """
        raise NotImplementedError

    def start_from(self, checkpoint: Path) -> None:
        transfer(checkpoint, self.network)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_fits(checkpoint, self.network, self.image_space)

    def setup(self, stage: str) -> None:
        """Refuses a split that has nothing to ask for, before the first step."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None or stage == "predict":  # or loaders of a user's own
            return
        self.seed = data.seed
        if stage == "fit":
            self.check_training(data)
        for name in data.splits_of(stage):
            for protocol in self.tested if stage == "test" else [self.validation]:
                protocol.check(data.split(name), name)

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
        return embed(self.network, self.normalize, images, sizes, own, self.resizes_bicubically)

    @property
    def resizes_bicubically(self) -> bool:
        """Or bilinearly."""
        return False
