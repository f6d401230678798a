"""Atrous spatial pyramid pooling: features seen at several rates (DeepLabV3, arXiv 1706.05587, section 3.3)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from segfolio.layers.dilation import PooledBatchNorm


class ASPP(nn.Module):
    """A 1x1 convolution, a 3x3 one per rate, and the pooled image, concatenated and projected.

    Parameters are named as in torchvision's `ASPP`.

    Args:
        channels: of the input.
        rates: dilation of each 3x3 convolution.
        width: channels of each branch and of the output.
        dropout: after the projection.
        separable: the 3x3 convolutions are depthwise separable (DeepLabV3+, arXiv 1802.02611, section 3.1).
        projection: size of the projection's kernel.
    """

    def __init__(
        self,
        channels: int,
        rates: Sequence[int],
        width: int = 256,
        dropout: float = 0.5,
        separable: bool = False,
        projection: int = 1,
    ) -> None:
        super().__init__()
        atrous = [conv3x3(channels, width, rate, separable) for rate in rates]
        self.convs = nn.ModuleList([Conv2dNormActivation(channels, width, 1), *atrous, ImagePooling(channels, width)])
        self.project = nn.Sequential(
            *Conv2dNormActivation(len(self.convs) * width, width, projection), nn.Dropout(dropout)
        )

    def set_rates(self, rates: Sequence[int]) -> None:
        """Change the dilations; the weights stay."""
        branch: Any
        for branch, rate in zip(self.convs[1:-1], rates, strict=True):
            branch[0].dilation = branch[0].padding = (rate, rate)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, h, w]` to `[B, width, h, w]`."""
        return self.project(torch.cat([branch(x) for branch in self.convs], 1))


class ImagePooling(nn.Sequential):
    """The mean of the image through a 1x1 convolution, at every pixel."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.Identity(), nn.Conv2d(channels, width, 1, bias=False), PooledBatchNorm(width), nn.ReLU()
        )  # the pooling itself is torchvision's number 0

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, h, w]` to `[B, width, h, w]`."""
        return super().forward(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])


def conv3x3(channels: int, width: int, rate: int = 1, separable: bool = False) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU; if `separable`, first of each channel and then of each pixel."""
    if not separable:
        return Conv2dNormActivation(channels, width, 3, dilation=rate)
    depthwise = Conv2dNormActivation(channels, channels, 3, dilation=rate, groups=channels)
    return nn.Sequential(*depthwise, *Conv2dNormActivation(channels, width, 1))
