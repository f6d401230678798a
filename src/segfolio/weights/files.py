"""Pretrained weights: `read_weights` finds them, `load_weights` puts them into a network, strictly."""

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torchvision.models import get_model_weights

from segfolio.errors import SegfolioError
from segfolio.weights.input_layer import fitted
from segfolio.weights.low_rank import merged
from segfolio.weights.names import names_of, unwrapped
from segfolio.words import counted

NOT_FOUND = "{weights} is neither a file nor a name of {model}'s weights ({names})"
NOT_DOWNLOADED = "{url} cannot be downloaded ({reason}); fetch it elsewhere and put {name} into {folder}"
UNREADABLE = "{path} is damaged or holds more than weights; expected a state dict or a checkpoint"
PATCHES = re.compile(r"(^|\.)patch_embed(dings)?(\.proj(ection)?)?\.weight$")
"""Names of the convolution that reads an image's patches."""


def read_weights(weights: str, model: str) -> dict[str, Tensor]:
    """The state dict that `weights` names, on the CPU.

    Args:
        weights: path of a state dict or of a Lightning checkpoint, whose `network.` prefix is removed, see also
            `unwrapped`; or the name of torchvision's weights for `model`, e.g. `IMAGENET1K_V1`, which are downloaded
            once.
        model: torchvision's name of the model, e.g. `vgg16`.

    Raises:
        SegfolioError: an unknown name or path, no network, a file that holds something else than weights.
    """
    known = get_model_weights(model)
    if weights in known.__members__:
        return read_file(_download(known[weights].url))
    if Path(weights).is_file():
        return unwrapped(read_file(Path(weights)), names_of(model))
    raise SegfolioError(NOT_FOUND.format(weights=weights, model=model, names=", ".join(known.__members__)))


def load_weights(module: nn.Module, state_dict: Mapping[str, Tensor], source: str, new: tuple[str, ...] = ()) -> None:
    """Load `state_dict` into `module`; every key must match. For images of other channels than RGB the first
    convolution's weights are made to fit, with a warning. What does not fit is told with how much would.

    Args:
        source: where the weights come from, for the error.
        new: prefixes of the keys that may be missing, because the module learns them from scratch.

    Raises:
        SegfolioError: patches of another size, missing or unexpected keys, shapes that differ, values that are not
            finite.
    """
    own, state_dict = module.state_dict(), fitted(dict(state_dict), module, source)
    shared = own.keys() & state_dict.keys()
    check_patches(own, state_dict, source)
    problems = {
        "are missing": [k for k in own if k not in shared and not k.startswith(new)],
        "are not of this network": [k for k in state_dict if k not in shared],
        "have another shape": [
            f"{k} {list(state_dict[k].shape)} for {list(own[k].shape)}"
            for k in own
            if k in shared and state_dict[k].shape != own[k].shape
        ],
        "are not finite": [k for k in own if k in shared and not state_dict[k].isfinite().all()],
    }
    for problem, keys in problems.items():
        if keys:
            some = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
            fit = sum(state_dict[key].shape == own[key].shape for key in shared)
            raise SegfolioError(
                f"{source}: {len(keys)} of the weights {problem}: {some}; of the {counted(len(own), 'tensor')} of "
                f"{type(module).__name__} {fit} would fit; it needs weights of the same architecture and constructor "
                "arguments"
            )
    nn.Module.load_state_dict(module, state_dict, strict=False)  # some of smp have one of their own


def check_patches(own: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights of patches of another size than a network's `own`.

    Raises:
        SegfolioError: such weights.
    """
    for key in filter(PATCHES.search, own.keys() & state_dict.keys()):
        there, here = ("x".join(map(str, kernels[key].shape[2:])) for kernels in (state_dict, own))
        if there and there != here:
            raise SegfolioError(
                f"{source} is of patches of {there} pixels and the network's are {here}; take weights of the same "
                "patch size, or make the network of theirs"
            )


def _download(url: str) -> Path:
    name = Path(urlparse(url).path).name
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / name
    if not path.is_file():
        digest = name.removesuffix(".pth").rpartition("-")[2]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=digest)
        except (OSError, RuntimeError) as e:  # no network; a download that was cut off
            raise SegfolioError(NOT_DOWNLOADED.format(url=url, reason=e, name=name, folder=folder)) from e
    return path


def read_file(path: Path) -> dict[str, Tensor]:
    """The state dict of a PyTorch or safetensors file, on the CPU; of a checkpoint, that of its `model`, too, and of a
    run's that of its network, with what was adapted by low rank added to what it was made of.

    Raises:
        SegfolioError: a file that holds something else than weights.
    """
    try:
        safe = path.suffix == ".safetensors"
        content = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a foreign file makes the unpickler raise anything, KeyError included
        raise SegfolioError(UNREADABLE.format(path=path)) from e
    state = content
    for key in ("state_dict", "model"):  # of Lightning; of DeiT and Segmenter
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            state = content[key]
    if not (isinstance(state, dict) and state and all(isinstance(v, Tensor) for v in state.values())):
        raise SegfolioError(UNREADABLE.format(path=path))
    consume_prefix_in_state_dict_if_present(state, "module.")  # of a network that was trained in parallel
    network = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    if network and "lora_scale" in (of_run := dict(content).get("segfolio", {})):
        return merged(network, of_run["lora_scale"])
    return network or dict(state)  # a checkpoint's state dict also holds the loss's and the metrics' buffers
