"""Backbones by timm's names for networks built on transformers' modules."""

import difflib
import re
from functools import cache
from typing import Any

import timm
from torch import Tensor
from torch.nn.functional import pad

from segfolio.errors import SegfolioError
from segfolio.layers.hollow import hollow

STRIDES = (4, 8, 16, 32)
SWINS = {  # channels of the first stage, blocks, heads
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
SWIN_NAME = re.compile(r"swin_([a-z]+)_patch4_window(\d+)_\d+")


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
    return TimmBackboneConfig(backbone=backbone, out_indices=list(_feature_indices(backbone)))  # type: ignore[call-arg]


@cache
def _feature_indices(backbone: str) -> tuple[int, ...]:
    """Which of the features of timm's `backbone` have the strides 4, 8, 16 and 32."""
    check_timm_name(backbone)
    try:
        with hollow():
            strides = timm.create_model(backbone, features_only=True).feature_info.reduction()
        return tuple(strides.index(stride) for stride in STRIDES)
    except (AssertionError, AttributeError, RuntimeError, ValueError) as error:
        raise SegfolioError(f"backbone {backbone} has no features of strides 4, 8, 16 and 32; take another") from error


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


def check_features(name: str, images: Tensor) -> None:
    """Refuse images whose coarsest features are a single value, which no normalisation can be of.

    Raises:
        SegfolioError: such images.
    """
    height, width = images.shape[-2:]
    if max(height, width) <= STRIDES[-1]:
        raise SegfolioError(
            f"{name} got images of {height}x{width} pixels, smaller than two of its coarsest features, of stride "
            f"{STRIDES[-1]}: enlarge them, or pad them to more than {STRIDES[-1]} pixels on one side"
        )


def crop_quarter(maps: Tensor, images: Tensor) -> Tensor:
    """The part of `[..., h, w]` of stride 4 that covers `images` without their padding."""
    height, width = images.shape[-2:]
    return maps[..., : -(-height // 4), : -(-width // 4)]
