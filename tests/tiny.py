"""The smallest run that has everything: for tests of what comes with a run."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from segfolio.callbacks.progress import ProgressBar
from segfolio.figure import HOUSE
from segfolio.tracking import build_loggers


class Tiny(LightningModule):
    main_figure = HOUSE["mIoU"]

    def __init__(self, step: Callable[[], Any] = int, validation: Callable[[], Any] = int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.step, self.validation = step, validation

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.step()
        self.log("train/loss", self.weight.detach())
        return self.weight**2

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validation()
        self.log("val/mIoU", 0.5 + self.current_epoch / 10, batch_size=len(batch))

    test_step = validation_step

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return batch

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.0)


def loader(fetch: Callable[[], Any] = int) -> DataLoader[Any]:
    def collate(items: list[int]) -> Tensor:
        fetch()
        return torch.tensor(items)

    return DataLoader(range(8), 2, collate_fn=collate)  # type: ignore[arg-type]


def trainer(run: Path, *callbacks: Callback, **kwargs: Any) -> Trainer:
    bar = any(isinstance(c, ProgressBar) for c in callbacks)
    quiet = {"enable_progress_bar": bar, "enable_model_summary": False, "enable_checkpointing": False}
    logger = build_loggers(run, "tiny")[:1]  # the file alone
    defaults = {"max_epochs": 2, "log_every_n_steps": 2, "accelerator": "cpu", "default_root_dir": run}
    return Trainer(callbacks=list(callbacks), logger=logger, **{**quiet, **defaults, **kwargs})


def logged(run: Path, name: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
