"""Callbacks of Lightning that would change a recipe behind its config, or do nothing: what to use instead."""

from collections.abc import Iterable
from typing import Any

from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    Callback,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)

from segfolio.errors import SegfolioError


def check_callbacks(callbacks: Iterable[Callback], trainer: Any) -> None:
    """Refuse callbacks that do not fit.

    Args:
        trainer: its arguments, by name.

    Raises:
        SegfolioError: with what to do in its place.
    """
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, LearningRateFinder):
            raise SegfolioError(
                f"{name} would train at another learning rate than the config says; compare short runs "
                "(--trainer.max_steps 200) of several --model.init_args.optimizer.init_args.lr instead"
            )
        if isinstance(callback, BatchSizeFinder):
            raise SegfolioError(
                f"{name} would train on other batches than the config says; where one of data.batch_size does not fit "
                "into memory, raise --trainer.accumulate_grad_batches, by which a step is divided"
            )
        if isinstance(callback, GradientAccumulationScheduler):
            raise SegfolioError(
                f"{name} would train on steps of other sizes than data.batch_size says; give one number to "
                "--trainer.accumulate_grad_batches, by which a step is divided"
            )
        if isinstance(callback, BackboneFinetuning):
            raise SegfolioError(
                f"{name} looks for a `backbone` of the module and changes the optimiser on the way; train parts of the "
                "network more slowly by model.init_args.parameters.lr_factors, 0 to keep one as it is"
            )
        if isinstance(callback, StochasticWeightAveraging) and trainer.max_epochs in (None, -1):
            raise SegfolioError(
                f"{name} counts epochs, but this training ends after trainer.max_steps and would not be averaged; give "
                "trainer.max_epochs, or take segfolio.callbacks.ema.EMA, which counts steps"
            )
