"""Promptable segmentation: a network that is asked for an object by clicks, boxes and masks (SAM and its line)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from segfolio.data.labels import LabelSpace
from segfolio.data.prompt_sampling import PromptSampling, check_objects
from segfolio.data.sample import Batch, Sample
from segfolio.errors import SegfolioError
from segfolio.families.prompt_rounds import losses_of_rounds, with_all
from segfolio.families.prompted import Prompted
from segfolio.inference.asking import PromptProtocol
from segfolio.inference.embedding_store import EmbeddingStore, origin_of
from segfolio.inference.everything import Everything
from segfolio.inference.prompt_test import PromptProtocols
from segfolio.inference.prompting import EmbeddedImages
from segfolio.layers.prompting import Embedding, SelectingNetwork
from segfolio.losses.promptable import LOSSES, PromptLoss


class Promptable(Prompted):
    """Networks with `embed`, `read` and `draw`; `layers.prompting` says all of it.

    In training objects are asked for in rounds, see `PromptSampling`, of an image that is embedded once.

    Args:
        criterion: of each round; `PromptLoss()` if not given.
        prompts: which objects of an image are asked for in training, and how often; it is the `preparation`.
        embeddings: a folder to keep the embeddings of a frozen image encoder in: they are computed before the first
            step, as far as they are not there, of training images as they are stored.
        recompute_rounds: compute the answers of each round a second time in the backward pass, and keep less.
        validation: the protocol of validation, a preset or an object of `inference.prompt_protocols`.

    The others are those of `Prompted`, and, by name, of `Family`.

    Raises:
        SegfolioError: before training or a test, a dataset that has no objects; kept embeddings of an image encoder
            that is trained or another, or beside transforms that change training images.
    """

    preparation: "PromptSampling | WithEmbedding"

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
        super().__init__(labels, architecture, validation, test, predict_with, **recipe)
        if isinstance(self.network, SelectingNetwork):
            raise SegfolioError(
                f"{type(self.network).__name__} is not trained by prompts but as a detector; take "
                "segfolio.families.PromptableDetection"
            )
        self.criterion, self.recompute_rounds = criterion or PromptLoss(), recompute_rounds
        self.prompts = self.preparation = prompts
        self.embeddings = embeddings
        if embeddings is not None and any(p.requires_grad for p in self.network.image_encoder.parameters()):
            raise SegfolioError(
                "model.embeddings keeps what the image encoder says of images, but it is trained; give "
                "model.parameters frozen: [image_encoder], or leave embeddings out"
            )

    def check_training(self, data: Any) -> None:
        check_objects(data.split(data.train_split), data.train_split)
        if self.embeddings is not None and data.train_transforms:
            raise SegfolioError(
                f"data.train_transforms change the images, and the embeddings in {self.embeddings} are of images "
                "as they are stored; leave the transforms out, or model.embeddings"
            )

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


@dataclass(frozen=True)
class WithEmbedding:
    """A `preparation`: prompts, and the image's embedding, which is kept."""

    prompts: PromptSampling
    store: EmbeddingStore

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        prepared = self.prompts(sample, rng)
        return replace(prepared, extras={**prepared.extras, "embedding": self.store.of_sample(sample)})
