"""Learning-rate schedules that torch does not have."""

from bisect import bisect_right
from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


class WarmupPoly(LRScheduler):
    """`min_lr + (lr - min_lr) (1 - step / total_iters) ** power`, times a linear warm-up.

    detectron2's `WarmupPolyLR`, which multiplies the two, and the "poly" policies of the papers.

    Args:
        total_iters: optimiser steps until the learning rate is `min_lr`.
        power: 0.9 in DeepLab, PSPNet and MaskFormer; 1 is a linear decay.
        warmup_iters: steps of the warm-up.
        warmup_factor: of the first step.
        min_lr: of every parameter group (Segmenter: 1e-5).
        every: steps between two changes of the decay: 10 in a reimplementation of DeepLab v2 (kazuto1011); the steps
            of an epoch decay by epoch (DLA).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_iters: int,
        power: float = 0.9,
        warmup_iters: int = 0,
        warmup_factor: float = 1e-6,
        min_lr: float = 0.0,
        every: int = 1,
    ) -> None:
        self.total_iters, self.power, self.min_lr, self.every = total_iters, power, min_lr, every
        self.warmup_iters, self.warmup_factor = warmup_iters, warmup_factor
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Of each parameter group at the current step."""
        done = min(1.0, self.last_epoch // self.every * self.every / self.total_iters)
        decay, ramp = (1 - done) ** self.power, warm_up(self.last_epoch, self.warmup_iters, self.warmup_factor)
        return [(self.min_lr + (lr - self.min_lr) * decay) * ramp for lr in self.base_lrs]


class WarmupStep(LambdaLR):
    """`gamma` at each milestone, times a linear warm-up: detectron2's `WarmupMultiStepLR`.

    Args:
        milestones: optimiser steps after which the learning rate is multiplied by `gamma`.
        warmup_iters: steps of the warm-up.
        warmup_factor: of the first step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        warmup_iters: int = 1000,
        warmup_factor: float = 1e-3,
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        self.warmup_iters, self.warmup_factor = warmup_iters, warmup_factor
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Of the base learning rate at an optimiser step."""
        decay = self.gamma ** bisect_right(self.milestones, step)
        return decay * warm_up(step, self.warmup_iters, self.warmup_factor)


def warm_up(step: int, iters: int, first: float) -> float:
    """Linear from `first` to 1 in `iters` steps, 1 from then on."""
    done = min(1.0, step / iters) if iters else 1.0
    return first * (1 - done) + done
