"""Axial attention (Axial-DeepLab, Wang et al., 2020, arXiv 2003.07853) and the dual-path transformer of MaX-DeepLab
(Wang et al., 2021, arXiv 2012.00759, section 3.2): residual blocks on pixels, and pixels and a memory in exchange."""

from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.functional import relu

from segfolio.errors import SegfolioError

HEADS = 8


class Pointwise(nn.Module):
    """A linear layer without bias and its batch normalisation, on tokens `[B, N, C]`."""

    def __init__(self, inputs: int, outputs: int, last: bool = False, std: float | None = None) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs)
        nn.init.trunc_normal_(self.linear.weight, std=std or (2 / inputs) ** 0.5)
        if last:
            nn.init.zeros_(self.norm.weight)  # of a residual branch

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.linear(tokens).flatten(0, 1)).unflatten(0, tokens.shape[:2])


class AxialAttention(nn.Module):
    """Attention along one axis, with relative positions of queries, keys and values.

    Args:
        keys, values: channels of all heads.
        span: positions that an axis may have at most.
    """

    def __init__(self, channels: int, keys: int, values: int, span: int) -> None:
        super().__init__()
        self.keys, self.values, self.span = keys, values, span
        self.qkv = Pointwise(channels, 2 * keys + values, std=channels**-0.5)
        for name, depth in (("query", keys), ("key", keys), ("value", values)):
            self.register_parameter(f"{name}_position", nn.Parameter(torch.randn(2 * span - 1, depth // HEADS)))
        self.similarity_norm = nn.BatchNorm2d(3 * HEADS)
        self.output_norm = nn.BatchNorm1d(2 * values)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, L, C]` to `[B, L, V]`."""
        length = tokens.shape[1]
        if length > self.span:
            raise SegfolioError(
                f"axial attention has positions for {self.span} tokens on an axis and gets {length}; give smaller "
                "images, or a network with a larger span"
            )
        split = self.qkv(tokens).split([self.keys, self.keys, self.values], -1)
        query, key, value = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in split)
        places = torch.arange(length, device=tokens.device)
        apart = places[None] - places[:, None] + self.span - 1
        own: Any = self
        tables = (own.query_position, own.key_position, own.value_position)
        of_query, of_key, of_value = (table[apart] for table in tables)
        similarity = torch.cat(
            [
                query @ key.transpose(2, 3),
                torch.einsum("bhld,lmd->bhlm", query, of_query),
                torch.einsum("bhmd,lmd->bhlm", key, of_key),
            ],
            1,
        )
        weights = self.similarity_norm(similarity).unflatten(1, (3, HEADS)).sum(1).softmax(-1)
        read = torch.stack([weights @ value, torch.einsum("bhlm,lmd->bhld", weights, of_value)], 1)
        read = self.output_norm(read.transpose(3, 4).flatten(1, 3)).unflatten(1, (2, -1)).sum(1)
        return read.transpose(1, 2)


class AxialAttention2d(nn.Module):
    """Along the height, then along the width."""

    def __init__(self, channels: int, keys: int, values: int, span: int) -> None:
        super().__init__()
        self.height = AxialAttention(channels, keys, values, span)
        self.width = AxialAttention(values, keys, values, span)

    def forward(self, maps: Tensor) -> Tensor:
        """`[B, C, h, w]` to `[B, V, h, w]`."""
        batch, _, height, width = maps.shape
        down = self.height(maps.permute(0, 3, 2, 1).flatten(0, 1)).unflatten(0, (batch, width))
        along = self.width(down.transpose(1, 2).flatten(0, 1)).unflatten(0, (batch, height))
        return along.permute(0, 3, 1, 2)


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, dilation: int = 1, last: bool = False) -> Any:
    """A convolution without bias that keeps the size but for its stride, and its batch normalisation."""
    padding = dilation * (kernel // 2)
    norm = nn.BatchNorm2d(outputs)
    if last:
        nn.init.zeros_(norm.weight)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False), norm)


class ResidualBlock(nn.Module):
    """What comes in is activated, what goes out is not.

    Args:
        widths: of the convolutions, two of 3x3, or a bottleneck of 1x1, 3x3 and 1x1.
        attention: of keys and values, in the place of the bottleneck's 3x3; None of a convolution.
        drop_path: stochastic depth.
    """

    def __init__(
        self,
        inputs: int,
        widths: list[int],
        stride: int,
        attention: tuple[int, int] | None,
        span: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        outputs = widths[-1]
        layers: list[Any] = []
        if len(widths) == 2:
            layers = [conv(inputs, widths[0], 3, stride), nn.ReLU(), conv(widths[0], outputs, 3, last=True)]
        else:
            middle: Any = conv(widths[0], widths[1], 3, stride)
            between = widths[1]
            if attention is not None:
                middle, between = AxialAttention2d(widths[0], *attention, span), attention[1]
            first = conv(inputs, widths[0])
            layers = [first, nn.ReLU(), middle, nn.ReLU(), conv(between, outputs, last=True)]
        self.layers = nn.Sequential(*layers)
        self.shortcut = conv(inputs, outputs, stride=stride) if inputs != outputs or stride > 1 else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, maps: Tensor) -> Tensor:
        maps = relu(maps)
        return self.shortcut(maps) + self.drop_path(self.layers(maps))


class DualPath(nn.Module):
    """Memory reads pixels and itself at once, and pixels read the memory; attention among pixels is a block's before.

    Args:
        pixels, memory: channels.
        filters: of keys; values and bottleneck have twice as many.
        feedforward: hidden channels of the memory's.
    """

    def __init__(self, pixels: int, memory: int, filters: int, feedforward: int, drop_path: float) -> None:
        super().__init__()
        inner, self.split = 2 * filters, [filters, filters, 2 * filters]
        std = inner**-0.5
        self.memory_in, self.pixel_in = Pointwise(memory, inner), Pointwise(pixels, inner)
        self.memory_qkv, self.pixel_qkv = (Pointwise(inner, sum(self.split), std=std) for _ in range(2))
        self.memory_read, self.pixel_read = Read(2 * filters), Read(2 * filters)
        self.memory_out = Pointwise(2 * filters, memory, last=True)
        self.pixel_out = Pointwise(2 * filters, pixels, last=True)
        self.expand, self.contract = Pointwise(memory, feedforward), Pointwise(feedforward, memory, last=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, maps: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, C, h, w]` and `[B, N, D]` to the same."""
        tokens = maps.flatten(2).transpose(1, 2)
        of_memory, of_pixels = relu(self.memory_in(memory)), relu(self.pixel_in(relu(tokens)))
        m_query, m_key, m_value = self.memory_qkv(of_memory).split(self.split, -1)
        p_query, p_key, p_value = self.pixel_qkv(of_pixels).split(self.split, -1)
        read = self.memory_read(m_query, torch.cat([p_key, m_key], 1), torch.cat([p_value, m_value], 1))
        memory = relu(memory + self.drop_path(self.memory_out(read)))
        memory = relu(memory + self.drop_path(self.contract(relu(self.expand(memory)))))
        tokens = tokens + self.drop_path(self.pixel_out(self.pixel_read(p_query, m_key, m_value)))
        return tokens.transpose(1, 2).unflatten(2, maps.shape[-2:]), memory


class Read(nn.Module):
    """Attention whose logits and result are normalised by batch, and the result activated."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.similarity_norm, self.output_norm = nn.BatchNorm2d(HEADS), nn.BatchNorm1d(values)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Tokens `[B, L, K]`, `[B, M, K]`, `[B, M, V]` to `[B, L, V]`."""
        query, key, value = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (query, key, value))
        weights = self.similarity_norm(query @ key.transpose(2, 3)).softmax(-1)
        read = (weights @ value).transpose(2, 3).flatten(1, 2)
        return relu(self.output_norm(read)).transpose(1, 2)
