"""Optimisers and schedules that torch makes without a word and that fail once they step: found out before training."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from segfolio.errors import SegfolioError
from segfolio.families.built import arguments_of
from segfolio.mistakes import told_of

_STEPS = 1000
"""Of a schedule; what comes later is told when it comes."""


def rehearse(
    optimizer: Callable[[Iterable[Any]], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None,
    groups: Sequence[Mapping[str, Any]],
) -> None:
    """Take a step of an optimiser, and some of its schedule, with parameters of a single 0 in place of the network's.

    Args:
        groups: of parameters, those that the optimiser is to be called with.

    Raises:
        SegfolioError: what is said against the step.
    """
    small = [{**group, "params": list(_zeros(group["params"]))} for group in groups]
    trial = optimizer(small)
    schedule = scheduler(trial) if scheduler else None  # it watches that the optimiser steps before it
    if isinstance(schedule, ReduceLROnPlateau):
        raise SegfolioError(
            "model.scheduler: ReduceLROnPlateau goes by a figure of validation, but schedules here step with the "
            "optimiser; take e.g. segfolio.families.schedules.WarmupPoly"
        )
    with told_of("model.optimizer"), arithmetic(optimizer):
        trial.step(lambda: 0.0)
    if schedule is None:
        return
    with told_of("model.scheduler"), arithmetic(scheduler):
        schedule.step()
        try:
            for _ in range(1, _STEPS):
                schedule.step()
        except ValueError:
            return  # it has an end, which training may not come to


@contextmanager
def arithmetic(factory: object) -> Iterator[None]:
    """A division by zero is told with the arguments that are 0."""
    try:
        yield
    except ArithmeticError as error:
        given = arguments_of(factory).items()
        zeros = [f"{name}: {value}" for name, value in given if value == 0 and not isinstance(value, bool)]
        what = f" with {', '.join(zeros)}" if zeros else ""
        raise ValueError(f"there are steps that cannot be computed{what} ({error})") from error


def _zeros(parameters: Iterable[nn.Parameter]) -> Iterator[nn.Parameter]:
    """One of each number of dimensions, type and device, with a gradient."""
    for ndim, dtype, device in dict.fromkeys((p.ndim, p.dtype, p.device) for p in parameters):
        zero = nn.Parameter(torch.zeros([1] * ndim, dtype=dtype, device=device))
        zero.grad = torch.zeros_like(zero)
        yield zero
