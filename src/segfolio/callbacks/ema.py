"""`EMA`: what is evaluated and kept of a run is the moving average of its weights."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from segfolio.errors import SegfolioError


class EMA(WeightAveraging):
    """An exponential moving average of weights and buffers, updated at each optimiser step (arXiv 1503.01780).

    Validation, test and the `state_dict` of checkpoints are of the average; training goes on with the weights
    themselves, which the checkpoints hold as well, under `current_model_state`. Any family can have it:

        trainer:
          callbacks:
            - class_path: segfolio.callbacks.ema.EMA
              init_args: {decay: 0.9999, ramp: 2000}

    Args:
        decay: the part of the average that stays at a step.
        ramp: it grows to `decay` as 1 - exp(-steps / ramp), so that the first weights are soon forgotten; 0 for none.

    Raises:
        SegfolioError: a number outside its range; before training, a `trainer.precision` in which weights are not kept
            in float32, and small changes of the average would be lost.
    """

    def __init__(self, decay: float = 0.9999, ramp: float = 2000.0) -> None:
        if not 0 <= decay < 1 or ramp < 0:
            raise SegfolioError(f"EMA: decay is {decay}, ramp {ramp}; expected 0 <= decay < 1 and ramp >= 0")
        self.decay, self.ramp = decay, ramp
        self._shown = False  # whether the module has the average's values now
        super().__init__(multi_avg_fn=self._update)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.precision.endswith("-true") and trainer.precision != "32-true":
            raise SegfolioError(
                f"EMA averages weights in float32, but trainer.precision is {trainer.precision}; give bf16-mixed, "
                "16-mixed or 32-true"
            )
        super().setup(trainer, pl_module, stage)

    def decay_after(self, steps: int) -> float:
        """How much of the average stays, after so many updates."""
        return self.decay * (1 - math.exp(-steps / self.ramp)) if self.ramp else self.decay

    @torch.no_grad()
    def _update(self, averaged: Any, current: Any, steps: Tensor | int) -> None:
        kept = self.decay_after(int(steps))
        for average, weight in zip(averaged, current, strict=True):
            if average.is_floating_point():
                average.lerp_(weight, 1 - kept)
            else:  # a count
                average.copy_(weight)

    def _swap_models(self, pl_module: LightningModule) -> None:
        super()._swap_models(pl_module)
        self._shown = not self._shown

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The module has the average from here on; the last checkpoint still holds both."""
        self._swap_models(pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Inside a validation and at the end as well, when the two have changed places."""
        if self._average_model is None:
            return
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._shown:
            pair = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint["state_dict"], checkpoint["current_model_state"] = pair
        states = (checkpoint["state_dict"], checkpoint["current_model_state"])
        for key, value in pl_module.state_dict().items():
            if key.endswith("_extra_state"):  # what is neither weight nor buffer has no average
                for state in states:
                    state[key] = value

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
