"""Backbones of networks that detect: any of timm's as a feature pyramid, or one feature map of a ResNet."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import timm
import torch
from timm.layers import BatchNormAct2d, GroupNormAct, freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork, LastLevelMaxPool

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import STRIDES, check_timm_name
from segfolio.layers.hollow import hollow

Norm = Literal["frozen", "batch", "group"]
HeadNorm = Literal["none", "batch", "group"]


class Features(nn.Module):
    """One feature map, that of the last layer of `stride`.

    Args:
        backbone: timm's name.
        stride: of the map, in pixels.
        norm: see `normalised`.
        frozen_stride: see `freeze`.
        dilated: the layers after that of `stride` are kept and dilated instead (DC5, where the stride is 16).
    """

    def __init__(self, backbone: str, stride: int, norm: Norm, frozen_stride: int, dilated: bool = False) -> None:
        super().__init__()
        body = timm_features(backbone, (stride,), **({"output_stride": stride} if dilated else {}))
        (self.out_channels,) = body.feature_info.channels()
        self.strides = (stride,)
        self.body = freeze(normalised(body, norm), frozen_stride)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """`[B, 3, H, W]` to `{"0": [B, out_channels, H / stride, W / stride]}`."""
        return {"0": feature_maps(self.body, images)[0].float()}


class Pyramid(nn.Module):
    """Feature pyramid (Lin et al., 2017, arXiv 1612.03144) of strides 4 to 32, and 64 by subsampling, or of others.

    Args:
        backbone: timm's name of a network with features of strides 4, 8, 16 and 32 that takes images of any size.
        norm: see `normalised`.
        frozen_stride: see `freeze`.
        out_channels: of every level.
        fpn_norm: of the pyramid's own convolutions.
        strides: of the backbone's features.
        coarser: makes further levels of those; one by subsampling if not given.
    """

    def __init__(
        self,
        backbone: str,
        norm: Norm,
        frozen_stride: int,
        out_channels: int = 256,
        fpn_norm: HeadNorm = "none",
        strides: tuple[int, ...] = STRIDES,
        coarser: ExtraFPNBlock | None = None,
    ) -> None:
        super().__init__()
        body = timm_features(backbone, strides)
        channels = body.feature_info.channels()
        self.strides, self.out_channels = strides, out_channels
        self.body = freeze(normalised(body, norm), frozen_stride)
        self.fpn = FeaturePyramidNetwork(channels, out_channels, coarser or LastLevelMaxPool(), norm_layer(fpn_norm))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """`[B, 3, H, W]` to maps `[B, out_channels, h, w]`, named 0, 1, ... and, by subsampling, pool."""
        levels = self.fpn({str(place): level for place, level in enumerate(feature_maps(self.body, images))})
        return {name: level.float() for name, level in levels.items()}  # boxes are read off in float32


def timm_features(backbone: str, strides: tuple[int, ...], **options: Any) -> Any:
    """timm's `backbone` as a list of feature maps, the last of each of `strides`.

    Raises:
        SegfolioError: an unknown name, or one without such features or for images of one size.
    """
    indices, accepted = _probed(backbone, strides, tuple(options.items()))
    return timm.create_model(backbone, features_only=True, out_indices=indices, **accepted)


@cache
def _probed(backbone: str, strides: tuple[int, ...], given: tuple[tuple[str, Any], ...]) -> tuple[tuple[int, ...], Any]:
    """The features of these strides, and the options with which timm makes a network for images of any size."""
    check_timm_name(backbone)
    options = dict(given)
    with hollow():
        try:
            try:
                probe = timm.create_model(backbone, features_only=True, strict_img_size=False, **options)
                options["strict_img_size"] = False
            except TypeError:  # has windows of no fixed number, or none
                probe = timm.create_model(backbone, features_only=True, **options)
            found = probe.feature_info.reduction()
            indices = tuple(len(found) - 1 - found[::-1].index(stride) for stride in strides)
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise SegfolioError(f"backbone {backbone} has no features of strides {strides}; take another") from error
        try:
            probe.eval()(torch.zeros(1, 3, 96, 160))
        except (AssertionError, RuntimeError) as error:
            raise SegfolioError(f"backbone {backbone} does not take images of any size; take another") from error
    return indices, options


def feature_maps(body: Any, images: Tensor) -> list[Tensor]:
    """What timm's `body` makes of images, `[B, D, h, w]` each."""
    last = getattr(body, "output_fmt", "NCHW") == "NHWC"
    return [level.permute(0, 3, 1, 2) if last else level for level in body(images)]


def normalised(module: nn.Module, norm: Norm) -> nn.Module:
    """`module` with its batch normalisations as they are, frozen (Mask R-CNN), or of groups instead.

    Group normalisation (Wu & He, 2018, arXiv 1803.08494) of 32 groups, or of as many as divide the channels.
    """
    if norm == "frozen":
        return freeze_batch_norm_2d(module)
    if norm == "group":
        for name, child in module.named_children():
            if isinstance(child, BatchNormAct2d):
                grouped: nn.Module = GroupNormAct(child.num_features, math.gcd(32, child.num_features))
                grouped.drop, grouped.act = child.drop, child.act
                setattr(module, name, grouped)
            elif isinstance(child, nn.BatchNorm2d):
                setattr(module, name, group_norm(child.num_features))
            else:
                normalised(child, norm)
    return module


def freeze(body: Any, stride: int) -> Any:
    """Fix the weights of timm's `body` up to its last features of `stride`, in pixels; 0 fixes none.

    Detectron fixes the stem and the stage of stride 4 of a ResNet.

    Raises:
        SegfolioError: none are left, as in networks that keep a fine map up to their end (HRNet).
    """
    stages = [info["module"] for info in body.feature_info.info if info["reduction"] <= stride]
    reached = False
    for name, module in body.named_modules() if stages else ():
        inside = f"{name}.".replace("_", ".").startswith(f"{stages[-1]}.".replace("_", "."))
        if reached and not inside:
            break
        reached |= inside
        for p in module.parameters(recurse=False):
            p.requires_grad_(False)
    if stages and not any(p.requires_grad for p in body.parameters()):
        raise SegfolioError(f"frozen_stride: {stride} leaves nothing of the backbone to train; give frozen_stride: 0")
    return body


def res5(backbone: str, norm: Norm) -> tuple[Any, int]:
    """The last stage of timm's ResNet `backbone`, and its channels.

    Raises:
        SegfolioError: a backbone that has no `layer4`.
    """
    check_timm_name(backbone)
    network: Any = timm.create_model(backbone)
    if not hasattr(network, "layer4"):
        raise SegfolioError(f"backbone {backbone} has no res5 stage; take a ResNet, or another neck than c4")
    return normalised(network.layer4, norm), network.num_features


def norm_layer(norm: HeadNorm) -> Callable[[int], nn.Module] | None:
    """What torchvision's blocks take as `norm_layer`."""
    layers: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "group": group_norm}
    return layers.get(norm)


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(32, channels), channels)
