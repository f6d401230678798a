"""Learning-rate schedules that torch does not have."""

import math
from bisect import bisect_right
from collections.abc import Sequence

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, PolynomialLR

from segfolio.errors import SegfolioError


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
        warmup_bias_lr: from which biases warm up, in place of 0 (YOLO: 0.1, above their learning rate); they need
            `parameters.biases_apart`.
        warmup_momentum: from which the optimiser's momentum warms up beside the learning rates (YOLO: 0.8).

    Raises:
        SegfolioError: a number that is out of range, a `min_lr` above a learning rate; a `warmup_bias_lr` without
            biases apart, a `warmup_momentum` of an optimiser that has none.
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
        warmup_bias_lr: float | None = None,
        warmup_momentum: float | None = None,
    ) -> None:
        _check(self, 1, total_iters=total_iters, every=every)
        _check(self, 0, power=power, warmup_iters=warmup_iters, warmup_factor=warmup_factor, min_lr=min_lr)
        _check(self, 0, warmup_bias_lr=warmup_bias_lr or 0, warmup_momentum=warmup_momentum or 0)
        if warmup_bias_lr is not None and not any(group.get("biases") for group in optimizer.param_groups):
            raise SegfolioError(
                f"WarmupPoly: warmup_bias_lr is {warmup_bias_lr:g}, but biases are not in groups of their own; give "
                "model.parameters.biases_apart: true"
            )
        if warmup_momentum is not None and warmup_momentum >= 1:
            raise SegfolioError(f"WarmupPoly: warmup_momentum is {warmup_momentum:g}; give less than 1")
        if warmup_momentum is not None and not all("momentum" in group for group in optimizer.param_groups):
            raise SegfolioError(
                f"WarmupPoly: warmup_momentum is {warmup_momentum:g}, but {type(optimizer).__name__} has no momentum"
            )
        if min_lr > (lowest := min(group["lr"] for group in optimizer.param_groups)):
            raise SegfolioError(
                f"WarmupPoly: min_lr is {min_lr:g}, above the learning rate of {lowest:g} that decays to it; give less"
            )
        self.total_iters, self.power, self.min_lr, self.every = total_iters, power, min_lr, every
        self.warmup_iters, self.warmup_factor = warmup_iters, warmup_factor
        self.warmup_bias_lr, self.warmup_momentum = warmup_bias_lr, warmup_momentum
        for group in optimizer.param_groups if warmup_momentum is not None else ():
            group.setdefault("initial_momentum", group["momentum"])
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Of each parameter group at the current step; sets its momentum, where that warms up."""
        done = min(1.0, self.last_epoch // self.every * self.every / self.total_iters)
        decay, ramp = (1 - done) ** self.power, warm_up(self.last_epoch, self.warmup_iters, self.warmup_factor)
        found: list[float | Tensor] = []
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            start = (self.warmup_bias_lr or 0.0) if group.get("biases") else 0.0
            found.append(start * (1 - ramp) + (self.min_lr + (lr - self.min_lr) * decay) * ramp)
            if self.warmup_momentum is not None:
                momentum = group["initial_momentum"]
                group["momentum"] = self.warmup_momentum + (momentum - self.warmup_momentum) * ramp
        return found


class WarmupStep(LambdaLR):
    """`gamma` at each milestone, times a linear warm-up: detectron2's `WarmupMultiStepLR`.

    Args:
        milestones: optimiser steps after which the learning rate is multiplied by `gamma`.
        warmup_iters: steps of the warm-up.
        warmup_factor: of the first step.

    Raises:
        SegfolioError: a number that is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        warmup_iters: int = 1000,
        warmup_factor: float = 1e-3,
    ) -> None:
        _check(self, 0, gamma=gamma, warmup_iters=warmup_iters, warmup_factor=warmup_factor)
        self.milestones, self.gamma = sorted(milestones), gamma
        self.warmup_iters, self.warmup_factor = warmup_iters, warmup_factor
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Of the base learning rate at an optimiser step."""
        decay = self.gamma ** bisect_right(self.milestones, step)
        return decay * warm_up(step, self.warmup_iters, self.warmup_factor)


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
        SegfolioError: a part that is not named there, fewer steps than the warm-ups have, another number out of range.
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
                f"{', '.join(sorted(filter(None, set(parts)))) or 'none'}; name it in model.parameters.lr_factors"
            )
        _check(self, 0, power=power, warmup_iters=min(warmup_iters))
        _check(self, 1 + sum(warmup_iters), total_iters=total_iters)
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


class WarmupCosine(LRScheduler):
    """Linear warm-up from 0, and half a cosine from the full learning rate to its end.

    Args:
        total_iters: optimiser steps until the end.
        warmup_iters: steps of the warm-up.
        min_lr: the end, of every parameter group (PMT, arXiv 2603.25398: 1e-9).
        part: or the part of each group's learning rate that is left (SAM 2's fine-tuning: 0.1), if that is more.

    Raises:
        SegfolioError: a number that is out of range, as a warm-up that takes all steps.
    """

    def __init__(
        self, optimizer: Optimizer, total_iters: int, warmup_iters: int = 0, min_lr: float = 0.0, part: float = 0.0
    ) -> None:
        _check(self, 0, warmup_iters=warmup_iters, min_lr=min_lr, part=part)
        _check(self, 1 + warmup_iters, total_iters=total_iters)
        self.total_iters, self.warmup_iters, self.min_lr, self.part = total_iters, warmup_iters, min_lr, part
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Of each parameter group at the current step."""
        if self.last_epoch < self.warmup_iters:
            return [lr * self.last_epoch / self.warmup_iters for lr in self.base_lrs]
        done = min(1.0, (self.last_epoch - self.warmup_iters) / (self.total_iters - self.warmup_iters))
        ends = [(lr, max(self.min_lr, self.part * lr)) for lr in self.base_lrs]
        return [end + (lr - end) * (1 + math.cos(math.pi * done)) / 2 for lr, end in ends]


def warm_up(step: int, iters: int, first: float) -> float:
    """Linear from `first` to 1 in `iters` steps, 1 from then on."""
    done = min(1.0, step / iters) if iters else 1.0
    return first * (1 - done) + done


def planned_steps(schedule: object) -> int | None:
    """After which the learning rate of a decay to the end of training stays what it is."""
    decays = WarmupPoly | TwoStageWarmupPoly | WarmupCosine | PolynomialLR
    return schedule.total_iters if isinstance(schedule, decays) else None


def tell_other_plan(schedule: object, steps: float) -> None:
    """Warn of a decay that is planned for another number of steps than the trainer takes.

    Raises:
        SegfolioError: a schedule that would stop the training at its end.
    """
    if isinstance(schedule, OneCycleLR) and schedule.total_steps < steps:
        raise SegfolioError(
            f"model.scheduler: OneCycleLR ends after {schedule.total_steps} steps, but the trainer takes {steps}; give "
            "total_steps the same number"
        )
    if (planned := planned_steps(schedule)) not in (None, steps):
        rank_zero_warn(
            f"the learning rate is planned for {planned} steps (total_iters of model.scheduler), but the trainer ends "
            f"after {steps}; give both the same number"
        )


def _check(schedule: LRScheduler, least: int, **numbers: float) -> None:
    for name, number in numbers.items():
        if number < least:
            raise SegfolioError(f"{type(schedule).__name__}: {name} is {number}; give at least {least}")
