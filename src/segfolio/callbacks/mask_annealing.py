"""`MaskAnnealing`: EoMT's way from masked to plain attention."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from segfolio.errors import SegfolioError


class MaskAnnealing(Callback):
    """Lowers the probability that a query is kept to its mask, block by block (EoMT, arXiv 2503.19108, section 3.3).

    It is 1 until a block's start, `(1 - share of the way) ** power` up to its end, and 0 from there.

    Args:
        starts, ends: optimiser steps, one of each for every block that the queries go through, first to last.
        power: of the polynomial.

    Raises:
        SegfolioError: not as many starts as ends, an end before its start; at the start of training, a network
            without mask probabilities, or with another number of them.
    """

    def __init__(self, starts: Sequence[int], ends: Sequence[int], power: float = 0.9) -> None:
        if len(starts) != len(ends) or any(end <= start for start, end in zip(starts, ends, strict=False)):
            raise SegfolioError(
                f"MaskAnnealing: starts {list(starts)}, ends {list(ends)}; give each start its later end"
            )
        self.starts, self.ends, self.power = starts, ends, power

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        blocks = len(getattr(pl_module.network, "mask_probabilities", ()))
        if blocks != len(self.starts):
            raise SegfolioError(
                f"MaskAnnealing has {len(self.starts)} starts, but the network has {blocks} blocks with masks; give "
                "one for each, or remove the callback"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.network.mask_probabilities = self.probabilities(trainer.global_step)

    def probabilities(self, step: int) -> list[float]:
        """Of each block, at an optimiser step."""
        spans = zip(self.starts, self.ends, strict=True)
        return [(1 - min(1.0, max(0.0, (step - start) / (end - start)))) ** self.power for start, end in spans]
