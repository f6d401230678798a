"""A training step with the exact loader against the same Trainer with Lightning's usual one.

Exact: `TrainSampler`, a random stream of its own for every sample, `StepSeed`. Usual: `shuffle=True` and one
global generator. Everything runs in one process and one thread, so that no loading hides behind the network,
and the clock is the processor's, so that other processes on the machine do not count.
"""

import logging
import statistics
import tempfile
import time
import warnings
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, Dataset

from segfolio.architectures.encoder_decoder.unet import UNet
from segfolio.callbacks.randomness import StepSeed
from segfolio.data.batches import Clip, collate
from segfolio.data.datasets import Shapes
from segfolio.data.module import DataModule
from segfolio.data.transforms import ColorJitter, RandomWindow
from segfolio.families import PerPixel
from segfolio.losses import CrossEntropy

AIMS = {"exact / plain loader": "<= 1.02"}
STEPS, WARM_UP, ROUNDS, BATCH, SIZE = 12, 2, 11, 4, (96, 96)


class PlainSamples(Dataset[Clip]):
    """Samples augmented out of one global generator."""

    def __init__(self, data: DataModule) -> None:
        self.dataset, self.transforms = data.split(data.train_split), data.train_transforms
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Clip:
        sample = self.dataset[index]
        for transform in self.transforms:
            sample = transform(sample, self.rng)
        return [sample]


class Plain(DataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(PlainSamples(self), self.batch_size, shuffle=True, collate_fn=collate)


class Clock(Callback):
    """Seconds of the processor from the end of one step to the end of the next."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.process_time())

    def seconds(self) -> list[float]:
        return [b - a for a, b in zip(self.ends[WARM_UP:], self.ends[WARM_UP + 1 :], strict=False)]


def steps(exact: bool, folder: str) -> list[float]:
    torch.manual_seed(0)
    clock = Clock()
    data = (DataModule if exact else Plain)(
        lambda root, split: Shapes(root, split, size=SIZE),
        batch_size=BATCH,
        num_workers=0,
        train_transforms=[RandomWindow(SIZE, scale=(0.5, 2.0), hflip=0.5), ColorJitter(0.4, 0.4, 0.4, 0.1)],
    )
    network = partial(UNet, width=16, depth=3, padding="same", batch_norm=True, dropout=0.0)
    model = PerPixel(data.labels, network, {"ce": CrossEntropy()}, optimizer=partial(torch.optim.AdamW, lr=0.003))
    trainer = Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        limit_val_batches=0,
        callbacks=[*([StepSeed(0)] if exact else []), clock],
        use_distributed_sampler=not exact,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(model, data)
    return clock.seconds()


def main() -> dict[str, float]:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    ratios, times = [], []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(ROUNDS):  # in turn, so that a slow minute of the machine is slow for both
            first = i % 2 == 0
            median = {exact: statistics.median(steps(exact, folder)) for exact in (first, not first)}
            ratios.append(median[True] / median[False])
            times.append(median[True])
    print(f"exact {1e3 * statistics.median(times):.1f} ms a step; ratios {min(ratios):.3f} to {max(ratios):.3f}")
    return {"exact / plain loader": statistics.median(ratios)}


if __name__ == "__main__":
    print(main())
