"""DINOv3's encoders: where their weights are, under which names, and under which licence."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Mlp
from timm.models import get_pretrained_cfg
from timm.models.eva import Eva
from torch import Tensor

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import check_timm_name
from segfolio.weights.backbones import from_timm
from segfolio.weights.files import read_file
from segfolio.weights.hub import SAFE, fetch, read_repository

ENCODER = ("embeddings.", "layers.", "layernorm.")
_TIMM = (  # of transformers' EoMT, to timm's
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^embeddings\.register_tokens", "reg_token"),
    (r"^embeddings\.patch_embeddings", "patch_embed.proj"),
    (r"^layernorm", "norm"),
    (r"^layers", "blocks"),
    (r"attention\.o_proj", "attn.proj"),
    (r"layer_scale(\d)\.lambda1", r"gamma_\1"),
    (r"mlp\.up_proj", "mlp.fc1"),
    (r"mlp\.down_proj", "mlp.fc2"),
)
_KEYS = (  # of Meta's repositories on the hub, and of the authors' releases of EoMT, to transformers' EoMT
    (r"^(network\.)?encoder\.backbone\.patch_embed\.", "embeddings."),
    (r"^(network\.)?encoder\.backbone\.blocks\.", "layers."),
    (r"^(network\.)?encoder\.backbone\.norm\.", "layernorm."),
    (r"^(model\.)?layer\.", "layers."),
    (r"^norm\.", "layernorm."),
    (r"^(network\.)?q\.", "query."),
    (r"^(network\.)?class_head\.", "class_predictor."),
    (r"^(network\.)?mask_head\.([024])\.", lambda found: f"mask_head.fc{int(found[2]) // 2 + 1}."),
    (r"^(network\.)?upscale\.(\d+)\.conv", r"upscale_block.block.\2.conv"),
    (r"^(network\.)?upscale\.(\d+)\.norm", r"upscale_block.block.\2.layernorm2d"),
    (r"^(network\.)?attn_mask_probs", "_extra_state"),
)
_LEFT_OUT = ("embeddings.mask_token", "criterion.", "encoder.pixel_", "network.encoder.pixel_")


def dinov3(name: str, backbone: str, size: Mapping[str, int] | None = None) -> Any:
    """timm's ViT of DINOv3, without memory.

    Args:
        name: of the network that it is for.
        size: arguments of timm's constructor, where it is to be of another size.

    Raises:
        SegfolioError: another backbone, or one with gated layers.
    """
    check_timm_name(backbone)
    vit: Any = None
    if "dinov3" in backbone:
        with torch.device("meta"):
            vit = timm.create_model(backbone, num_classes=0, **(size or {}))
    if not isinstance(vit, Eva) or type(vit.blocks[0].mlp) is not Mlp:
        raise SegfolioError(
            f"{name} is of a plain ViT of DINOv3 without gated layers, e.g. vit_large_patch16_dinov3_qkvb, not of "
            f"{backbone}"
        )
    return vit


def read_named(weights: str, backbone: str) -> dict[str, Tensor]:
    """The state dict that `weights` names: a file, a tag of timm's weights for `backbone`, a repository of the hub or
    a folder like one.

    Raises:
        SegfolioError: weights that are not to be had.
    """
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{backbone}.*")]
    if Path(weights).is_file():
        return read_file(Path(weights))
    if weights in tags:
        return read_file(fetch(get_pretrained_cfg(f"{backbone}.{weights}").hf_hub_id, SAFE) / SAFE)
    if Path(weights).is_dir() or "/" in weights:
        return read_repository(weights)
    raise SegfolioError(
        f"{weights} is neither a file, nor a repository of the hub, nor a tag of timm's weights for {backbone} "
        f"({', '.join(tags) or 'none'})"
    )


def of_eomt(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of Meta's, of timm's, of EoMT's authors' or of transformers, under the names of transformers' EoMT.

    Args:
        own: the network's.
    """
    if "blocks.0.gamma_1" in state:
        found = from_timm(own, state, _TIMM)
        for key, value in own.items():
            if place := re.fullmatch(r"layers\.(\d+)\.attention\.([qv])_proj\.bias", key):  # of one kind of timm's
                found[key] = state.get(f"blocks.{place[1]}.attn.{place[2]}_bias", torch.zeros_like(value))
        return found
    renamed = {}
    for key, value in state.items():
        theirs = key
        for pattern, name in _KEYS:
            theirs = re.sub(pattern, name, theirs)
        if not theirs.startswith(_LEFT_OUT):
            renamed[theirs] = value
    return renamed


def with_delta(state: Mapping[str, Tensor], delta: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """An encoder's weights with what a release adds to them, and what it has beside the encoder.

    Raises:
        SegfolioError: a delta of another encoder.
    """
    of_encoder = {key for key in delta if key.startswith(ENCODER)}
    if differing := [key for key in of_encoder if key not in state or state[key].shape != delta[key].shape]:
        raise SegfolioError(
            f"{source} is no delta of these weights: {min(differing)} differs; give `weights` those of its DINOv3"
        )
    return dict(state) | {key: state[key] + value if key in of_encoder else value for key, value in delta.items()}
