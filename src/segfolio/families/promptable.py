"""Promptable segmentation: a network that is asked for an object by clicks, boxes and masks (SAM and its line)."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Batch, Prediction, Size
from segfolio.families.base import Family
from segfolio.inference.asking import PromptProtocol
from segfolio.inference.prompt_protocols import find
from segfolio.inference.prompt_test import PromptProtocols, PromptTest
from segfolio.inference.prompting import EmbeddedImages, network_input
from segfolio.layers.prompting import PromptableNetwork
from segfolio.metrics import Evaluator


class Promptable(Family):
    """Networks with `embed`, `read` and `draw`; `layers.prompting` says all of it.

    Images come as they are stored, or cropped; the family resizes them to what the network sees. They may be padded
    (`data.pad_batches`). Prompts are in pixels of the sample, answers at the image's original size.

    Args:
        validation: the protocol of validation, a preset or an object of `inference.prompt_protocols`.
        test: the protocol of the test, and further ones of the same test, see `inference.prompt_test`.

    The others, by name, are those of `Family`.

    Raises:
        SegfolioError: before training or a test, a dataset that has no objects.
    """

    network: PromptableNetwork
    takes_padding = True
    measured_by = "at its original size"

    def __init__(
        self,
        labels: LabelSpace,
        architecture: Callable[[int], nn.Module],
        validation: str | PromptProtocol = "clicks_5",
        test: PromptProtocols = PromptProtocols(),  # noqa: B008  it is immutable
        **recipe: Any,
    ) -> None:
        self.validation = find(validation)
        self.main_metric = self.validation.main_metric
        super().__init__(labels, architecture, **recipe)
        self.tester = tester = PromptTest(test, labels, self.evaluation_of)
        self.tested = tester.protocols

    def setup(self, stage: str) -> None:
        """Refuses a split that the protocols cannot ask about, before the first step."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None or stage == "predict":  # or loaders of a user's own
            return
        for name in data.splits_of(stage):
            for protocol in self.tested if stage == "test" else [self.validation]:
                protocol.check(data.split(name), name)

    def make_metrics(self) -> list[Evaluator]:
        return self.validation.evaluators(self.labels)

    def answer(self, batch: Batch) -> list[Prediction]:
        return self.validation.answer(self, batch)

    def embedded(self, images: Tensor, sizes: Sequence[Size], own: Sequence[Size] | None = None) -> EmbeddedImages:
        """The dataset's images `[B, C, H, W]`, of `sizes` at the upper left each, ready to be asked about.

        Args:
            own: the sizes in whose pixels they are asked; `sizes` if not given.
        """
        embedding = self.network.embed(network_input(self.network, images, sizes, self.normalize))
        seen = [self.network.fit(*size) for size in sizes]
        return EmbeddedImages(self.network, embedding, sizes if own is None else own, seen)
