"""A callback that writes down what a run saw in every step, whichever process saw it."""

import json
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from segfolio.data.sample import Batch

Sight = tuple[str, int, int]
"""Image id, CRC of the augmented image, CRC of its truth."""


class Seen(Callback):
    """Appends every forward pass of training to `<run>/seen-<rank>.jsonl`."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        of_objects = any(target.semantic is None for target in batch.targets)
        truth = [target.segments.form for target in batch.targets] if of_objects else batch.semantic()
        crcs = [[zlib.crc32(t.numpy()) for t in tensors] for tensors in (batch.images, truth)]
        line = {
            "step": trainer.fit_loop.total_batch_idx // trainer.accumulate_grad_batches,
            "samples": list(zip(batch.image_ids, *crcs, strict=True)),
            "loss": float(outputs["loss"]) / trainer.world_size,  # Lightning has divided it by the accumulated
        }
        with Path(trainer.default_root_dir, f"seen-{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


def seen(run: Path) -> tuple[list[list[Sight]], torch.Tensor]:
    """Of each optimiser step the samples in order, and the loss."""
    ranks = [list(map(json.loads, path.read_text().splitlines())) for path in sorted(run.glob("seen-*.jsonl"))]
    samples: dict[int, list[Sight]] = defaultdict(list)
    losses: dict[int, float] = defaultdict(float)
    for passes in zip(*ranks, strict=True):
        for one in passes:
            samples[one["step"]] += map(tuple, one["samples"])
            losses[one["step"]] += one["loss"]
    return list(samples.values()), torch.tensor(list(losses.values()))
