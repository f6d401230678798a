"""`Trained`: what every training has in common, with labels or without."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segfolio.data.image_space import IMAGENET_MEAN, IMAGENET_STD, RGB, ImageSpace
from segfolio.data.sample import Batch
from segfolio.data.transforms import Transform
from segfolio.families.checkpoint import check_fits, describe
from segfolio.families.lora import LoRA
from segfolio.families.network_input import check_input
from segfolio.families.optimization import ParameterRules
from segfolio.families.optimized import Optimized
from segfolio.families.transfer import transfer
from segfolio.figure import Figure


class Trained(Optimized):
    """A network, its losses, and how it is optimised. Nothing here knows labels.

    A subclass says `compute_losses(batch)`: named scalars, already weighted, whose sum is minimised.

    Args:
        network: what is trained.
        optimizer: called with parameter groups.
        scheduler: called with the optimiser; steps once per optimiser step. Constant if not given.
        mean, std: of the network's input, per channel, in units of the images' value range: 0 to 1 of it.
        parameters: which of the network's parameters are optimised otherwise than the rest, or not at all.
        lora: parts of the network that are adapted by low rank, instead of trained.
        init_from: a checkpoint of another run, to start from the weights that fit; its classes may be others.
        image_space: comes from the dataset.
        main_metric: the figure of validation by which `best.ckpt` is chosen; the family's own if not given.

    Raises:
        SegfolioError: a checkpoint of which nothing fits; rules for parts that are not there; channels that differ.
    """

    main_metric: str = ""  # which of the figures of validation chooses the best checkpoint
    preparation: Transform | None = None  # of each training sample behind the transforms, in the loader's worker
    needs_truth: bool = False  # whether there is nothing to learn from images without labels
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer],
        scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        parameters: ParameterRules = ParameterRules(),  # noqa: B008  it is immutable
        init_from: str | None = None,
        image_space: ImageSpace = RGB,
        main_metric: str | None = None,
        lora: LoRA | None = None,
    ) -> None:
        check_input(network, image_space, mean, std)
        super().__init__(network, optimizer, scheduler, parameters)
        self.main_metric = main_metric or self.main_metric
        self.image_space, (low, high) = image_space, image_space.value_range
        self.register_buffer("mean", low + (high - low) * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", (high - low) * torch.tensor(std)[:, None, None], persistent=False)
        if init_from is not None:
            self.start_from(Path(init_from))
        self.adapt(lora)

    def start_from(self, checkpoint: Path) -> None:
        """Take over the weights of another run that fit."""
        transfer(checkpoint, self.network)

    def forward(self, images: Tensor) -> Any:
        """The network's output for images `[B, C, H, W]` as the dataset has them."""
        return self.network(self.normalize(images))

    def normalize(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` as the dataset has them, to the network's type and range."""
        return (images - self.mean).div_(self.std).to(self.mean.dtype)

    def compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.compute_losses(batch)
        loss = torch.stack(list(losses.values())).sum()
        named = {f"train/loss_{name}": value.detach() for name, value in losses.items()}
        self.log_dict({"train/loss": loss.detach(), **named}, batch_size=len(batch))
        return loss

    def log_figures(self, stage: str, figures: Mapping[str, Tensor | float]) -> None:
        self.log_dict({f"{stage}/{name}": value for name, value in figures.items()})

    @property
    def train_keys(self) -> Sequence[str]:
        """What a training step logs, with `*` for names that are the network's; who logs more says so here."""
        return "train/loss", "train/loss_*"

    @property
    def declared(self) -> Mapping[str, Figure]:
        """The figures that validation and test log, by name."""
        return {}

    @property
    def main_figure(self) -> Figure | None:
        """`main_metric` as it is declared; None where nothing is measured."""
        return self.declared.get(self.main_metric)

    def before_last_checkpoint(self) -> None:
        """What the weights need at the end of training, before they are written for good."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["segfolio"] = describe(self.network, self.image_space, lora=self.lora)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_fits(checkpoint, self.network, self.image_space)
