"""Blocks of cross-stage partial networks (CSPNet, arXiv 1911.11929) as YOLOv8 and YOLO11 have them: a part of the
channels goes through the block, all that it becomes on its way is joined at the end.

Every convolution is followed by batch normalisation and, unless it says otherwise, SiLU.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, scaled_dot_product_attention


class ConvBN(nn.Sequential):
    """`[B, C, H, W]` to `[B, channels, H / stride, W / stride]`."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03),
            nn.SiLU(inplace=True) if act else nn.Identity(),
        )


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, of `squeeze` times the channels between them, and what came in if `shortcut`."""

    def __init__(self, channels: int, shortcut: bool = True, squeeze: float = 1.0) -> None:
        super().__init__()
        hidden = int(channels * squeeze)
        self.conv1, self.conv2 = ConvBN(channels, hidden, 3), ConvBN(hidden, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv2(self.conv1(x))
        return x + found if self.shortcut else found


class C2f(nn.Module):
    """Half of the channels goes through a chain of blocks, and all that it becomes is joined.

    Args:
        blocks: of the chain, each from `hidden` channels to as many.
        hidden: half of the channels inside.
    """

    def __init__(self, in_channels: int, channels: int, hidden: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.enter = ConvBN(in_channels, 2 * hidden)
        self.blocks = nn.ModuleList(blocks)
        self.leave = ConvBN((2 + len(blocks)) * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        found = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            found.append(block(found[-1]))
        return self.leave(torch.cat(found, 1))


class C3k(nn.Module):
    """Two bottlenecks on half of the channels, beside the other half."""

    def __init__(self, channels: int, shortcut: bool = True) -> None:
        super().__init__()
        hidden = channels // 2
        self.enter, self.beside = ConvBN(channels, hidden), ConvBN(channels, hidden)
        self.blocks = nn.Sequential(Bottleneck(hidden, shortcut), Bottleneck(hidden, shortcut))
        self.leave = ConvBN(2 * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(torch.cat([self.blocks(self.enter(x)), self.beside(x)], 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling (arXiv 1406.4729) of 5, 9 and 13 cells, as a chain of three of 5."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter, self.leave = ConvBN(channels, channels // 2), ConvBN(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.enter(x)]
        for _ in range(3):
            found.append(max_pool2d(found[-1], 5, stride=1, padding=2))
        return self.leave(torch.cat(found, 1))


class Attention(nn.Module):
    """Of all cells to each other, in heads of 64 channels with keys of 32; a depthwise convolution tells places."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(channels // 64, 1)
        self.dim = channels // self.heads
        self.qkv = ConvBN(channels, channels + 2 * self.heads * (self.dim // 2), act=False)
        self.places = ConvBN(channels, channels, 3, groups=channels, act=False)
        self.proj = ConvBN(channels, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        each = self.qkv(x).flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)  # [B, heads, H * W, 2 dim]
        q, k, v = each.split([self.dim // 2, self.dim // 2, self.dim], -1)
        found = scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
        values = v.transpose(2, 3).reshape(x.shape)
        return self.proj(found + self.places(values))


class C2PSA(nn.Module):
    """Half of the channels goes through layers of attention and an MLP of twice the width, beside the other half."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.enter, self.leave = ConvBN(channels, 2 * hidden), ConvBN(2 * hidden, channels)
        self.attention = nn.ModuleList(Attention(hidden) for _ in range(depth))
        self.mlp = nn.ModuleList(
            nn.Sequential(ConvBN(hidden, 2 * hidden), ConvBN(2 * hidden, hidden, act=False)) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        beside, x = self.enter(x).chunk(2, 1)
        for attention, mlp in zip(self.attention, self.mlp, strict=True):
            x = x + attention(x)
            x = x + mlp(x)
        return self.leave(torch.cat([beside, x], 1))
