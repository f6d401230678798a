"""Pyramid pooling (PSPNet, arXiv 1612.01105, section 3.2): what an image is about, at several scales."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, interpolate
from torchvision.ops import Conv2dNormActivation

from segfolio.layers.dilation import PooledBatchNorm


class PyramidPooling(nn.Module):
    """The features, and beside them their means over `bins` x `bins` parts of the image, projected and upsampled.

    Args:
        channels: of each level.
        bins: of each level, along each axis; none leaves the features alone.
        align_corners: of the upsampling.
        upsample_first: project the upsampled means, as UPerNet's authors do.

    Attributes:
        out_channels: of the result.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        bins: Sequence[int] = (1, 2, 3, 6),
        align_corners: bool = False,
        upsample_first: bool = False,
    ) -> None:
        super().__init__()
        self.bins, self.align_corners, self.upsample_first = tuple(bins), align_corners, upsample_first
        self.out_channels = in_channels + channels * len(bins)
        self.levels = nn.ModuleList(
            Conv2dNormActivation(in_channels, channels, 1, norm_layer=PooledBatchNorm) for _ in bins
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, in_channels, h, w]` to `[B, out_channels, h, w]`."""

        def upsample(level: Tensor) -> Tensor:
            return interpolate(level, x.shape[-2:], mode="bilinear", align_corners=self.align_corners)

        pooled = [average_pool(x, bins) for bins in self.bins]
        if self.upsample_first:
            levels = [project(upsample(level)) for project, level in zip(self.levels, pooled, strict=True)]
        else:
            levels = [upsample(project(level)) for project, level in zip(self.levels, pooled, strict=True)]
        return torch.cat([x, *levels], dim=1)


def average_pool(x: Tensor, bins: int) -> Tensor:
    """`adaptive_avg_pool2d` of `[B, C, h, w]` to `[B, C, bins, bins]`, with a gradient that is deterministic on CUDA.

    The mean over a rectangle is that over its rows of that over its columns: two products of matrices.
    """
    rows, columns = (
        adaptive_avg_pool1d(torch.eye(length, dtype=x.dtype, device=x.device)[None], bins)[0] for length in x.shape[-2:]
    )
    return rows.T @ x @ columns
