"""Which parameters an optimiser gets, and under which rule."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from segfolio.errors import SegfolioError

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.Embedding)


@dataclass(frozen=True)
class ParameterRules:
    """Which parameters are optimised otherwise than the rest; none by default.

    Attributes:
        bias_lr_factor: learning rate of biases over that of weights (2 in Caffe's recipes).
        bias_weight_decay: whether biases decay.
        biases_apart: biases are in groups of their own, which a schedule may warm up otherwise.
        lr_factors: learning rate of a part of the network over that of the rest, by the beginning of its
            parameters' names.
        norm_weight_decay: whether normalisations and embeddings decay, those of positions among them.
        lr_decay_per_layer: learning rate of a block over that of the next, by the name of the list that they are in;
            the last block has the full one. It multiplies `lr_factors`.
        lr_full_blocks: how many blocks at the end of such a list have the full one, whatever they are followed by.
        frozen: modules, by name, that are not trained and stay as in evaluation: without dropout, statistics kept.
    """

    bias_lr_factor: float = 1.0
    bias_weight_decay: bool = True
    biases_apart: bool = False
    lr_factors: Mapping[str, float] | None = None
    norm_weight_decay: bool = True
    lr_decay_per_layer: Mapping[str, float] | None = None
    lr_full_blocks: Mapping[str, int] | None = None
    frozen: Sequence[str] = ()


def parts_of(network: nn.Module, names: Sequence[str], said_in: str) -> list[nn.Module]:
    """The modules of these names.

    Raises:
        SegfolioError: one that there is not.
    """
    found = dict(network.named_modules())
    if unknown := [name for name in names if not name or name not in found]:
        parts = ", ".join(name for name, _ in network.named_children())
        raise SegfolioError(f"{said_in} names {unknown[0]!r}; the network has {parts}, and parts of these")
    return [found[name] for name in names]


def freeze_parts(network: nn.Module, names: Sequence[str]) -> None:
    """Keep modules from training; to be repeated after `train()`.

    Raises:
        SegfolioError: a module that there is not.
    """
    for part in parts_of(network, names, "model.parameters.frozen"):
        part.eval().requires_grad_(False)


def parameter_groups(network: nn.Module, rules: ParameterRules) -> list[dict[str, Any]]:
    """Trainable parameters, those apart that the recipe treats otherwise.

    A group has its `lr_factor`, see `apply_lr_factors`, and its `part`: the name by which `lr_factors` or
    `lr_decay_per_layer` speaks of it, or "".

    Raises:
        SegfolioError: a part or a list of blocks that the network does not have; nothing to train.
    """
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    if rules.frozen and not named:
        raise SegfolioError(f"model.parameters.frozen is {list(rules.frozen)}, which leaves nothing to train")
    lr_factors, decay_per_layer = dict(rules.lr_factors or {}), dict(rules.lr_decay_per_layer or {})
    if unknown := [part for part in lr_factors if not any(name.startswith(part) for name in named)]:
        parts = dict.fromkeys(".".join(name.split(".")[:2]) for name in named)
        raise SegfolioError(f"model.parameters.lr_factors names {unknown[0]!r}; the network has {', '.join(parts)}")
    depth = _depth_factors(network, decay_per_layer, dict(rules.lr_full_blocks or {}))
    spoken_of = dict.fromkeys([*lr_factors, *decay_per_layer])
    normalising = {id(p) for m in network.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
    groups: dict[tuple[str, float, bool, bool], dict[str, Any]] = {}
    for name, p in named.items():
        part = next((part for part in spoken_of if name.startswith(part)), "")
        factor = lr_factors.get(part, 1.0) * depth.get(name, 1.0)
        decays = rules.norm_weight_decay or not (id(p) in normalising or "position" in name or "pos_embed" in name)
        if bias := name.endswith("bias"):
            factor, decays = factor * rules.bias_lr_factor, decays and rules.bias_weight_decay
        apart = bias and rules.biases_apart
        rule = {"part": part, "lr_factor": factor} | ({} if decays else {"weight_decay": 0.0})
        rule |= {"biases": True} if apart else {}
        groups.setdefault((part, factor, decays, apart), {"params": [], **rule})["params"].append(p)
    return list(groups.values())


def _depth_factors(network: nn.Module, decays: Mapping[str, float], full: Mapping[str, int]) -> dict[str, float]:
    """Of each parameter of a block: the decay to the power of how many blocks follow; 1 of the last, `full` ones."""
    if unknown := sorted(full.keys() - decays.keys()):
        raise SegfolioError(
            f"model.parameters.lr_full_blocks names {unknown[0]!r}, which lr_decay_per_layer does not; give it a decay"
        )
    names, factors = [name for name, _ in network.named_parameters()], dict[str, float]()
    for part, decay in decays.items():
        block = re.compile(rf"{re.escape(part)}\.(\d+)\.")
        places = {name: int(found[1]) for name in names if (found := block.match(name))}
        if not places:
            lists = dict.fromkeys(found[1] for name in names if (found := re.match(r"(.+?)\.\d+\.", name)))
            raise SegfolioError(
                f"model.parameters.lr_decay_per_layer names {part!r}; the network's lists are "
                f"{', '.join(lists) or 'none'}"
            )
        behind = {name: max(places.values()) - place for name, place in places.items()}
        factors |= {name: 1.0 if n < full.get(part, 1) else decay**n for name, n in behind.items()}
    return factors


def apply_lr_factors(optimizer: Optimizer) -> None:
    """Turn each group's `lr_factor` into its learning rate; before a scheduler reads it."""
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("lr_factor", 1.0)
