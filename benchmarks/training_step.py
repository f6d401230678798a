"""A training step through the command's Trainer against a bare PyTorch loop: same network, batch and loader.

The bare loop has no logging, callbacks, progress bar or checks; what they cost is the ratio.
"""

import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback
from torch import nn
from torch.nn.functional import cross_entropy

from segfolio.architectures.encoder_decoder.segnet import SegNetBasic
from segfolio.data.datasets import Shapes
from segfolio.data.module import DataModule
from segfolio.experiment import Experiment
from segfolio.runs import Place

AIMS = {"trainer / bare loop": "<= 1.03"}
STEPS, WARM_UP, BATCH, SIZE = 24, 4, 2, (120, 160)

CONFIG = """
seed_everything: 0
model:
  class_path: segfolio.families.PerPixel
  init_args:
    architecture: {{class_path: {network}}}
    losses: {{ce: {{class_path: segfolio.losses.CrossEntropy}}}}
    optimizer: {{class_path: torch.optim.SGD, init_args: {{lr: 0.01, momentum: 0.9}}}}
data:
  dataset: {{class_path: segfolio.data.datasets.Shapes, init_args: {{size: {size}}}}}
  batch_size: {batch}
  num_workers: 1
trainer: {{max_steps: {steps}, accelerator: cpu, limit_val_batches: 0}}
"""


class Clock(Callback):
    """Seconds from the end of one step to the end of the next: loading, hooks and logging included."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.perf_counter())


def seconds(ends: list[float]) -> list[float]:
    return [b - a for a, b in zip(ends[WARM_UP:], ends[WARM_UP + 1 :], strict=False)]


def through_the_trainer(network: type[nn.Module], folder: Path, steps: int) -> list[float]:
    config = folder / "step.yaml"
    name = f"{network.__module__}.{network.__qualname__}"
    config.write_text(CONFIG.format(network=name, size=list(SIZE), batch=BATCH, steps=steps))
    clock = Clock()

    class Timed(Experiment):
        def callbacks(self) -> list[Callback]:
            return [*super().callbacks(), clock]

    with warnings.catch_warnings(), Place() as place:
        warnings.simplefilter("ignore")
        Timed(["fit", "-c", str(config), "--output", str(folder / "run")], place)
    return seconds(clock.ends)


def bare_loop(architecture: type[nn.Module], steps: int) -> list[float]:
    torch.manual_seed(0)
    data = DataModule(lambda root, split: Shapes(root, split, size=SIZE), batch_size=BATCH, num_workers=1)
    network = architecture(data.labels.num_classes).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    mean = 255 * torch.tensor((0.485, 0.456, 0.406))[:, None, None]
    std = 255 * torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    ends: list[float] = []
    for batch in data.train_dataloader():
        loss = cross_entropy(network((batch.images - mean) / std), batch.semantic(), ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.perf_counter())
        if len(ends) == steps:
            break
    return seconds(ends)


def compare(
    network: type[nn.Module], peer: type[nn.Module] | None = None, steps: int = STEPS, rounds: int = 4
) -> dict[str, float]:
    """The ratio of the steps' medians, of a network that is called with the number of classes; `peer`, if another, is
    that of the bare loop."""
    torch.set_num_threads(2)
    trainer: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):  # in turn, so that a slow minute of the machine is slow for both
            bare += bare_loop(peer or network, steps)
            trainer += through_the_trainer(network, Path(folder), steps)
    ours, peer = statistics.median(trainer), statistics.median(bare)
    print(f"trainer {1e3 * ours:.1f} ms, bare loop {1e3 * peer:.1f} ms a step, {len(bare)} steps each")
    return {"trainer / bare loop": ours / peer}


def main() -> dict[str, float]:
    return compare(SegNetBasic)


if __name__ == "__main__":
    main()
