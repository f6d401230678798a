"""UPerNet: Unified Perceptual Parsing for Scene Understanding
(Tete Xiao, Yingcheng Liu, Bolei Zhou, Yuning Jiang, Jian Sun, ECCV 2018), arXiv 1807.10221.

Follows section 3 and the authors' code for scene parsing alone (CSAILVision/semantic-segmentation-pytorch): pyramid
pooling on the fifth stage of an undilated ResNet with a stem of three convolutions, a feature pyramid (arXiv
1612.03144) with normalisation, and all levels fused at stride 4. The means over parts of the image are upsampled
before they are projected.

Deviates:
- ImageNet weights are timm's `gluon_in1k`, of the same layers.
- The heads for objects, parts, materials and textures are not here.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.ops import Conv2dNormActivation

from segfolio.layers.dilation import DilatedNetwork
from segfolio.layers.heads import initialise
from segfolio.layers.ppm import PyramidPooling


class UPerNet(DilatedNetwork):
    """Pyramid pooling and a feature pyramid, logits at stride 4.

    Args:
        backbone: timm's name of a ResNet; `resnet50s` has the authors' stem.
        channels: of every level.
        bins: of the levels of pyramid pooling.
        weights: None; a tag of timm's weights for `backbone`; or a file with a state dict of it or of this network.
        in_channels: of the images.

    Raises:
        SegfolioError: a backbone that does not exist or is no such network, weights that do not fit.
    """

    paper: ClassVar[str] = "UPerNet (Xiao et al., 2018), arXiv 1807.10221"
    variants: ClassVar[dict[str, dict[str, Any]]] = {"UPerNet, R50": {}, "UPerNet, R101": {"backbone": "resnet101s"}}
    tiny: ClassVar[dict[str, Any]] = {"backbone": "test_resnet", "channels": 16}

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50s",
        channels: int = 512,
        bins: Sequence[int] = (1, 2, 3, 6),
        weights: str | None = None,
        in_channels: int = 3,
    ) -> None:
        super().__init__(backbone, (1, 2, 3, 4), output_stride=32, in_channels=in_channels)
        *finer, last = self.channels
        pyramid = PyramidPooling(last, channels, bins, upsample_first=True)
        self.pyramid = nn.Sequential(pyramid, Conv2dNormActivation(pyramid.out_channels, channels, 3))
        self.lateral = nn.ModuleList(Conv2dNormActivation(c, channels, 1) for c in finer)
        self.smooth = nn.ModuleList(Conv2dNormActivation(channels, channels, 3) for _ in finer)
        self.fuse = Conv2dNormActivation(4 * channels, channels, 3)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        for part in (self.pyramid, self.lateral, self.smooth, self.fuse, self.classifier):
            part.apply(initialise)
        if weights is not None:
            self.load(weights)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C_in, H, W]` to logits `[B, C, h, w]`, of a quarter of the size, rounded up."""
        *finer, last = self.features(images)
        level = self.pyramid(last)
        levels = [level]
        for features, lateral, smooth in reversed(list(zip(finer, self.lateral, self.smooth, strict=True))):
            level = lateral(features) + _resize(level, features)
            levels.append(smooth(level))
        finest = levels[-1]
        return self.classifier(self.fuse(torch.cat([_resize(each, finest) for each in reversed(levels)], 1)))


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
