"""Which parameters an optimiser gets, and under which rule."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from segfolio.errors import SegfolioError

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.Embedding)


def parameter_groups(
    network: nn.Module,
    bias_lr_factor: float = 1.0,
    bias_weight_decay: bool = True,
    lr_factors: Mapping[str, float] | None = None,
    norm_weight_decay: bool = True,
) -> list[dict[str, Any]]:
    """Trainable parameters, those apart that the recipe treats otherwise.

    Args:
        bias_lr_factor: learning rate of biases over that of weights.
        bias_weight_decay: whether biases decay.
        lr_factors: learning rate of a part of the network over that of the rest, by the beginning of its
            parameters' names.
        norm_weight_decay: whether normalisations and embeddings decay, those of positions among them.

    Raises:
        SegfolioError: a part that the network does not have.
    """
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    lr_factors = dict(lr_factors or {})
    if unknown := [part for part in lr_factors if not any(name.startswith(part) for name in named)]:
        parts = dict.fromkeys(".".join(name.split(".")[:2]) for name in named)
        raise SegfolioError(f"model.lr_factors names {unknown[0]!r}; the network has {', '.join(parts)}")
    normalising = {id(p) for m in network.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, p in named.items():
        factor = next((f for part, f in lr_factors.items() if name.startswith(part)), 1.0)
        decays = norm_weight_decay or not (id(p) in normalising or "position" in name)
        if name.endswith("bias"):
            factor, decays = factor * bias_lr_factor, decays and bias_weight_decay
        rule = {"lr_factor": factor} | ({} if decays else {"weight_decay": 0.0})
        groups.setdefault((factor, decays), {"params": [], **rule})["params"].append(p)
    return list(groups.values())


def apply_lr_factors(optimizer: Optimizer) -> None:
    """Turn each group's `lr_factor` into its learning rate; before a scheduler reads it."""
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("lr_factor", 1.0)
