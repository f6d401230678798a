"""MobileSAM: Faster Segment Anything: Towards Lightweight SAM for Mobile Applications
(Chaoning Zhang, Dongshen Han, Yu Qiao, Jung Uk Kim, Sung-Ho Bae, Seungkyu Lee, Choong Seon Hong, 2023),
arXiv 2306.14289.

Follows section 3 and the authors' release (ChaoningZhang/MobileSAM): SAM with TinyViT-5M (arXiv 2207.10666) in place of
its ViT; the last down-sampling of TinyViT has stride 1, so that images of 1024 pixels become 64 x 64 cells as SAM's
decoder has them, after a neck as SAM's. TinyViT is timm's. `families.distillation` trains it. Of 9.81 M parameters the
image encoder has 5,743,892 with its neck, prompt encoder and mask decoder have SAM's 6,476 and 4,058,340; the authors
write of 9.66 M.

Deviates:
- TinyViT's classifier and the norm before it are not here: the release keeps them, unused (321,640 parameters).
- Other encoders of timm, for networks between MobileSAM and the smallest.
- Images of other sizes than 1024; TinyViT attends in windows and has no table that depends on it.
"""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import timm
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import check_timm_name
from segfolio.layers.hollow import hollow
from segfolio.layers.prompt_decoder import STRIDE, SamNetwork, check_image_size, neck
from segfolio.weights.backbones import load_pretrained
from segfolio.weights.files import load_weights, read_file
from segfolio.weights.sam import from_transformers

RELEASED = (  # the names of the release, to timm's
    (r"^image_encoder\.(patch_embed|layers)", r"image_encoder.backbone.model.\1"),
    (r"patch_embed\.seq\.(\d)", lambda match: f"patch_embed.conv{int(match[1]) // 2 + 1}"),
    (r"layers\.(\d)\.downsample", lambda match: f"stages.{int(match[1]) + 1}.downsample"),
    (r"layers\.(\d)\.blocks", r"stages.\1.blocks"),
    (r"^(image_encoder\..*)\.c\.weight$", r"\1.conv.weight"),
)
OF_RELEASE = "image_encoder.patch_embed.seq.0.c.weight"
UNUSED = re.compile(r"image_encoder\.(head|norm_head)\.|attention_bias_idxs$")  # in the release
DECODER = ("prompt_encoder.", "mask_decoder.")


class MobileSAM(SamNetwork):
    """SAM with a small image encoder.

    Args:
        num_classes: not used, masks are of no class.
        encoder: timm's name of a TinyViT, or of any other backbone with features of stride 16, e.g.
            `efficientnet_lite0` or `vit_tiny_patch16_224`.
        image_size: side of the padded square, in pixels, a multiple of 16.
        in_channels: of the images.
        weights: None; or a file with a state dict of the authors' release (`mobile_sam.pt`) or of this network; or what
            is loaded into the encoder alone: a tag of timm's weights for it, e.g. `dist_in22k_ft_in1k`, or a file with
            a state dict of timm's.
        decoder_weights: None; or a file with a state dict of a SAM, a MobileSAM or a run of one, of which prompt
            encoder and mask decoder are taken over.

    Raises:
        SegfolioError: an encoder without features of stride 16; an `image_size` that is no multiple of 16; weights that
            are not to be had or do not fit.
    """

    paper: ClassVar[str] = "MobileSAM (Zhang et al., 2023), arXiv 2306.14289"
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "MobileSAM": {},
        "MobileSAM, ViT-Tiny": {"encoder": "vit_tiny_patch16_224"},
        "MobileSAM, EfficientNet-Lite0": {"encoder": "efficientnet_lite0"},
    }
    tiny: ClassVar[dict[str, Any]] = {"encoder": "test_vit", "image_size": 128}
    image_encoder: "ImageEncoder"

    def __init__(
        self,
        num_classes: int,
        encoder: str = "tiny_vit_5m_224",
        image_size: int = 1024,
        in_channels: int = 3,
        weights: str | None = None,
        decoder_weights: str | None = None,
    ) -> None:
        check_image_size(image_size, "MobileSAM")
        super().__init__(ImageEncoder(encoder, image_size, in_channels), image_size)
        if weights is not None:
            self._load(weights, encoder)
        if decoder_weights is not None:
            self._take_over(decoder_weights)

    def _load(self, weights: str, encoder: str) -> None:
        def load_backbone(state: dict[str, Tensor]) -> None:
            self.image_encoder.load_backbone(state, weights)

        if not Path(weights).is_file():
            return load_pretrained(self, weights, encoder, None, load_backbone)
        state = from_release(read_file(Path(weights)))
        if any(key.startswith(DECODER) for key in state):
            return load_weights(self, state, weights)
        return load_backbone(state)

    def _take_over(self, weights: str) -> None:
        """Prompt encoder and mask decoder of another network; positions need not be fitted, they are computed."""
        if not Path(weights).is_file():
            raise SegfolioError(
                f"decoder_weights: {weights} is no file; expected weights of a SAM, e.g. sam_vit_h_4b8939.pth"
            )
        state = from_transformers(read_file(Path(weights)))
        taken = {key: value for key, value in state.items() if key.startswith(DECODER)}
        if not taken:
            raise SegfolioError(
                f"decoder_weights: {weights} has no prompt encoder and no mask decoder; expected those of a SAM"
            )
        load_weights(self, taken, weights, new=("image_encoder.",))


class ImageEncoder(nn.Module):
    """timm's backbone and SAM's neck: `[B, C_in, H, W]` to `[B, 256, H / 16, W / 16]`."""

    def __init__(self, name: str, image_size: int, in_channels: int) -> None:
        super().__init__()
        self.backbone = _backbone(name, image_size, in_channels)
        self.neck = neck(self.backbone.feature_info.channels()[-1])

    def forward(self, images: Tensor) -> Tensor:
        (features,) = self.backbone(images)
        return self.neck(features)

    def load_backbone(self, state: dict[str, Tensor], weights: str) -> None:
        """Load timm's state dict of the backbone, with or without its classifier."""
        body = self.backbone.model
        state = checkpoint_filter_fn(state, body) if hasattr(body, "pos_embed") else state
        load_weights(body, {key: value for key, value in state.items() if key in body.state_dict()}, weights)


def _backbone(name: str, image_size: int, in_channels: int) -> Any:
    """timm's `name`, as far as its last features of stride 16.

    Raises:
        SegfolioError: an unknown name, or one that has no such features of squares of `image_size`.
    """
    check_timm_name(name)
    options: dict[str, Any] = {"features_only": True, "feature_cls": "getter", "in_chans": in_channels}
    try:
        with hollow():
            if "img_size" in inspect.signature(type(timm.create_model(name))).parameters:
                options["img_size"] = image_size
            strides = timm.create_model(name, **options).feature_info.reduction()
        if tiny_vit := name.startswith("tiny_vit"):
            strides[-1] = STRIDE  # as below
        backbone = timm.create_model(name, out_indices=(len(strides) - 1 - strides[::-1].index(STRIDE),), **options)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise SegfolioError(
            f"encoder {name} has no features of stride {STRIDE} of images of {image_size} pixels; take another, e.g. "
            "tiny_vit_5m_224"
        ) from error
    if tiny_vit:
        backbone.model.stages[-1].downsample.conv2.conv.stride = (1, 1)
    return backbone


def from_release(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the authors' release under our names, without what it does not use; any other as it is."""
    if OF_RELEASE not in state:
        return dict(state)
    renamed = {}
    for key, value in state.items():
        for pattern, name in RELEASED:
            key = re.sub(pattern, name, key)
        if not UNUSED.search(key):
            renamed[key] = value
    return renamed
