"""Backbones by timm's names for networks built on transformers' modules, and their pretrained weights."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
from timm.models import get_pretrained_cfg
from timm.models.swin_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn.functional import pad

from segfolio.errors import SegfolioError
from segfolio.layers.weights import load_weights, read_file

SAFE = "model.safetensors"
STRIDES = (4, 8, 16, 32)
SWINS = {  # channels of the first stage, blocks, heads
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
SWIN_NAME = re.compile(r"swin_([a-z]+)_patch4_window(\d+)_\d+")
SWIN_KEYS = (  # of either of transformers' two Swins, to timm's
    (r"^(model|swin)\.", ""),
    (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^embeddings\.norm", "patch_embed.norm"),
    (r"^encoder\.", ""),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^layernorm", "norm"),
    (r"attention\.(output\.dense|o_proj)", "attn.proj"),
    (r"attention\.(self|relative_position_bias)\.relative", "attn.relative"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
    (r"layers\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample"),
)
PARTS = {"q": 0, "k": 1, "v": 2}  # of timm's `attn.qkv`
PART = re.compile(r"attention\.(?:self\.)?(?:([qkv])_proj|(query|key|value))")


def backbone_config(backbone: str) -> Any:
    """transformers' configuration of the backbone that timm calls `backbone`, without weights.

    A Swin is transformers' own, with the stochastic depth of 0.3 of MaskFormer's recipes: it takes images of any
    size, and released weights of MaskFormer and Mask2Former are under its names. Any other is timm's.

    Raises:
        SegfolioError: an unknown name, or one that has no features of strides 4, 8, 16 and 32.
    """
    from transformers import SwinConfig, TimmBackboneConfig

    if (swin := SWIN_NAME.fullmatch(backbone)) and swin[1] in SWINS:
        channels, blocks, heads = SWINS[swin[1]]
        return SwinConfig(
            embed_dim=channels,
            depths=blocks,
            num_heads=heads,
            window_size=int(swin[2]),
            drop_path_rate=0.3,
            out_features=["stage1", "stage2", "stage3", "stage4"],  # type: ignore[call-arg]
        )
    check_timm_name(backbone)
    try:
        with torch.device("meta"):
            strides = timm.create_model(backbone, features_only=True).feature_info.reduction()
        indices = [strides.index(stride) for stride in STRIDES]
    except (AssertionError, AttributeError, RuntimeError, ValueError) as error:
        raise SegfolioError(f"backbone {backbone} has no features of strides 4, 8, 16 and 32; take another") from error
    return TimmBackboneConfig(backbone=backbone, out_indices=indices)  # type: ignore[call-arg]


def check_timm_name(backbone: str) -> None:
    known = timm.list_models()
    if backbone not in known:
        near = difflib.get_close_matches(backbone, known, n=6, cutoff=0.5)
        raise SegfolioError(f"timm has no backbone {backbone!r}; did you mean one of {', '.join(near) or 'none'}?")


def freeze_unused(encoder: Any) -> None:
    """Freeze the norm that ends transformers' Swins and whose output nothing reads: DDP waits for its gradient."""
    for swin in (getattr(encoder, "model", None), getattr(encoder, "swin", None)):
        if swin is not None:
            swin.layernorm.requires_grad_(False)


def pad_to(images: Tensor, multiple: int) -> Tensor:
    """Zeros, the mean of normalised images, on the right and below, as in the authors' evaluation."""
    height, width = images.shape[-2:]
    return pad(images, (0, -width % multiple, 0, -height % multiple))


def crop_quarter(maps: Tensor, images: Tensor) -> Tensor:
    """The part of `[..., h, w]` of stride 4 that covers `images` without their padding."""
    height, width = images.shape[-2:]
    return maps[..., : -(-height // 4), : -(-width // 4)]


def load_pretrained(
    network: nn.Module,
    weights: str,
    backbone: str,
    released: Any,
    load_backbone: Callable[[dict[str, Tensor]], None],
) -> None:
    """Load `weights` into `network`, or into its backbone alone.

    Args:
        weights: a tag of timm's weights for `backbone`, e.g. `tv_in1k`; a repository of the Hugging Face hub or a
            folder with weights for transformers' class `released`, e.g. `facebook/maskformer-swin-tiny-ade`; or a
            file with a state dict of timm's `backbone`, of that class or of `network`.
        released: None where transformers has no such class.
        load_backbone: called with timm's state dict, where `weights` is that.

    Raises:
        SegfolioError: weights that are not to be had, or do not fit.
    """
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{backbone}.*")]
    if Path(weights).is_file():
        state = read_file(Path(weights))
    elif weights in tags:
        state = read_file(_fetch(get_pretrained_cfg(f"{backbone}.{weights}").hf_hub_id, SAFE) / SAFE)
    elif released is not None and (Path(weights).is_dir() or "/" in weights):
        state = _released(released, weights)
    else:
        hub = "" if released is None else "nor a repository of the hub, "
        raise SegfolioError(
            f"{weights} is neither a file, {hub}nor a tag of timm's weights for {backbone} "
            f"({', '.join(tags) or 'none'})"
        )
    if network.state_dict().keys() & state.keys():
        state.pop("criterion.empty_weight", None)  # of transformers' loss
        load_weights(network, {_own_key(k): v for k, v in state.items()}, weights)
    else:
        load_backbone(state)


def load_encoder(encoder: Any, state: Mapping[str, Tensor], weights: str, backbone: str) -> None:
    """Load timm's state dict of `backbone`, classifier or not, into the encoder that `backbone_config` describes."""
    if hasattr(encoder, "_backbone"):
        own = encoder._backbone.state_dict()
        flat = {key.replace(".", "_"): value for key, value in state.items()}  # features are renamed by timm
        renamed = {key: flat[key.replace(".", "_")] for key in own if key.replace(".", "_") in flat}
        load_weights(encoder._backbone, renamed, weights)
        return
    with torch.device("meta"):
        swin = timm.create_model(backbone)
    try:
        state = checkpoint_filter_fn(dict(state), swin)  # the original release's names, other windows
    except AttributeError as error:
        raise SegfolioError(f"{weights} does not hold weights of {backbone}: {error}") from error
    own = encoder.state_dict()
    index = {key: value for key, value in own.items() if key.endswith("relative_position_index")}  # is no weight
    new = ("hidden_states_norms", "model.layernorm", "swin.layernorm")
    load_weights(encoder, from_timm(own, state, SWIN_KEYS) | index, weights, new=new)


def from_timm(keys: Iterable[str], state: Mapping[str, Tensor], names: Iterable[tuple[str, Any]]) -> dict[str, Tensor]:
    """Those of transformers' `keys` that timm's `state` has, renamed by the patterns of `names`.

    Query, key and value, one weight in timm, are three.
    """
    converted = {}
    for key in keys:
        theirs = PART.sub("attn.qkv", key)
        for pattern, name in names:
            theirs = re.sub(pattern, name, theirs)
        if theirs in state:
            part = PART.search(key)
            converted[key] = state[theirs].chunk(3)[PARTS[(part[1] or part[2])[0]]] if part else state[theirs]
    return converted


def _released(model: Any, repository: str) -> dict[str, Tensor]:
    """The state dict of a released model, under the names of the installed transformers."""
    folder = Path(repository) if Path(repository).is_dir() else _fetch(repository, SAFE, "pytorch_model.bin")
    try:
        return model.from_pretrained(folder).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise SegfolioError(f"{folder} does not hold weights for transformers' {model.__name__}: {error}") from error


def _fetch(repository: str, *files: str) -> Path:
    """The hub's repository in its cache, downloaded once: its configuration and those of `files` that it has."""
    for file in files:
        if isinstance(cached := try_to_load_from_cache(repository, file), str):
            return Path(cached).parent
    try:
        return Path(snapshot_download(repository, allow_patterns=["config.json", *files], etag_timeout=3))
    except (OSError, ValueError) as error:  # the hub's ways to say that there is no network
        raise SegfolioError(
            f"{repository} is not in {constants.HF_HUB_CACHE}, nor to be downloaded; run `hf download {repository}` "
            "where there is a network and copy its cache to there"
        ) from error


def _own_key(key: str) -> str:
    """Our name of a weight of a released network: its ResNet is timm's here."""
    key = key.replace("attn_mask_probs", "_extra_state")  # of EoMT
    key = key.replace("encoder.embedder.embedder.convolution", "encoder._backbone.conv1")
    key = key.replace("encoder.embedder.embedder.normalization", "encoder._backbone.bn1")
    block = re.search(r"encoder\.encoder\.stages\.(\d)\.layers\.(\d+)\.(?:shortcut|layer\.(\d))\.(conv|norm)\w+", key)
    if not block:
        return key
    stage, index, layer, kind = block.groups()
    place = f"downsample.{int(kind == 'norm')}" if layer is None else f"{kind.replace('norm', 'bn')}{int(layer) + 1}"
    return key.replace(block[0], f"encoder._backbone.layer{int(stage) + 1}.{index}.{place}")
