"""The head of UPerNet (Xiao et al., 2018, arXiv 1807.10221, section 3) as transformers wear it: pyramid pooling on the
coarsest of four levels, a feature pyramid, and all levels fused at the finest.

Fast, with the same logits and gradients: enlargement and the convolution behind it are both linear, so that a level
goes through its part of the convolution at its own resolution, and what each of the 3 x 3 taps says is enlarged by two
products of matrices. Of the fusion, which is most of the head, that leaves a quarter.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad
from torchvision.ops import Conv2dNormActivation

from segfolio.layers.again import through
from segfolio.layers.dilation import PooledBatchNorm
from segfolio.layers.heads import fcn_head
from segfolio.layers.ppm import average_pool

BINS = (1, 2, 3, 6)
HEAD_KEYS = (  # of mmsegmentation, which BEiT's and InternImage's authors build on, and of transformers, to ours
    (r"^decode_head\.psp_modules\.(\d)\.1\.", r"head.pooled.\1."),
    (r"^decode_head\.psp_modules\.blocks\.(\d)\.conv\.", r"head.pooled.\1."),
    (r"^decode_head\.(psp_)?bottleneck\.", "head.bottleneck."),
    (r"^decode_head\.lateral_convs\.", "head.lateral."),
    (r"^decode_head\.fpn_convs\.", "head.smooth."),
    (r"^decode_head\.fpn_bottleneck\.", "head.fuse."),
    (r"^decode_head\.(conv_seg|classifier)\.", "head.classifier."),
    (r"^auxiliary_head\.convs\.0\.", "auxiliary."),
    (r"^auxiliary_head\.(conv_seg|classifier)\.", "auxiliary.4."),
    (r"^((?:head|auxiliary)(?:\.\w+)*)\.(conv|convolution)\.", r"\1.0."),
    (r"^((?:head|auxiliary)(?:\.\w+)*)\.(bn|batch_norm|normalization)\.", r"\1.1."),
)


class UPerHead(nn.Module):
    """Logits of the finest of four levels.

    Args:
        in_channels: of each level, the finest first.
        width: channels of every level of the head.
        num_classes: C.
        dropout: of the channels before the classifier.
        checkpointing: in training, keep what each step gets and compute the step again in the backward pass; see
            `layers.again.see_once`, which the network calls.
    """

    def __init__(
        self, in_channels: Sequence[int], width: int, num_classes: int, dropout: float, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        *finer, last = in_channels
        self.pooled = nn.ModuleList(Conv2dNormActivation(last, width, 1, norm_layer=PooledBatchNorm) for _ in BINS)
        self.bottleneck = PooledConvolution(last + len(BINS) * width, width, checkpointing)
        self.lateral = nn.ModuleList(Conv2dNormActivation(channels, width, 1) for channels in finer)
        self.smooth = nn.ModuleList(Conv2dNormActivation(width, width, 3) for _ in finer)
        self.fuse = PooledConvolution(len(in_channels) * width, width, checkpointing)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        initialise(self)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """`[B, C_i, h_i, w_i]` of each level, the finest first, to logits `[B, C, h_0, w_0]`."""
        *finer, last = levels
        pooled = [block(average_pool(last, bins)) for block, bins in zip(self.pooled, BINS, strict=True)]
        level = self.bottleneck([last, *pooled])
        smoothed = [level]
        for features, lateral, smooth in reversed(list(zip(finer, self.lateral, self.smooth, strict=True))):
            level = through(self, _joined, lateral, features, level)
            smoothed.insert(0, through(self, smooth, level))
        return through(self, self._classify, self.fuse(smoothed))

    def _classify(self, fused: Tensor) -> Tensor:
        return self.classifier(self.dropout(fused))


class PooledConvolution(Conv2dNormActivation):
    """A 3x3 convolution of maps that are joined at the size of the first, normalised, and ReLU."""

    def __init__(self, in_channels: int, channels: int, checkpointing: bool) -> None:
        super().__init__(in_channels, channels, 3, norm_layer=PooledBatchNorm)
        self.checkpointing = checkpointing

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """`[B, C_i, h_i, w_i]`, whose channels are joined, to `[B, D, h_0, w_0]`."""
        convolution, norm, activation = self
        size = (maps[0].shape[-2], maps[0].shape[-1])
        weight: Any = convolution.weight
        parts = weight.split([each.shape[1] for each in maps], 1)
        total = conv2d(maps[0], parts[0], padding=1)
        for each, part in zip(maps[1:], parts[1:], strict=True):
            total = total + through(self, convolve_enlarged, each, part, size)
        return through(self, lambda x: activation(norm(x)), total)


def _joined(lateral: nn.Module, features: Tensor, above: Tensor) -> Tensor:
    return lateral(features) + interpolate(above, features.shape[-2:], mode="bilinear", align_corners=False)


def convolve_enlarged(x: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """A convolution of 3x3, padded with zeros, of `x` enlarged bilinearly; nothing is computed at the larger size but
    its result.

    Args:
        x: `[B, C, h, w]`.
        weight: `[D, C, 3, 3]`.
        size: H and W to which `x` is enlarged.

    Returns:
        `[B, D, H, W]`.
    """
    if x.shape[-2:] == size:
        return conv2d(x, weight, padding=1)
    height, width = x.shape[-2:]
    taps = conv2d(x, weight.permute(3, 0, 2, 1).flatten(0, 2)[..., None, None])  # of columns, channels and rows
    rows = _shifted_enlargement(height, size[0], taps).flatten(0, 1)
    columns = _shifted_enlargement(width, size[1], taps)
    tall = (rows.T @ taps.unflatten(1, (-1, 3)).flatten(2, 3)).unflatten(1, (3, -1))  # [B, 3, D, H, w]
    left, middle, right = (tall[:, column] @ columns[column] for column in range(3))
    return left + middle + right


def _shifted_enlargement(short: int, long: int, like: Tensor) -> Tensor:
    """`[3, short, long]`: the matrix that enlarges, its result moved by one, left as it is, and moved back by one."""
    identity = torch.eye(short, dtype=like.dtype, device=like.device)
    matrix = pad(interpolate(identity[None], long, mode="linear", align_corners=False)[0], (1, 1))
    return torch.stack([matrix[:, tap : tap + long] for tap in range(3)])


def auxiliary_head(in_channels: int, width: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Logits of one level, from a convolution of `width` channels."""
    head = fcn_head(in_channels, width, num_classes, nn.Dropout2d(dropout))
    initialise(head)
    return head


def initialise(module: nn.Module) -> None:
    """Convolutions before a ReLU by their fan-out, as in mmsegmentation's blocks."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
