"""`TwoStageWarmupPoly`: EoMT's schedule, in which a pretrained backbone waits for what is new."""

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from segfolio.errors import SegfolioError


class TwoStageWarmupPoly(LambdaLR):
    """Linear warm-up of the new parts, then of the others, each followed by `(1 - its share of the way) ** power`.

    EoMT (arXiv 2503.19108, section 4.1, and the authors' release): the backbone's learning rate stays 0 until the
    others' warm-up is over.

    Args:
        total_iters: optimiser steps until all learning rates are 0.
        later: the parts that wait, as `lr_factors` and `lr_decay_per_layer` name them; a part without another
            learning rate gets a name by a factor of 1.
        warmup_iters: of the parts that do not wait, and of those that do.
        power: of both decays.

    Raises:
        SegfolioError: a part that is not named there.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int,
        later: Sequence[str],
        warmup_iters: tuple[int, int] = (500, 1000),
        power: float = 0.9,
    ) -> None:
        parts = [group.get("part", "") for group in optimizer.param_groups]
        if unknown := sorted(set(later) - set(parts)):
            raise SegfolioError(
                f"TwoStageWarmupPoly: later names {unknown[0]!r}, but the parts with a learning rate of their own are "
                f"{', '.join(sorted(filter(None, set(parts)))) or 'none'}; name it in model.lr_factors"
            )
        self.total_iters, self.warmup_iters, self.power = total_iters, warmup_iters, power
        super().__init__(optimizer, [self.later if part in later else self.first for part in parts])

    def first(self, step: int) -> float:
        """The factor of the parts that do not wait, at an optimiser step."""
        return self._factor(step, self.total_iters, self.warmup_iters[0])

    def later(self, step: int) -> float:
        """The factor of the parts that wait."""
        return self._factor(step - self.warmup_iters[0], self.total_iters - self.warmup_iters[0], self.warmup_iters[1])

    def _factor(self, step: int, total: int, warm_up: int) -> float:
        if step < warm_up:
            return max(0, step) / warm_up
        return max(0.0, 1 - (step - warm_up) / (total - warm_up)) ** self.power
