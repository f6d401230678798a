"""SAM 2's memory (arXiv 2408.00714, section 4 and appendix D.1): how a frame and the masks found in it are kept, and
how a later frame attends to what was kept. Modules have the names of the release.
"""

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, scaled_dot_product_attention

MEMORY_DIM = 64


def sine_positions(side: int, dim: int, device: torch.device) -> Tensor:
    """Of the cells of a square `[dim, side, side]` in float32: sines and cosines of the row, then of the column."""
    place = torch.arange(1, side + 1, device=device, dtype=torch.float32)
    place = place / (side + 1e-6) * 2 * torch.pi
    half = dim // 2
    index = torch.arange(half, device=device, dtype=torch.float32)
    angle = place[:, None] / 10000 ** (2 * (index // 2) / half)
    waves = torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], -1).flatten(1).T  # [half, side]
    rows, columns = waves[:, :, None].expand(-1, -1, side), waves[:, None, :].expand(-1, side, -1)
    return torch.cat([rows, columns])


def sine_distances(distances: Tensor, dim: int) -> Tensor:
    """Of distances `[...]` the sines and then the cosines, `[..., dim]`."""
    half = dim // 2
    index = torch.arange(half, device=distances.device, dtype=torch.float32)
    angle = distances[..., None] / 10000 ** (2 * (index // 2) / half)
    return torch.cat([angle.sin(), angle.cos()], -1)


class MaskDownsampler(nn.Module):
    """Masks `[P, 1, 16h, 16w]` to `[P, dim, h, w]`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (1, 4, 16, 64):
            layers += [nn.Conv2d(channels, 4 * channels, 3, stride=2, padding=1), LayerNorm2d(4 * channels), nn.GELU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(256, dim, 1))

    def forward(self, masks: Tensor) -> Tensor:
        return self.encoder(masks)


class FuserBlock(nn.Module):
    """A block of ConvNeXt (arXiv 2201.03545)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        found = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        return x + (self.gamma * self.pwconv2(gelu(self.pwconv1(found)))).permute(0, 3, 1, 2)


class Fuser(nn.Module):
    def __init__(self, dim: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FuserBlock(dim) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """A frame and masks of objects in it to what is kept of these."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(dim)
        self.pix_feat_proj = nn.Conv2d(dim, dim, 1)
        self.fuser = Fuser(dim, depth=2)
        self.out_proj = nn.Conv2d(dim, MEMORY_DIM, 1)

    def forward(self, image: Tensor, of: Tensor, masks: Tensor) -> Tensor:
        """Embeddings `[B, C, h, w]`, with the image `of` each mask `[P, 16h, 16w]`, to `[P, 64, h, w]`."""
        image = self.pix_feat_proj(image)
        image = image if len(image) == 1 else image.index_select(0, of)
        return self.out_proj(self.fuser(image + self.mask_downsampler(masks[:, None])))


Rotations = tuple[Tensor, Tensor]


class RotaryAttention(nn.Module):
    """Of one head, whose queries and keys are rotated by the places of their cells (RoPE, arXiv 2104.09864; in two
    directions, arXiv 2403.13298).

    Args:
        dim: of queries and results.
        keys: channels of what is attended to.
        dropout: of the weights, in training.
    """

    def __init__(self, dim: int, keys: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(keys, dim)
        self.v_proj = nn.Linear(keys, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, rotations: Rotations, attended: Tensor | None = None
    ) -> Tensor:
        """`[P, N, C]` to the same.

        Args:
            keys, values: `[P, S, c]`.
            rotations: of the N queries and of the S keys, see `rotation_of`.
            attended: `[P, S]` bool, which of the keys are there; all if not given.
        """
        q, k = rotated(self.q_proj(queries), rotations[0]), rotated(self.k_proj(keys), rotations[1])
        if q.is_cpu and values.shape[-1] < q.shape[-1] and not self.training:
            # weights are 1 together: what is attended to may as well be projected when it is summed, of few channels
            return self.out_proj(self.v_proj(_summed(q, k, values, attended)))
        dropout = self.dropout if self.training else 0.0
        mask = None if attended is None else attended[:, None, None]
        q, k, v = (each[:, None] for each in (q, k, self.v_proj(values)))
        return self.out_proj(scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)[:, 0])


def _summed(q: Tensor, k: Tensor, values: Tensor, attended: Tensor | None, numbers: int = 2**23) -> Tensor:
    """Of queries `[P, N, C]`, keys `[P, S, C]` and values `[P, S, c]` the attention `[P, N, c]`, of some queries at a
    time, for which few numbers are held."""
    mask = None
    if attended is not None:
        mask = q.new_zeros(attended.shape).masked_fill(~attended, -torch.inf)[:, None]
    q, keys = q * q.shape[-1] ** -0.5, k.transpose(1, 2)
    found = []
    for some in q.split(max(numbers // (len(q) * k.shape[1]), 1), 1):
        weights = some @ keys if mask is None else torch.baddbmm(mask, some, keys)
        found.append(weights.softmax(2) @ values)
    return torch.cat(found, 1)


def rotation_of(side: int, dim: int, device: torch.device) -> Tensor:
    """Complex numbers `[side * side, dim / 2]` by which the pairs of channels of each cell are turned, row by row: the
    first half of them by its column, the second by its row."""
    frequencies = 10000 ** -(torch.arange(0, dim, 4, device=device, dtype=torch.float32) / dim)
    place = torch.arange(side, device=device, dtype=torch.float32)
    angles = place[:, None] * frequencies
    columns, rows = angles[None].expand(side, -1, -1), angles[:, None].expand(-1, side, -1)
    angles = torch.cat([columns, rows], -1).flatten(0, 1)
    return torch.polar(torch.ones_like(angles), angles)


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """`[..., N, C]`, computed in float32 at least."""
    pairs = torch.view_as_complex(x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


class MemoryLayer(nn.Module):
    """A frame attends to itself, then to what is remembered."""

    def __init__(self, dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = RotaryAttention(dim, dim, dropout)
        self.cross_attn_image = RotaryAttention(dim, MEMORY_DIM, dropout)
        self.linear1, self.linear2 = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        placed: Tensor,
        own: Rotations,
        others: Rotations,
        attended: Tensor | None,
    ) -> Tensor:
        """Cells `[P, N, C]`, or `[1, N, C]` of a frame that P objects share as yet, to `[P, N, C]`; see
        `MemoryAttention`."""
        normed = self.norm1(x)
        x = x + self.dropout(self.self_attn(normed, normed, normed, own))
        x = x.expand(len(memory), -1, -1)
        found = self.cross_attn_image(self.norm2(x), placed, memory, others, attended)
        x = x + self.dropout(found)
        return x + self.dropout(self.linear2(self.dropout(relu(self.linear1(self.norm3(x))))))


class MemoryAttention(nn.Module):
    """Makes of a frame's embedding, for each object, one that knows what is remembered of the object.

    Args:
        dim: C.
        depth: layers.
        mlp_dim: width of their MLPs.
        dropout: in training.
    """

    def __init__(self, dim: int, depth: int = 4, mlp_dim: int = 2048, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryLayer(dim, mlp_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        image: Tensor,
        memory: Tensor,
        positions: Tensor,
        unplaced: int,
        attended: Tensor | None = None,
        memory_side: int | None = None,
    ) -> Tensor:
        """Embeddings `[P, C, h, h]`, or `[1, C, h, h]` of one frame, to `[P, C, h, h]`.

        Args:
            memory: `[P, S, 64]`, of squares of cells and, at the end, `unplaced` that are of no cell.
            positions: `[P, S, 64]`, added to it where it is a key.
            attended: `[P, S]` bool, which of it is there; all if not given.
            memory_side: of the squares, in cells; h if not given.
        """
        side = image.shape[-1]
        with torch.no_grad():
            own = 0.1 * sine_positions(side, image.shape[1], image.device)
            rotation = rotation_of(side, image.shape[1], image.device)
            of_square = rotation if memory_side is None else rotation_of(memory_side, image.shape[1], image.device)
            squares = (memory.shape[1] - unplaced) // len(of_square)
            still = torch.ones_like(rotation[:1]).expand(unplaced, -1)
            of_memory = torch.cat([of_square.repeat(squares, 1), still])
        x = (image + own.to(image.dtype)).flatten(2).transpose(1, 2)
        placed = memory + positions
        for layer in self.layers:
            x = layer(x, memory, placed, (rotation, rotation), (rotation, of_memory), attended)
        return self.norm(x).transpose(1, 2).unflatten(2, (side, side))
