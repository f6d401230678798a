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
- Images are continued by their border to a multiple of the encoder's stride and the logits cropped, where the
  library refuses the size.
"""

import difflib
import inspect
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import segmentation_models_pytorch as smp
import timm
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.nn.functional import pad

from segfolio.errors import SegfolioError
from segfolio.weights.input_layer import tell_fitted

ENCODERS = smp.encoders.encoders
DECODERS = smp.MODEL_ARCHITECTURES_MAPPING
SET_HERE = {"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs"}


class SMP(nn.Module):
    """Any decoder of segmentation_models.pytorch on any of its or timm's encoders.

    Args:
        decoder: as the library names it, in lower case.
        encoder: the library's name, or timm's; `tu-` before a name that both have means timm's.
        weights: of the encoder: a name such as `imagenet` for the library's, a tag such as `a1_in1k` for
            timm's. They are fetched from the Hugging Face hub once and then read from its cache.
        in_channels: of the images; weights of RGB are made to fit others, with a warning.
        decoder_arguments: further arguments of the decoder's class, such as `decoder_channels`.

    Raises:
        SegfolioError: an unknown decoder, encoder, argument or name of weights; a decoder and an encoder that
            do not go together; weights that are neither in the cache nor to be had.
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
        name, pretrained, repository, revision = _encoder(encoder, weights)
        try:
            with _cache_first(repository, revision):
                self.model = smp.create_model(
                    decoder, name, pretrained, in_channels, num_classes, **(decoder_arguments or {})
                )
        except OSError as error:  # the hub's way to say that there is no network
            whole = f"{repository} --revision {revision}" if revision else repository
            raise SegfolioError(
                f"{encoder}'s weights {weights!r} are not in {constants.HF_HUB_CACHE}, nor to be downloaded; "
                f"run `hf download {whole}` where there is a network and copy its cache to there"
            ) from error
        except (RuntimeError, TypeError, ValueError) as error:
            arguments = f" with {decoder_arguments}" if decoder_arguments else ""
            raise SegfolioError(f"{decoder} on encoder {encoder}{arguments} cannot be built: {error}") from error

        if weights is not None and in_channels != 3:
            tell_fitted(f"{encoder}'s {weights}", in_channels)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to logits `[B, num_classes, H, W]`, for any H and W."""
        height, width = images.shape[-2:]
        stride = self.model.encoder.output_stride
        padded = pad(images, (0, -width % stride, 0, -height % stride), mode="replicate")
        return self.model(padded)[..., :height, :width]


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


def _check(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=6, cutoff=0.5) or sorted(known)[:12]
        raise SegfolioError(f"{name!r} is no {what}; did you mean one of {', '.join(near) or 'none'}?")
