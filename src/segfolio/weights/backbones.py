"""Weights of whole backbones: where they are, and under which names their owners keep them."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from timm.models.swin_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torchvision.models import get_model_weights, list_models

from segfolio.errors import SegfolioError
from segfolio.weights.files import load_weights, read_file, read_weights
from segfolio.weights.hub import PICKLED, SAFE, fetch, read_repository
from segfolio.weights.licences import licence_of, tell_licence
from segfolio.weights.names import names_of, of_resnet, unwrapped
from segfolio.weights.packaged import PACKAGES, read_package

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
LEFT_OUT = ("criterion.empty_weight", "encoder.head")  # of transformers' losses, of Segmenter's encoder on ImageNet
PARTS = {"q": 0, "k": 1, "v": 2}  # of timm's `attn.qkv`
PART = re.compile(r"attention\.(?:self\.)?(?:([qkv])_proj|(query|key|value))")


def load_classifier(network: nn.Module, weights: str, backbone: str, load: Callable[[dict[str, Tensor]], None]) -> None:
    """Call `load` with a classifier's state dict; or load `network` whole, where `weights` is a file of its own.

    Args:
        weights: a name of torchvision's weights of `backbone`, a tag of timm's, or a file.

    Raises:
        SegfolioError: weights that are not to be had.
    """
    if backbone in list_models() and weights in get_model_weights(backbone).__members__:
        load(read_weights(weights, backbone))
    elif not Path(weights).is_file() and (Path(weights).is_dir() or "/" in weights):
        raise SegfolioError(f"{weights} is not a file; expected a state dict, or the name of weights for {backbone}")
    else:
        load_pretrained(network, weights, backbone, None, load)


def load_body(body: nn.Module, state: Mapping[str, Tensor], weights: str) -> None:
    """Load those of a classifier's weights, under timm's or torchvision's names, that `body` has.

    Raises:
        SegfolioError: some are missing or of another shape, or of batch normalisations that are others here.
    """
    own = _of_features(body, state)
    if any(key.endswith("running_mean") for key in state) and not any(key.endswith("running_mean") for key in own):
        raise SegfolioError(
            f"{weights}: these weights are of batch normalisation; give norm: frozen (or batch), or no weights"
        )
    load_weights(body, own, weights)


def load_pretrained(
    network: nn.Module,
    weights: str,
    backbone: str,
    released: Any,
    load_backbone: Callable[[dict[str, Tensor]], None],
    fit: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> None:
    """Load `weights` into `network`, or into its backbone alone.

    Args:
        weights: a tag of timm's weights for `backbone`, e.g. `tv_in1k`; a name of `PACKAGES`; a repository of the
            Hugging Face hub or a folder with weights for transformers' class `released`, e.g.
            `facebook/maskformer-swin-tiny-ade`; or a file with a state dict of timm's `backbone`, whatever a library
            has put before its names (see `unwrapped`), of that class or of `network`.
        released: None where transformers has no such class.
        load_backbone: called with timm's state dict, where `weights` is that.
        fit: called with a state dict of all of `network`, whose tables it interpolates.

    Raises:
        SegfolioError: weights that are not to be had, or do not fit.
    """
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{backbone}.*")]
    if Path(weights).is_file():
        state = read_file(Path(weights))
    elif weights in PACKAGES:
        state = read_package(weights, backbone)
    elif weights in tags:
        state = read_file(fetch(get_pretrained_cfg(f"{backbone}.{weights}").hf_hub_id, SAFE) / SAFE)
    elif released is not None and (Path(weights).is_dir() or "/" in weights):
        state = released_state(released, weights)
    else:
        hub = "" if released is None else "nor a repository of the hub, "
        raise SegfolioError(
            f"{weights} is neither a file, {hub}nor a tag of timm's weights for {backbone} "
            f"({', '.join(tags) or 'none'})"
        )
    own, names = network.state_dict(), names_of(backbone)
    of_backbone = unwrapped(state, names)
    if len(own.keys() & state.keys()) > len(names & of_backbone.keys()) or _parts(own) == _parts(state):
        state = {key: value for key, value in state.items() if key in own or not key.startswith(LEFT_OUT)}
        load_weights(network, fit({_own_key(k): v for k, v in state.items()}), weights)
        return
    if licence := licence_of(backbone, weights):
        tell_licence(weights, licence)
    load_backbone(of_backbone)


def _parts(state: Iterable[str]) -> set[str]:
    """The names of a network's parts, by which it is known though one of them is built in another way."""
    return {key.partition(".")[0] for key in state}


def load_encoder(encoder: Any, state: Mapping[str, Tensor], weights: str, backbone: str) -> None:
    """Load timm's state dict of `backbone`, classifier or not, into the encoder that `backbone_config` describes."""
    if hasattr(encoder, "_backbone"):
        load_weights(encoder._backbone, _of_features(encoder._backbone, state), weights)
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


def _of_features(body: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a classifier's weights that `body` has, under its names: timm renames features, dots to underscores."""
    flat = {key.replace(".", "_"): value for key, value in state.items()}
    return {key: flat[key.replace(".", "_")] for key in body.state_dict() if key.replace(".", "_") in flat}


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


def _own_key(key: str) -> str:
    """Our name of a weight of a released network: its ResNet is timm's here."""
    key = key.replace("attn_mask_probs", "_extra_state")  # of EoMT
    if "encoder.embedder." in key or "encoder.encoder.stages." in key:
        key = of_resnet(key.replace("encoder.", "encoder._backbone.", 1))
    return key


def released_state(model: Any, repository: str) -> dict[str, Tensor]:
    """The state dict of a released model, under the names of the installed transformers."""
    folder = Path(repository) if Path(repository).is_dir() else fetch(repository, SAFE, PICKLED)
    try:
        return model.from_pretrained(folder).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise SegfolioError(f"{folder} does not hold weights for transformers' {model.__name__}: {error}") from error


def published_state(weights: str, names: str, kind: str, tag: str, repository: str) -> dict[str, Tensor]:
    """The state dict of a file, of timm's weights of a name with its tag, or of a folder or a repository of the hub.

    Args:
        names: of timm's networks, a pattern.
        kind, tag, repository: what one may give, for the error.

    Raises:
        SegfolioError: weights that are not to be had.
    """
    if Path(weights).is_file():
        return read_file(Path(weights))
    if weights in timm.list_pretrained(names):
        return read_file(fetch(get_pretrained_cfg(weights).hf_hub_id, SAFE) / SAFE)
    if Path(weights).is_dir() or "/" in weights:
        return read_repository(weights)
    raise SegfolioError(
        f"{weights} is neither a file, nor timm's name of a {kind} with its tag, such as {tag}, nor a repository of "
        f"the hub, such as {repository}"
    )
