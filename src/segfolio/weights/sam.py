"""State dicts of SAM and its kin, under the names of the authors' releases."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from segfolio.errors import SegfolioError
from segfolio.weights.backbones import released_state
from segfolio.weights.files import load_weights, read_file

FROM_TRANSFORMERS = (
    (r"^shared_image_embedding\.positional_embedding", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^vision_encoder\.layers", "image_encoder.blocks"),
    (r"^vision_encoder\.patch_embed\.projection", "image_encoder.patch_embed.proj"),
    (r"^vision_encoder", "image_encoder"),
    (r"neck\.conv(\d)", lambda m: f"neck.{2 * int(m[1]) - 2}"),
    (r"neck\.layer_norm(\d)", lambda m: f"neck.{2 * int(m[1]) - 1}"),
    (r"mask_embed\.conv(\d)", lambda m: f"mask_downscaling.{3 * int(m[1]) - 3}"),
    (r"mask_embed\.layer_norm(\d)", lambda m: f"mask_downscaling.{3 * int(m[1]) - 2}"),
    (r"\.point_embed\.", ".point_embeddings."),
    (r"upscale_conv(\d)", lambda m: f"output_upscaling.{3 * int(m[1]) - 3}"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"(mlps\.\d|prediction_head)\.layers\.(\d)", lambda m: f"{m[1]}.layers.{int(m[2]) + 1}"),
    (r"(mlps\.\d|prediction_head)\.proj_in", r"\1.layers.0"),
    (r"(mlps\.\d|prediction_head)\.proj_out", r"\1.layers.2"),
    (r"layer_norm_final_attn", "norm_final_attn"),
    (r"layer_norm(\d)", r"norm\1"),
)
TWICE = "prompt_encoder.shared_embedding.positional_embedding"  # in transformers


def load_sam(network: nn.Module, weights: str, variants: Mapping[str, Mapping[str, Any]]) -> None:
    """Load `weights` into a SAM.

    Args:
        weights: a file with a state dict of the authors' release, of transformers' `SamModel` or of `network`; or a
            folder or a repository of the hub with that model.
        variants: the sizes of SAM, of which the error tells.

    Raises:
        SegfolioError: weights that are not to be had, of another size, or of another network.
    """
    from transformers import SamModel

    if Path(weights).is_file():
        state = read_file(Path(weights))
    elif Path(weights).is_dir() or "/" in weights:
        state = released_state(SamModel, weights)
    else:
        raise SegfolioError(
            f"{weights} is neither a file nor a repository of the hub; expected e.g. sam_vit_b_01ec64.pth or "
            "facebook/sam-vit-base"
        )
    state = from_transformers(state)
    _check_size(network.state_dict(), state, weights, variants)
    _check_attention(network.state_dict(), state, weights)
    load_weights(network, fitted_positions(state, network.state_dict()), weights)


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with transformers' names renamed to the release's; one with these is left as it is."""
    if not any(key.startswith("vision_encoder.") for key in state):
        return dict(state)
    renamed = {}
    for key, value in state.items():
        if key != TWICE:
            for pattern, name in FROM_TRANSFORMERS:
                key = re.sub(pattern, name, key)
            renamed[key] = value
    return renamed


def fitted_positions(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with its tables of positions, absolute and relative, interpolated to the size that `own` has."""
    fitted = dict(state)
    for key in own.keys() & state.keys():
        given, wanted = state[key], own[key]
        if given.ndim != wanted.ndim or given.shape == wanted.shape or given.shape[-1] != wanted.shape[-1]:
            continue
        if key.endswith("pos_embed"):  # [1, h, w, D]
            grid = given.permute(0, 3, 1, 2).float()
            grid = interpolate(grid, wanted.shape[1:3], mode="bicubic", antialias=True)
            fitted[key] = grid.permute(0, 2, 3, 1).to(given.dtype)
        elif re.search(r"rel_pos_[hw]$", key):  # [2 * side - 1, D]
            line = interpolate(given.T[None].float(), len(wanted), mode="linear")
            fitted[key] = line[0].T.to(given.dtype)
    return fitted


def _check_size(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], weights: str, variants: Mapping[str, Mapping[str, Any]]
) -> None:
    given, wanted = _size(state), _size(own)
    if given is None or wanted is None or given == wanted:
        return
    names = {(arguments.get("width", 768), arguments.get("depth", 12)): name for name, arguments in variants.items()}
    texts = [
        f"{names.get(size, 'another SAM')} ({size[1]} blocks of width {size[0]} in the image encoder)"
        for size in (given, wanted)
    ]
    raise SegfolioError(f"{weights} is of {texts[0]} and this network is {texts[1]}; take weights or arguments of one")


def _check_attention(own: Mapping[str, Tensor], state: Mapping[str, Tensor], weights: str) -> None:
    """Tables of other windows, or of other blocks that attend to all, would be interpolated."""
    given, wanted = _windows(state), _windows(own)
    if any(given) and any(wanted) and given != wanted:
        there, here = (
            f"window: {max(sides)} and global_blocks: {[i for i, side in enumerate(sides) if not side]}"
            for sides in (given, wanted)
        )
        raise SegfolioError(
            f"{weights} is of a SAM with {there}, and this network has {here}; give it those of the file"
        )


def _windows(state: Mapping[str, Tensor]) -> list[int]:
    """The side of each block's windows; 0 of one that attends to all, or whose windows are as large."""
    if (positions := state.get("image_encoder.pos_embed")) is None:
        return []
    tables = {int(key.split(".")[2]): len(table) for key, table in state.items() if key.endswith("attn.rel_pos_h")}
    sides = [(tables[i] + 1) // 2 for i in sorted(tables)]
    return [0 if side == positions.shape[1] else side for side in sides]


def _size(state: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Width and depth of the image encoder; None if there is none of SAM's."""
    if (patches := state.get("image_encoder.patch_embed.proj.weight")) is None:
        return None
    blocks = {key.split(".")[2] for key in state if key.startswith("image_encoder.blocks.")}
    return len(patches), len(blocks)
