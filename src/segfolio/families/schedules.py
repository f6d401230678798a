"""Learning-rate schedules that torch does not have."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class WarmupPoly(LambdaLR):
    """`(1 - step / total_iters) ** power`, times a linear warm-up: detectron2's `WarmupPolyLR` multiplies the two.

    Args:
        total_iters: optimiser steps until the learning rate is 0.
        power: 0.9 in DeepLab, PSPNet and MaskFormer; 1 is a linear decay.
        warmup_iters: steps of the warm-up.
        warmup_factor: of the first step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int,
        power: float = 0.9,
        warmup_iters: int = 0,
        warmup_factor: float = 1e-6,
    ) -> None:
        self.total_iters, self.power = total_iters, power
        self.warmup_iters, self.warmup_factor = warmup_iters, warmup_factor
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Of the base learning rate at an optimiser step."""
        decay = max(0.0, 1 - step / self.total_iters) ** self.power
        if step >= self.warmup_iters:
            return decay
        done = step / self.warmup_iters
        return decay * (self.warmup_factor * (1 - done) + done)
