"""`StepSeed`: what is random in a step is a function of the seed, the step and the process."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class StepSeed(Callback):
    """Seeds torch, NumPy and Python anew for every forward pass of training.

    Dropout and whatever else draws from the global generators then needs no state in a checkpoint, of any
    process or device: a run that is resumed at a step draws there what the uninterrupted run drew.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        key = (self.seed, trainer.global_rank, trainer.fit_loop.total_batch_idx)
        state = int(np.random.SeedSequence(key).generate_state(1)[0])
        torch.manual_seed(state)
        np.random.seed(state)  # noqa: NPY002  (the global generator is what is seeded)
        random.seed(state)
