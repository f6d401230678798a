"""State dicts of EdgeTAM: those of the authors' release and of transformers, under our names."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segfolio.errors import SegfolioError
from segfolio.weights import sam2
from segfolio.weights.sam2 import load_with_memory, state_at

MODELS = {"edgetam": "EdgeTamModel", "edgetam_video": "EdgeTamVideoModel"}
ENCODER = "image_encoder.trunk.body."
_LAYER = r"^(spatial_perceiver\.layers\.\d)"
FROM_TRANSFORMERS = (  # where it is not as of SAM 2
    (r"^vision_encoder\.backbone\.timm_model\.", ENCODER),
    (r"^(memory_attention\.layers\.\d)\.mlp\.up_proj", r"\1.linear1"),
    (r"^(memory_attention\.layers\.\d)\.mlp\.down_proj", r"\1.linear2"),
    (r"^spatial_perceiver\.latents_1d", "spatial_perceiver.latents"),
    (rf"{_LAYER}\.cross_attention\.([qkv])_proj", r"\1.attn.to_\2"),
    (rf"{_LAYER}\.self_attention\.([qkv])_proj", r"\1.self_attn.to_\2"),
    (rf"{_LAYER}\.cross_attention\.o_proj", r"\1.attn.to_out"),
    (rf"{_LAYER}\.self_attention\.o_proj", r"\1.self_attn.to_out"),
    (rf"{_LAYER}\.layer_norm_input", r"\1.attn.norm_x"),
    (rf"{_LAYER}\.layer_norm_latents", r"\1.attn.norm_latents"),
    (rf"{_LAYER}\.layer_norm_self", r"\1.self_attn.norm"),
    (rf"{_LAYER}\.(self_)?mlp\.layer_norm", r"\1.\2ff.0"),
    (rf"{_LAYER}\.(self_)?mlp\.up_proj", r"\1.\2ff.1"),
    (rf"{_LAYER}\.(self_)?mlp\.down_proj", r"\1.\2ff.3"),
)


def load_edge_tam(network: nn.Module, weights: str) -> None:
    """Load `weights` into an EdgeTAM.

    Args:
        weights: a file with a state dict of the authors' release, of transformers' `EdgeTamModel` or
            `EdgeTamVideoModel`, or of `network`; or a folder or a repository of the hub with such a model.

    Raises:
        SegfolioError: weights that are not to be had, or of another network.
    """
    state = under_our_names(state_at(weights, MODELS, "edgetam.pt or yonigozlan/EdgeTAM-hf"))
    if not any(key.startswith(ENCODER) for key in state):
        raise SegfolioError(f"{weights} holds no RepViT as image encoder; expected weights of EdgeTAM, as edgetam.pt")
    load_with_memory(network, state, weights)


def under_our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the release or of transformers under our names, without what is not used; ours as it is."""
    renamed = dict[str, Tensor]()
    for key, value in state.items():
        for pattern, name in FROM_TRANSFORMERS:
            key = re.sub(pattern, name, key)
        renamed[key] = value
    for key in [key for key in renamed if key.endswith(".to_k.weight")]:  # keys and values are one layer
        parts = [renamed.pop(key.replace(".to_k.", f".to_{name}.")) for name in "kv"]
        renamed[key.replace(".to_k.", ".to_kv.")] = torch.cat(parts)
    return sam2.under_our_names(renamed)
