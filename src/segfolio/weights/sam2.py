"""State dicts of SAM 2: those of the authors' release and of transformers, under our names."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segfolio.errors import SegfolioError
from segfolio.weights.backbones import released_state
from segfolio.weights.files import load_weights, read_file
from segfolio.weights.hub import PICKLED, SAFE, fetch

FROM_RELEASE = (
    (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
    (r"^mask_decoder\.(conv_s\d)", r"image_encoder.\1"),
    (r"mlp\.layers\.(\d)", lambda m: f"mlp.lin{int(m[1]) + 1}"),
)
FROM_TRANSFORMERS = (
    (r"^shared_image_embedding\.positional_embedding", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^vision_encoder\.backbone\.patch_embed\.projection", "image_encoder.trunk.patch_embed.proj"),
    (r"^vision_encoder\.backbone", "image_encoder.trunk"),
    (r"^vision_encoder\.neck\.convs\.(\d)", r"image_encoder.neck.convs.\1.conv"),
    (r"^mask_decoder\.(conv_s\d)", r"image_encoder.\1"),
    (r"mask_embed\.conv(\d)", lambda m: f"mask_downscaling.{3 * int(m[1]) - 3}"),
    (r"mask_embed\.layer_norm(\d)", lambda m: f"mask_downscaling.{3 * int(m[1]) - 2}"),
    (r"upscale_conv(\d)", lambda m: f"output_upscaling.{3 * int(m[1]) - 3}"),
    (r"upscale_layer_norm", "output_upscaling.1"),
    (r"^memory_encoder\.mask_downsampler\.layers\.(\d)\.conv", lambda m: _downsampler(3 * int(m[1]))),
    (r"^memory_encoder\.mask_downsampler\.layers\.(\d)\.layer_norm", lambda m: _downsampler(3 * int(m[1]) + 1)),
    (r"^memory_encoder\.mask_downsampler\.final_conv", lambda _: _downsampler(12)),
    (r"^memory_encoder\.feature_projection", "memory_encoder.pix_feat_proj"),
    (r"^memory_encoder\.projection", "memory_encoder.out_proj"),
    (r"^memory_encoder\.memory_fuser", "memory_encoder.fuser"),
    (r"depthwise_conv", "dwconv"),
    (r"pointwise_conv", "pwconv"),
    (r"(fuser\.layers\.\d)\.scale$", r"\1.gamma"),
    (r"^memory_temporal_positional_encoding", "maskmem_tpos_enc"),
    (r"^no_memory_embedding", "no_mem_embed"),
    (r"^no_memory_positional_encoding", "no_mem_pos_enc"),
    (r"^no_object_pointer", "no_obj_ptr"),
    (r"^occlusion_spatial_embedding_parameter", "no_obj_embed_spatial"),
    (r"^object_pointer_proj", "obj_ptr_proj"),
    (r"^temporal_positional_encoding_projection_layer", "obj_ptr_tpos_proj"),
    (r"\.o_proj\.", ".out_proj."),
    (r"mlp\.proj_in", "mlp.lin1"),
    (r"mlp\.proj_out", "mlp.lin2"),
    (r"(mlps\.\d|_head|ptr_proj)\.layers\.(\d)", lambda m: f"{m[1]}.layers.{int(m[2]) + 1}"),
    (r"(mlps\.\d|_head|ptr_proj)\.proj_in", r"\1.layers.0"),
    (r"(mlps\.\d|_head|ptr_proj)\.proj_out", r"\1.layers.2"),
    (r"layer_norm_final_attn", "norm_final_attn"),
    (r"layer_norm", "norm"),
)
POINTS = "prompt_encoder.point_embed.weight"  # one table of four in transformers
LEFT_OUT = ("prompt_encoder.shared_embedding.", "no_mem_pos_enc")  # a second copy; what nothing reads
MEMORY = (
    *("memory_", "maskmem_tpos_enc", "no_obj_ptr", "no_obj_embed_spatial", "mask_downsample.", "obj_ptr_"),
    "spatial_perceiver.",
)  # what a network of images does not have
MODELS = {"sam2": "Sam2Model", "sam2_video": "Sam2VideoModel"}
OF_VERSION = "obj_ptr_tpos_proj.weight"  # from 2.1 on


def load_sam2(network: nn.Module, weights: str, variants: Mapping[str, Mapping[str, Any]]) -> None:
    """Load `weights` into a SAM 2.

    Args:
        weights: a file with a state dict of the authors' release, of transformers' `Sam2Model` or `Sam2VideoModel`, or
            of `network`; or a folder or a repository of the hub with such a model.
        variants: the sizes of SAM 2, of which the error tells.

    Raises:
        SegfolioError: weights that are not to be had, of another size or version, or of another network.
    """
    state = under_our_names(state_at(weights, MODELS, "sam2.1_hiera_tiny.pt or facebook/sam2.1-hiera-tiny"))
    own = network.state_dict()
    _check_size(own, state, weights, variants)
    if any(key.startswith(MEMORY) for key in state):
        _check_version(own, state, weights)
    load_with_memory(network, state, weights)


def state_at(weights: str, models: Mapping[str, str], example: str) -> dict[str, Tensor]:
    """The state dict of a file, or of a model of transformers in a folder or in a repository of the hub.

    Args:
        models: the names of its class, by the `model_type` of the folder's `config.json`.
        example: for the error.

    Raises:
        SegfolioError: weights that are not to be had.
    """
    if Path(weights).is_file():
        return read_file(Path(weights))
    if Path(weights).is_dir() or "/" in weights:
        return _released(weights, models)
    raise SegfolioError(f"{weights} is neither a file nor a repository of the hub; expected e.g. {example}")


def load_with_memory(network: nn.Module, state: Mapping[str, Tensor], weights: str) -> None:
    """Load a state dict under our names; where it is of images alone, the memory stays as it is, which is told."""
    if any(key.startswith(MEMORY) for key in state):
        load_weights(network, state, weights)
    else:
        load_weights(network, state, weights, new=MEMORY)
        warnings.warn(
            f"{weights} are weights for images alone: the memory begins with random weights, and a video cannot be "
            "followed until it is trained; for videos take those of the release, or of transformers' model of videos",
            stacklevel=3,
        )


def under_our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the release or of transformers under our names, without what is not used; ours as it is."""
    names = FROM_TRANSFORMERS if any(key.startswith("vision_encoder.") for key in state) else FROM_RELEASE
    renamed = dict[str, Tensor]()
    for key, value in state.items():
        if key == POINTS:
            renamed |= {f"prompt_encoder.point_embeddings.{i}.weight": row[None] for i, row in enumerate(value)}
            continue
        for pattern, name in names:
            key = re.sub(pattern, name, key)
        if not key.startswith(LEFT_OUT):
            renamed[key] = value
    return renamed


def _released(repository: str, models: Mapping[str, str]) -> dict[str, Tensor]:
    """Of the class that the folder's `config.json` names: one for videos is not the same for images."""
    import transformers

    folder = Path(repository) if Path(repository).is_dir() else fetch(repository, SAFE, PICKLED)
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (OSError, ValueError) as error:
        raise SegfolioError(f"{folder} has no config.json of a model of transformers: {error}") from error
    if kind not in models:
        raise SegfolioError(f"{folder} holds a model of the type {kind}, expected {' or '.join(models)}")
    return released_state(getattr(transformers, models[kind]), str(folder))


def _downsampler(place: int) -> str:
    return f"memory_encoder.mask_downsampler.encoder.{place}"


def _check_version(own: Mapping[str, Tensor], state: Mapping[str, Tensor], weights: str) -> None:
    given, wanted = (("2.1" if OF_VERSION in each else "2.0") for each in (state, own))
    if given != wanted:
        raise SegfolioError(
            f'{weights} is of SAM {given} and this network is SAM {wanted}; give the network version: "{given}"'
        )


def _check_size(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], weights: str, variants: Mapping[str, Mapping[str, Any]]
) -> None:
    given, wanted = _size(state), _size(own)
    if given is None or wanted is None or given == wanted:
        return
    names = {
        (arguments.get("width", 96), sum(arguments.get("stages", (1, 2, 7, 2)))): name.rpartition(", ")[2]
        for name, arguments in variants.items()
    }
    texts = [
        f"{names.get(size, 'another Hiera')} ({size[1]} blocks, the first of width {size[0]})"
        for size in (given, wanted)
    ]
    raise SegfolioError(f"{weights} is of {texts[0]} and this network of {texts[1]}; take weights or arguments of one")


def _size(state: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Width and depth of the image encoder; None if there is none of SAM 2's."""
    if (patches := state.get("image_encoder.trunk.patch_embed.proj.weight")) is None:
        return None
    blocks = {key.split(".")[3] for key in state if key.startswith("image_encoder.trunk.blocks.")}
    return len(patches), len(blocks)
