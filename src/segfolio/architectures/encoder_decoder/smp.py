"""segmentation_models.pytorch (Pavel Iakubovskii, 2019), a library of decoders on one set of encoders:
U-Net, arXiv 1505.04597; U-Net++, 1807.10165; MA-Net (Fan et al., IEEE Access 2020); LinkNet, 1707.03718;
FPN, 1901.02446; PSPNet, 1612.01105; DeepLabV3, 1706.05587; DeepLabV3+, 1802.02611; PAN, 1805.10180;
UPerNet, 1807.10221; SegFormer, 2105.15203; DPT, 2103.13413.

Follows the library: this file looks names up, pads and crops. The decoders are meant for one's own data and
as baselines under one protocol; the rows of those papers are replicated by files of their own.

Deviates, from the papers and as of version 0.6:
- "unet" is padded, batch-normalised, upsamples by repetition and takes the skips of any encoder.
- "pspnet" uses the encoder down to stride 8 without dilation and no auxiliary loss: not the paper's network.
  The deeper stages get no gradient (22 of 24 M parameters with a ResNet-50).
- "deeplabv3" and "deeplabv3plus" have no multi-grid and no auxiliary loss.
- Images are continued by their border to a size that encoder and decoder take, which is found out when they are
  built, and the logits cropped; transformers of timm take sizes other than that of their pretraining.
"""

import difflib
import inspect
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.nn.functional import pad

from segfolio.errors import SegfolioError
from segfolio.weights.files import load_weights, read_file
from segfolio.weights.hub import out_of_reach
from segfolio.weights.input_layer import tell_fitted
from segfolio.weights.licences import licence_of, tell_licence
from segfolio.weights.names import unwrapped
from segfolio.weights.packaged import PACKAGES, read_package

ENCODERS = smp.encoders.encoders
DECODERS = smp.MODEL_ARCHITECTURES_MAPPING
SET_HERE = {"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs"}


class SMP(nn.Module):
    """Any decoder of segmentation_models.pytorch on any of its or timm's encoders.

    Args:
        decoder: as the library names it, in lower case.
        encoder: the library's name, or timm's; `tu-` before a name that both have means timm's.
        weights: of the encoder: a name such as `imagenet` for the library's, a tag such as `a1_in1k` for
            timm's, which are fetched from the Hugging Face hub once and then read from its cache; a name of
            `PACKAGES`; or a file with the encoder's state dict, as its library or timm has it, or with that of this
            network.
        in_channels: of the images; weights of RGB are made to fit others, with a warning.
        decoder_arguments: further arguments of the decoder's class, such as `decoder_channels`.

    Raises:
        SegfolioError: an unknown decoder, encoder, argument or name of weights; a decoder and an encoder that
            do not go together, or only at one size; weights that are neither in the cache nor to be had.
    """

    paper: ClassVar[str] = "segmentation_models.pytorch (Iakubovskii, 2019), arXiv 1505.04597 and others"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "smp U-Net, ResNet-34": {},
        "smp U-Net++, ResNet-34": {"decoder": "unetplusplus"},
        "smp FPN, ResNet-50": {"decoder": "fpn", "encoder": "resnet50"},
        "smp DeepLabV3+, ResNet-101": {"decoder": "deeplabv3plus", "encoder": "resnet101"},
        "smp UPerNet, ConvNeXt-T": {"decoder": "upernet", "encoder": "convnext_tiny"},
    }
    tiny: ClassVar[dict[str, Any]] = {"encoder": "tu-test_resnet"}

    def __init__(
        self,
        num_classes: int,
        decoder: str = "unet",
        encoder: str = "resnet34",
        weights: str | None = None,
        in_channels: int = 3,
        decoder_arguments: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check("decoder", decoder, DECODERS)
        allowed = inspect.signature(DECODERS[decoder]).parameters.keys() - SET_HERE
        for argument in decoder_arguments or {}:
            _check(f"argument of {decoder}", argument, allowed)
        state = _at_hand(weights, encoder)
        name, pretrained, repository, revision = _encoder(encoder, None if state else weights)
        options = _any_size(decoder, name) | (decoder_arguments or {})
        try:
            with _cache_first(repository, revision):
                self.model = smp.create_model(decoder, name, pretrained, in_channels, num_classes, **options)
        except OSError as error:  # the hub's way to say that there is no network
            raise SegfolioError(out_of_reach(f"{encoder}.{weights}", str(repository), revision)) from error
        except (RuntimeError, TypeError, ValueError) as error:
            arguments = f" with {decoder_arguments}" if decoder_arguments else ""
            raise SegfolioError(f"{decoder} on encoder {encoder}{arguments} cannot be built: {error}") from error
        self.multiple, self.least = _sizes(self.model, in_channels, decoder, encoder)

        whole = any(key.startswith("model.decoder.") for key in state or ())
        if state is not None and whole:
            load_weights(self, state, str(weights))
        elif state is not None:
            self._load(state, str(weights))
        elif weights is not None and in_channels != 3:
            tell_fitted(f"{encoder}'s {weights}", in_channels)
        if weights is not None and not whole and (licence := licence_of(encoder.removeprefix("tu-"), weights)):
            tell_licence(f"{encoder}'s {weights}", licence)

    def _load(self, state: dict[str, Tensor], source: str) -> None:
        """A state dict of the encoder with or without its classifier, under any of the prefixes that libraries put
        before its names."""
        encoder: Any = self.model.encoder
        own = encoder.state_dict()
        names = {name: key for key in own for name in _names(key.removeprefix("model."))}  # timm's are within smp's
        given = unwrapped(state, names)
        found = {names[key]: value for key, value in given.items() if key in names}
        if not found:
            raise SegfolioError(f"{source}: 0 of its {len(state)} tensors have a name of this encoder's {len(own)}")
        return load_weights(encoder, found, source)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to logits `[B, num_classes, H, W]`, for any H and W."""
        height, width = images.shape[-2:]
        below, right = (max(self.least - side, -side % self.multiple) for side in (height, width))
        return self.model(pad(images, (0, right, 0, below), mode="replicate"))[..., :height, :width]


def _at_hand(weights: str | None, encoder: str) -> dict[str, Tensor] | None:
    """The state dict of a file or of a package; None where `weights` is a name of the encoder's library."""
    if weights is not None and Path(weights).is_file():
        return read_file(Path(weights))
    if weights in PACKAGES:
        return read_package(str(weights), encoder.removeprefix("tu-").removeprefix("timm-"))
    return None


def _names(key: str) -> Iterator[str]:
    """A weight in timm's network of features, and in timm's network: there `stages_0.` may be `stages.0.`."""
    first, dot, rest = key.partition(".")
    yield from (f"{first[:i]}.{first[i + 1 :]}{dot}{rest}" for i, letter in enumerate(first) if letter == "_")
    yield key


@contextmanager
def _cache_first(repository: str | None, revision: str | None) -> Iterator[None]:
    """Keep the hub's client, which would try for half a minute, to its cache: where the cache holds the weights,
    and where the hub does not answer at once."""
    before = constants.HF_HUB_OFFLINE
    if repository and not before:
        cached = isinstance(try_to_load_from_cache(repository, "model.safetensors", revision=revision), str)
        constants.HF_HUB_OFFLINE = cached or not _answers(repository)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(repository: str) -> bool:
    try:
        get_hf_file_metadata(hf_hub_url(repository, "config.json"), timeout=3)
    except HfHubHTTPError:  # an answer, if only a refusal
        return True
    except Exception:  # of the client's HTTP library, which differs between its versions
        return False
    return True


def _encoder(encoder: str, weights: str | None) -> tuple[str, str | bool | None, str | None, str | None]:
    """Name and weights of the encoder in the library's terms, and the hub's repository and revision of them."""
    name, models = encoder.removeprefix("tu-"), timm.list_models()
    if name not in models:
        _check("encoder", encoder, {*ENCODERS, *models})
    if weights is None:
        return encoder if encoder in ENCODERS else f"tu-{name}", None, None, None
    what = f"name of weights for encoder {encoder}"
    if encoder in ENCODERS:
        settings = ENCODERS[encoder]["pretrained_settings"]
        _check(what, weights, settings)
        return encoder, weights, settings[weights]["repo_id"], settings[weights]["revision"]
    _check(what, weights, [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")])
    return f"tu-{name}.{weights}", True, get_pretrained_cfg(f"{name}.{weights}").hf_hub_id, None


def _any_size(decoder: str, encoder: str) -> dict[str, Any]:
    """The arguments with which timm's transformers take images of any size."""
    if not encoder.startswith("tu-"):
        return {}
    if decoder == "dpt":
        return {"dynamic_img_size": True}
    with torch.device("meta"):
        known = inspect.signature(type(timm.create_model(encoder.removeprefix("tu-")))).parameters
    wanted = {"dynamic_img_size": True, "strict_img_size": False, "dynamic_mask": True}
    return {name: value for name, value in wanted.items() if name in known}


def _sizes(model: Any, in_channels: int, decoder: str, encoder: str) -> tuple[int, int]:
    """The multiple that both sides of an image are of, and the least of them, in pixels; no pixel is computed."""
    stride, empty = model.encoder.output_stride, deepcopy(model).to("meta").eval()
    known = get_pretrained_cfg(encoder.removeprefix("tu-"), allow_unregistered=True)
    native = known.input_size[-1] if known else 2 * stride  # windows of transformers are a part of it
    for multiple in (stride, 2 * stride, native):
        for least in (multiple, 2 * multiple, 4 * multiple, 8 * multiple):
            shapes = ((least, least + multiple), (least + multiple, least))
            if all(_takes(empty, (1, in_channels, *shape)) for shape in shapes):
                return multiple, least
    raise SegfolioError(
        f"{decoder} on encoder {encoder} does not take images of any size; take another encoder, such as resnet34"
    )


@torch.no_grad()
def _takes(model: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        return model(torch.empty(shape, device="meta")).shape[-2:] == shape[-2:]
    except (AssertionError, RuntimeError, ValueError):
        return False


def _check(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=6, cutoff=0.5) or sorted(known)[:12]
        raise SegfolioError(f"{name!r} is no {what}; did you mean one of {', '.join(near) or 'none'}?")
