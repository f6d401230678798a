"""Low-rank adaptation (LoRA; Hu et al., 2021, arXiv 2106.09685), by `peft`."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from segfolio.errors import SegfolioError
from segfolio.families.batch_norm import freeze
from segfolio.families.optimization import parts_of


@dataclass(frozen=True)
class LoRA:
    """Parts of a network whose weights stay as they are, but for products of two small matrices that are added to them.

    Batch normalisations of these parts keep their statistics. What lies outside the parts is trained as it is.

    Attributes:
        parts: modules of the network, by name, e.g. `image_encoder`.
        targets: the linear layers in them that learn, by the end of their names, e.g. `qkv`.
        rank: of the product.
        alpha: it is multiplied by `alpha / rank`; `rank` if not given.
        dropout: of what enters the product.
    """

    parts: Sequence[str]
    targets: Sequence[str]
    rank: int = 4
    alpha: int | None = None
    dropout: float = 0.0

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank


def add_lora(network: nn.Module, lora: LoRA) -> None:
    """Replace the layers that learn, in place; all else in the parts is frozen.

    Raises:
        SegfolioError: peft is not installed, a part or a linear layer that there is not, a rank below 1.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise SegfolioError("model.lora needs peft; install it with `pip install 'segfolio[lora]'`") from error

    if lora.rank < 1 or not 0 <= lora.dropout < 1:
        raise SegfolioError(
            f"model.lora has rank {lora.rank} and dropout {lora.dropout}; give a rank of 1 or more, and a dropout of 0 "
            "to below 1"
        )
    inside = parts_of(network, lora.parts, "model.lora.parts")
    linear = [
        name
        for name, module in network.named_modules()
        if _within(name, lora.parts) and isinstance(module, nn.Linear) and not _bypassed(network, name)
    ]
    found = [name for name in linear if _ends_with(name, lora.targets)]
    missing = [repr(end) for end in lora.targets if not any(_ends_with(name, [end]) for name in found)]
    if missing or not found:
        ends = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear))
        raise SegfolioError(
            f"model.lora.targets names {missing[0] if missing else 'nothing'}; the linear layers there end in "
            f"{ends or 'nothing, as there are none'}"
        )
    others = [p for name, p in network.named_parameters() if p.requires_grad and not _within(name, lora.parts)]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.rank if lora.alpha is None else lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=found,
    )
    inject_adapter_in_model(config, network)
    for parameter in others:
        parameter.requires_grad_(True)
    for part in inside:
        freeze(part)


def keep_statistics(network: nn.Module, lora: LoRA) -> None:
    """To be repeated after `train()`."""
    for part in lora.parts:
        freeze(network.get_submodule(part))


def _within(name: str, parts: Sequence[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _bypassed(network: nn.Module, name: str) -> bool:
    """Whether a layer is never called, but its weights are read: what is added to it would not be seen."""
    return isinstance(network.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention)


def _ends_with(name: str, ends: Sequence[str]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)
