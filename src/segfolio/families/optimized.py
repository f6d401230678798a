"""`Optimized`: a network with its optimiser and schedule, of which parts may be frozen or adapted."""

from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from torch import nn

from segfolio.families.lora import LoRA, add_lora, keep_statistics
from segfolio.families.optimization import ParameterRules, apply_lr_factors, freeze_parts, parameter_groups
from segfolio.families.rehearsal import arithmetic, rehearse
from segfolio.families.schedules import tell_other_plan
from segfolio.layers.again import see_once
from segfolio.mistakes import told_of


class Optimized(LightningModule):
    """What `Trained` says of `network`, `optimizer`, `scheduler`, `parameters` and `lora`."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer],
        scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None,
        rules: ParameterRules,
    ) -> None:
        super().__init__()
        self.network, self.optimizer, self.scheduler, self.rules = network, optimizer, scheduler, rules
        self.lora: LoRA | None = None

    def adapt(self, lora: LoRA | None) -> None:
        """Freeze and adapt parts of the network as it is now, with the weights that it begins with."""
        self.lora = lora
        if lora is not None:
            add_lora(self.network, lora)
        freeze_parts(self.network, self.rules.frozen)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.lora is not None:
            keep_statistics(self.network, self.lora)
        freeze_parts(self.network, self.rules.frozen)
        return self

    def on_train_start(self) -> None:
        if any(isinstance(module, nn.SyncBatchNorm) for module in self.modules()):
            see_once(self)  # they have no hooks of those in whose places they are
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            tell_other_plan(self.lr_schedulers(), self.trainer.estimated_stepping_batches)

    def configure_optimizers(self) -> Any:
        with told_of("model.optimizer"), arithmetic(self.optimizer):
            groups = parameter_groups(self.network, self.rules)
            optimizer = self.optimizer([dict(group) for group in groups])  # which writes into its own
        apply_lr_factors(optimizer)
        with told_of("model.scheduler"), arithmetic(self.scheduler):
            every_step = [{"scheduler": self.scheduler(optimizer), "interval": "step"}] if self.scheduler else []
        rehearse(self.optimizer, self.scheduler, groups)
        return [optimizer], every_step

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        with told_of("model.scheduler"), arithmetic(self.scheduler):
            super().lr_scheduler_step(scheduler, metric)
