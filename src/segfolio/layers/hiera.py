"""Hiera (arXiv 2306.00989) as SAM 2 has it (arXiv 2408.00714, appendix D.1), with a feature pyramid behind it. Modules
have the names of SAM 2's release, but for the layers of the MLPs.

Four stages of strides 4 to 32. Blocks attend within windows but for a few that see the whole image; the first block of
a stage halves the sides by pooling its queries, and still has the windows of the stage before.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, pad, scaled_dot_product_attention

from segfolio.layers.again import through


class Hiera(nn.Module):
    """Images to the maps of its stages.

    Args:
        in_channels: of the images.
        width: channels of the first stage; each later one has twice as many, and twice the heads.
        heads: of the attention in the first stage.
        stages: blocks of each.
        windows: side of the windows of each stage, in cells.
        global_blocks: that attend to the whole image, counted through all stages.
        background: side of the coarse table of positions, which is enlarged to the image; a second one, of the size of
            a window of the first stage, is repeated (arXiv 2311.05613).
        drop_path: stochastic depth of the last block; it grows linearly from 0 at the first.
        checkpointing: compute the blocks a second time in the backward pass, and keep less.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        heads: int,
        stages: Sequence[int],
        windows: Sequence[int],
        global_blocks: Sequence[int],
        background: int,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.channels = [width << stage for stage in range(len(stages))]
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(in_channels, width, 7, stride=4, padding=3)))
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, width, background, background), std=0.02))
        self.pos_embed_window = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(1, width, windows[0], windows[0]), std=0.02)
        )
        depth, self.blocks = sum(stages), nn.ModuleList()
        self.ends = [sum(stages[: stage + 1]) - 1 for stage in range(len(stages))]
        for stage, count in enumerate(stages):
            for index in range(count):
                first, number = stage > 0 and index == 0, len(self.blocks)
                window = 0 if number in global_blocks else windows[stage - first]
                rate = drop_path * number / max(depth - 1, 1)
                dims = (self.channels[stage - first], self.channels[stage])
                self.blocks.append(Block(*dims, heads << stage, window, first, rate))

    def forward(self, images: Tensor) -> list[Tensor]:
        """`[B, C_in, H, W]`, sides multiples of 32, to `[B, width * 2^s, H / 2^(s + 2), W / 2^(s + 2)]` of each stage
        s."""
        x = self.patch_embed(images).permute(0, 2, 3, 1)
        x = x + self._positions((x.shape[1], x.shape[2]))
        found = []
        for number, block in enumerate(self.blocks):
            x = through(self, block, x)
            if number in self.ends:
                found.append(x.permute(0, 3, 1, 2))
        return found

    def _positions(self, size: tuple[int, int]) -> Tensor:
        """`[1, h, w, width]`."""
        coarse = interpolate(self.pos_embed, size, mode="bicubic")
        window = self.pos_embed_window.shape[-1]
        repeated = self.pos_embed_window.repeat(1, 1, -(-size[0] // window), -(-size[1] // window))
        return (coarse + repeated[..., : size[0], : size[1]]).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Attention, in windows or to the whole image, and an MLP: `[B, h, w, D]` to `[B, h, w, D']`, or half the sides.

    Args:
        dim, out: D and D'.
        window: 0 for the whole image.
        pools: halves the sides.
    """

    def __init__(self, dim: int, out: int, heads: int, window: int, pools: bool, drop_path: float) -> None:
        super().__init__()
        self.window, self.pools = window, pools
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = PoolingAttention(dim, out, heads, pools)
        self.norm2 = nn.LayerNorm(out, eps=1e-6)
        lin1, lin2 = nn.Linear(out, 4 * out), nn.Linear(4 * out, out)
        self.mlp = nn.Sequential(OrderedDict(lin1=lin1, act=nn.GELU(), lin2=lin2))
        if pools:
            self.proj = nn.Linear(dim, out)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        if self.pools:
            x = _pooled(self.proj(normed))
        attended = self._in_windows(normed) if self.window else self.attn(normed)
        x = x + self.drop_path(attended[:, : x.shape[1], : x.shape[2]])
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _in_windows(self, x: Tensor) -> Tensor:
        """Zeros that fill the windows on the right and below are attended to, as weights are used to it, and are still
        there."""
        batch, height, width = x.shape[:3]
        x = pad(x, (0, 0, 0, -width % self.window, 0, -height % self.window))
        x = x.unflatten(1, (-1, self.window)).unflatten(3, (-1, self.window)).transpose(2, 3)
        down, across = x.shape[1:3]
        x = self.attn(x.flatten(0, 2)).unflatten(0, (batch, down, across))
        return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class PoolingAttention(nn.Module):
    """`[B, h, w, D]` to `[B, h, w, D']`; half the sides, if the queries are pooled."""

    def __init__(self, dim: int, out: int, heads: int, pools: bool) -> None:
        super().__init__()
        self.heads, self.pools = heads, pools
        self.qkv = nn.Linear(dim, 3 * out)
        self.proj = nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.qkv(x).chunk(3, -1)
        if self.pools:
            queries = _pooled(queries)
        size = queries.shape[1:3]
        q, k, v = (
            each.flatten(1, 2).unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in (queries, keys, values)
        )
        x = scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2).unflatten(1, size))


class Neck(nn.Module):
    """A feature pyramid without convolutions behind its sums: of strides 4 and 8 a stage's own features, of stride 16
    also those of stride 32, each projected to `dim` channels."""

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(  # the coarsest first, as in the release
            nn.Sequential(OrderedDict(conv=nn.Conv2d(each, dim, 1))) for each in reversed(channels)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Of strides 4, 8, 16 and 32 to those of strides 4, 8 and 16."""
        *finer, coarsest = (conv(each) for conv, each in zip(reversed(self.convs), maps, strict=True))
        finer[-1] = finer[-1] + interpolate(coarsest, scale_factor=2.0, mode="nearest")
        return finer


def _pooled(x: Tensor) -> Tensor:
    """The largest of each 2 x 2 cells of `[B, h, w, D]`."""
    return max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
