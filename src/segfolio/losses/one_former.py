"""The criterion of OneFormer (Jain et al., 2023, arXiv 2211.06220, section 3.3)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from segfolio.errors import SegfolioError
from segfolio.losses.mask_classification import Layers, MaskClassificationLoss
from segfolio.losses.mask_matching import MaskTarget
from segfolio.losses.over_processes import of_all_processes
from segfolio.precision import full_float32

_MOST = 100.0  # that likenesses are multiplied by


class OneFormerLoss(MaskClassificationLoss):
    """Mask classification, and a contrastive loss: the queries of an image are to be more like its own texts than like
    those of the batch's other images, and the other way round. The batch is that of all processes.

    Args:
        contrastive_weight: of the two directions together.

    The others, by name, are those of `MaskClassificationLoss`.

    Raises:
        SegfolioError: a weight below 0; a network without texts.
    """

    compares = ("queries", "texts", "log_scale")

    def __init__(self, contrastive_weight: float = 0.5, **arguments: Any) -> None:
        super().__init__(**arguments)
        if contrastive_weight < 0:
            raise SegfolioError(f"contrastive_weight of OneFormerLoss is {contrastive_weight}, expected 0 or more")
        self.contrastive_weight = contrastive_weight
        self.names = (*self.names, "contrastive")

    def forward(
        self,
        layers: Layers,
        targets: Sequence[MaskTarget],
        queries: Tensor | None = None,
        texts: Tensor | None = None,
        log_scale: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The losses of `MaskClassificationLoss`, and `contrastive`.

        Args:
            queries, texts: `[B, Q, D]`, of each image.
            log_scale: of the likenesses, learned.
        """
        if queries is None or texts is None or log_scale is None:
            raise SegfolioError(
                "OneFormerLoss needs a network whose queries are compared with texts, as OneFormer's are; for another "
                "take MaskClassificationLoss"
            )
        with full_float32(queries.device):
            likeness = contrastive(queries.float(), texts.float(), log_scale.float())
        return {**super().forward(layers, targets), "contrastive": self.contrastive_weight * likeness}


def contrastive(queries: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Cross-entropies of which texts of the batch an image's are, and of which image a text's is, added up."""
    queries, texts = (normalize(x.flatten(1), dim=1) for x in (queries, texts))
    (all_queries, first), (all_texts, _) = of_all_processes(queries), of_all_processes(texts)
    own = first + torch.arange(len(queries), device=queries.device)
    scale = log_scale.exp().clamp(max=_MOST)
    return cross_entropy(scale * texts @ all_queries.T, own) + cross_entropy(scale * queries @ all_texts.T, own)
