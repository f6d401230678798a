"""A decoder of queries that each look at a few places of one map (Deformable DETR: Zhu et al., 2021, arXiv 2010.04159),
in groups of which one is left in evaluation (Group DETR: Chen et al., 2023, arXiv 2207.13085).

A query keeps the box that it starts from, and its places are told relative to it in every layer (RF-DETR: Robinson et
al., 2025, arXiv 2511.09554). Modules have the names of transformers.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, relu, scaled_dot_product_attention

from segfolio.layers.prompt_decoder import MLP
from segfolio.precision import as_weights, without_autocast


class GroupAttention(nn.Module):
    """Of the queries of a group to each other."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, queries: Tensor, places: Tensor, groups: int) -> Tensor:
        """Queries and what tells their places, `[B, G Q, D]` each."""

        def split(x: Tensor) -> Tensor:
            return x.unflatten(1, (groups, -1)).flatten(0, 1).unflatten(2, (self.heads, -1)).transpose(1, 2)

        placed = queries + places
        found = scaled_dot_product_attention(
            split(self.q_proj(placed)), split(self.k_proj(placed)), split(self.v_proj(queries))
        )
        return self.o_proj(found.transpose(1, 2).flatten(2).unflatten(0, (-1, groups)).flatten(1, 2))


class BoxAttention(nn.Module):
    """Of queries to `points` places of a map for each head, which lie around the query's box."""

    def __init__(self, dim: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.sampling_offsets = nn.Linear(dim, 2 * heads * points)
        self.attention_weights = nn.Linear(dim, heads * points)
        self.value_proj, self.output_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def initialise(self) -> None:
        """Each head looks into a direction of its own, each of its points one step further."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)[:, None] * direction[:, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(steps.flatten())
        for zero in (self.sampling_offsets.weight, self.attention_weights.weight, self.attention_weights.bias):
            nn.init.zeros_(zero)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, boxes: Tensor, pixels: Tensor, seen: Tensor) -> Tensor:
        """Queries to what they see, `[B, Q, D]` each.

        Args:
            boxes: `[B, Q, 4]` float32, centre and sides in parts of the map.
            pixels: `[B, D, h, w]`.
            seen: `[B, h, w]` bool, false where there is padding.
        """
        values = self.value_proj(pixels.flatten(2).mT) * seen.flatten(1)[..., None]
        values = values.mT.unflatten(1, (self.heads, -1)).flatten(0, 1).unflatten(2, pixels.shape[-2:])
        offsets = self.sampling_offsets(queries).unflatten(2, (self.heads, self.points, 2)).transpose(1, 2)
        weights = self.attention_weights(queries).unflatten(2, (self.heads, self.points)).transpose(1, 2).softmax(-1)
        with without_autocast(pixels.device):
            centre, sides = boxes[:, None, :, None].split(2, -1)
            places = 2 * (centre + offsets.to(boxes.dtype) * sides / (2 * self.points)) - 1
            found = grid_sample(values.to(boxes.dtype), places.flatten(0, 1), align_corners=False)
            found = (found * weights.flatten(0, 1)[:, None].to(boxes.dtype)).sum(-1)  # [B heads, D / heads, Q]
        found = found.unflatten(0, (-1, self.heads)).flatten(1, 2).mT
        return self.output_proj(as_weights(found, self.output_proj))


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.fc2(self.dropout(relu(self.fc1(x)))))


class DecoderLayer(nn.Module):
    """Attention among queries, to the map, and a perceptron, each normalised after it was added."""

    def __init__(self, dim: int, heads: int, box_heads: int, points: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = GroupAttention(dim, heads)
        self.cross_attn = BoxAttention(dim, box_heads, points)
        self.mlp = FeedForward(dim, hidden, dropout)
        self.self_attn_layer_norm, self.cross_attn_layer_norm, self.layer_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Tensor, places: Tensor, boxes: Tensor, pixels: Tensor, seen: Tensor, groups: int
    ) -> Tensor:
        queries = self.self_attn_layer_norm(queries + self.dropout(self.self_attn(queries, places, groups)))
        looked = self.cross_attn(queries + places, boxes, pixels, seen)
        queries = self.cross_attn_layer_norm(queries + self.dropout(looked))
        return self.layer_norm(self.mlp(queries))


class BoxDecoder(nn.Module):
    """Layers of queries that start from boxes.

    Args:
        dim: D.
        depth: number of layers.
        heads, box_heads: of the attention among queries, and to the map.
        points: of each head in the map.
        hidden: of the perceptrons.
        dropout: of all that is added to the queries.
    """

    def __init__(
        self, dim: int, depth: int, heads: int, box_heads: int, points: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, box_heads, points, hidden, dropout) for _ in range(depth))
        self.layernorm = nn.LayerNorm(dim)
        self.ref_point_head = MLP(2 * dim, dim, dim, depth=2)

    def initialise(self) -> None:
        for p in self.parameters():
            if p.ndim > 1:
                nn.init.xavier_uniform_(p)
        for module in self.modules():
            if isinstance(module, BoxAttention):
                module.initialise()

    def forward(self, queries: Tensor, boxes: Tensor, pixels: Tensor, seen: Tensor, groups: int) -> list[Tensor]:
        """Queries `[B, G Q, D]` behind each layer, normalised; the others are those of `BoxAttention`."""
        places = self.ref_point_head(as_weights(waves(boxes, self.dim // 2), self.ref_point_head))
        found = []
        for layer in self.layers:
            queries = layer(queries, places, boxes, pixels, seen, groups)
            found.append(self.layernorm(queries))
        return found


def waves(boxes: Tensor, dim: int) -> Tensor:
    """Boxes `[..., 4]` to sines and cosines of y, x, width and height, `[..., 4 dim]`."""
    length = 10000 ** (2 * torch.arange(dim // 2, device=boxes.device, dtype=boxes.dtype) / dim)
    x, y, width, height = (2 * math.pi * boxes[..., None] / length).unbind(-2)
    phases = torch.stack([y, x, width, height], -2)
    return torch.stack([phases.sin(), phases.cos()], -1).flatten(-3)
