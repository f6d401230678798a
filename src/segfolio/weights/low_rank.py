"""State dicts of networks that were adapted by low rank (LoRA; Hu et al., 2021, arXiv 2106.09685), by `peft`."""

from collections.abc import Mapping

from torch import Tensor

_BASE, _DOWN, _UP = "base_layer.", "lora_A.default.weight", "lora_B.default.weight"


def merged(weights: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """A state dict with low-rank products, as that of a network without: added to the weights that they belong to."""
    plain = {}
    for name, value in weights.items():
        layer, base, rest = name.rpartition(_BASE)
        if base and rest == "weight":
            product = weights[layer + _UP].float() @ weights[layer + _DOWN].float()
            value = (value.float() + scale * product).to(value.dtype)
        if ".lora_A." not in name and ".lora_B." not in name:
            plain[layer + rest] = value
    return plain
