"""Which parameters an optimiser gets, and under which rule."""

from typing import Any

from torch import nn
from torch.optim import Optimizer


def parameter_groups(network: nn.Module, bias_lr_factor: float, bias_weight_decay: bool) -> list[dict[str, Any]]:
    """Trainable parameters, biases apart where the recipe treats them otherwise."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    if bias_lr_factor == 1 and bias_weight_decay:
        return [{"params": [p for _, p in named]}]
    weights = [p for name, p in named if not name.endswith("bias")]
    biases: dict[str, Any] = {
        "params": [p for name, p in named if name.endswith("bias")],
        "lr_factor": bias_lr_factor,
    }
    if not bias_weight_decay:
        biases["weight_decay"] = 0.0
    return [group for group in ({"params": weights}, biases) if group["params"]]


def apply_lr_factors(optimizer: Optimizer) -> None:
    """Turn each group's `lr_factor` into its learning rate; before a scheduler reads it."""
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("lr_factor", 1.0)
