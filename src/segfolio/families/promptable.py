"""Promptable segmentation: a network that is asked for an object by clicks, boxes and masks (SAM and its line)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from segfolio.data.labels import ANYTHING, LabelSpace
from segfolio.data.prompt_sampling import PromptSampling, check_objects
from segfolio.data.sample import Batch, Prediction, Sample, Size
from segfolio.errors import SegfolioError
from segfolio.families.base import Family
from segfolio.families.checkpoint import check_fits
from segfolio.families.prompt_rounds import losses_of_rounds, with_all
from segfolio.families.transfer import transfer
from segfolio.inference.asking import PromptProtocol
from segfolio.inference.embedding_store import EmbeddingStore, origin_of
from segfolio.inference.everything import Everything
from segfolio.inference.prompt_protocols import find
from segfolio.inference.prompt_test import PromptProtocols, PromptTest
from segfolio.inference.prompting import EmbeddedImages, embed
from segfolio.layers.prompting import Embedding, PromptableNetwork
from segfolio.losses.promptable import LOSSES, PromptLoss
from segfolio.metrics import Evaluator


class Promptable(Family):
    """Networks with `embed`, `read` and `draw`; `layers.prompting` says all of it.

    Images come as they are stored, or cropped; the family resizes them to what the network sees. They may be padded
    (`data.pad_batches`). Prompts are in pixels of the sample, answers at the image's original size.

    In training objects are asked for in rounds, see `PromptSampling`, of an image that is embedded once. Classes do not
    matter: a checkpoint fits a dataset of others.

    Args:
        criterion: of each round; `PromptLoss()` if not given.
        prompts: which objects of an image are asked for in training, and how often; it is the `preparation`.
        embeddings: a folder to keep the embeddings of a frozen image encoder in: they are computed before the first
            step, as far as they are not there, of training images as they are stored.
        recompute_rounds: compute the answers of each round a second time in the backward pass, and keep less.
        validation: the protocol of validation, a preset or an object of `inference.prompt_protocols`.
        test: the protocol of the test, and further ones of the same test, see `inference.prompt_test`.
        predict_with: how images are predicted where nobody asks, see `inference.everything`.

    The others, by name, are those of `Family`.

    Raises:
        SegfolioError: before training or a test, a dataset that has no objects; kept embeddings of an image encoder
            that is trained or another, or beside transforms that change training images.
    """

    network: PromptableNetwork
    predicted_labels = ANYTHING
    preparation: "PromptSampling | WithEmbedding"
    takes_padding = True
    measured_by = "at its original size"

    def __init__(
        self,
        labels: LabelSpace,
        architecture: Callable[[int], nn.Module],
        criterion: PromptLoss | None = None,
        prompts: PromptSampling = PromptSampling(),  # noqa: B008  it is immutable
        recompute_rounds: bool = False,
        embeddings: str | None = None,
        validation: str | PromptProtocol = "clicks_5",
        test: PromptProtocols = PromptProtocols(),  # noqa: B008  it is immutable
        predict_with: Everything = Everything(),  # noqa: B008  it is immutable
        **recipe: Any,
    ) -> None:
        self.validation, self.predict_with = find(validation), predict_with
        self.main_metric = self.validation.main_metric
        super().__init__(labels, architecture, **recipe)
        self.criterion, self.recompute_rounds = criterion or PromptLoss(), recompute_rounds
        self.prompts = self.preparation = prompts
        self.seed = 0  # of the data, as soon as there are any
        self.embeddings = embeddings
        if embeddings is not None and any(p.requires_grad for p in self.network.image_encoder.parameters()):
            raise SegfolioError(
                "model.embeddings keeps what the image encoder says of images, but it is trained; give "
                "model.parameters frozen: [image_encoder], or leave embeddings out"
            )
        self.tester = tester = PromptTest(test, labels, self.evaluation_of)
        self.tested = tester.protocols

    def start_from(self, checkpoint: Path) -> None:
        transfer(checkpoint, self.network)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_fits(checkpoint, self.network, self.image_space)

    def setup(self, stage: str) -> None:
        """Refuses a split that has no objects to ask for, before the first step."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is None or stage == "predict":  # or loaders of a user's own
            return
        self.seed = data.seed
        if stage == "fit":
            check_objects(data.split(data.train_split), data.train_split)
            if self.embeddings is not None and data.train_transforms:
                raise SegfolioError(
                    f"data.train_transforms change the images, and the embeddings in {self.embeddings} are of images "
                    "as they are stored; leave the transforms out, or model.embeddings"
                )
        for name in data.splits_of(stage):
            for protocol in self.tested if stage == "test" else [self.validation]:
                protocol.check(data.split(name), name)

    def on_fit_start(self) -> None:
        """Keeps the embeddings, by the weights that are there now."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.embeddings is None or data is None or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        store = EmbeddingStore(self.embeddings, origin_of(self.network, self.mean, self.std))
        store.keep_split(data, data.train_split, self._embedding, self.trainer.strategy.barrier)
        self.preparation = WithEmbedding(self.prompts, store)

    def _embedding(self, batch: Batch) -> Embedding:
        return self.embedded(batch.images.to(self.device), batch.sizes).embedding

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        if kept := batch.extras.get("embedding"):
            images = EmbeddedImages(self.network, tuple(each.to(self.mean.dtype) for each in kept), batch.sizes)
        else:
            images = self.embedded(batch.images, batch.sizes)
        first = self.prompts.first_prompt(self.seed, self.global_step)
        losses = losses_of_rounds(images, batch, first, self.criterion, self.recompute_rounds)
        return with_all(losses, self.network, LOSSES)

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
        return embed(self.network, self.normalize, images, sizes, own)


@dataclass(frozen=True)
class WithEmbedding:
    """A `preparation`: prompts, and the image's embedding, which is kept."""

    prompts: PromptSampling
    store: EmbeddingStore

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        prepared = self.prompts(sample, rng)
        return replace(prepared, extras={**prepared.extras, "embedding": self.store.of_sample(sample)})
