"""SAM's prompt encoder and mask decoder (Segment Anything, arXiv 2304.02643, section 3 and appendix A), which MobileSAM
and SAM 2 took over. Modules have the names of the original release.

A prompt becomes tokens, one of each point and two of each box, and a map that is added to the image's embedding. The
tokens, with one of each mask to be predicted and one of their quality, attend to each other and to the image, and the
image to them, twice. Each mask's token then becomes the weights by which the enlarged image is read.

P prompts are of B images. As long as no prompt has added a mask to it, an image is the same for all its prompts: it is
projected once for the first layer, not for each of them.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import embedding, relu, scaled_dot_product_attention

from segfolio.errors import SegfolioError
from segfolio.layers.prompting import PromptInput, Reading

NOT_A_POINT, PADDING = -1, -10


class FourierPositions(nn.Module):
    """Sines and cosines of places, at random frequencies that are not trained."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, dim // 2))

    def forward(self, places: Tensor) -> Tensor:
        """Of x and y in parts of the image, `[..., 2]` in 0..1, to `[..., C]`, in float32 also where weights are not.

        Products of two, not a matrix product, which mixed precision would take in half of the bits.
        """
        matrix = self.positional_encoding_gaussian_matrix
        matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
        x, y = (2 * places.to(matrix) - 1).split(1, -1)
        angles = 2 * torch.pi * (x * matrix[0] + y * matrix[1])
        return torch.cat([angles.sin(), angles.cos()], -1)

    def grid(self, side: int) -> Tensor:
        """Of the centres of `side` x `side` cells, row by row, `[side * side, C]`."""
        cells = torch.arange(side, device=self.positional_encoding_gaussian_matrix.device, dtype=torch.float32)
        centres = (cells + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self(torch.stack([x, y], -1).flatten(0, 1))


class PromptTokens(NamedTuple):
    """P prompts as the decoder takes them.

    Attributes:
        sparse: `[P, N, C]`, of points and corners of boxes.
        attended: `[P, N]` bool, which of them are there at all.
        dense: `[P, C, h, w]` of masks; `[1, C]`, the same for every prompt and cell, if none has one.
    """

    sparse: Tensor
    attended: Tensor
    dense: Tensor


class PromptEncoder(nn.Module):
    """Points, boxes and masks to tokens and maps.

    Args:
        dim: C.
        image_size: side of the padded square, in pixels.
        stride: pixels to a cell of the image's embedding; masks have 4 x 4 to a cell.
        mask_channels: of the convolutions that masks go through.
        padding: "masked" leaves what a prompt lacks out of every attention, so that a prompt's answer is the same
            whatever it is batched with; "zero" has tokens of zeros in its place that are attended to, and "not a
            point" for all prompts or, if boxes are given, for none, as transformers has.
    """

    def __init__(
        self,
        dim: int,
        image_size: int,
        stride: int = 16,
        mask_channels: int = 16,
        padding: Literal["masked", "zero"] = "masked",
    ) -> None:
        super().__init__()
        self.image_size, self.side, self.padding = image_size, image_size // stride, padding
        self.pe_layer = FourierPositions(dim)
        self.point_embeddings = nn.ModuleList(
            nn.Embedding(1, dim) for _ in ("beside", "on", "upper left", "lower right")
        )
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def forward(self, prompts: PromptInput) -> PromptTokens:
        """
        Raises:
            SegfolioError: masks of another size than the decoder's.
        """
        sparse, attended = self._sparse(prompts)
        dense = self._dense(prompts.masks)
        if self.training:  # whatever the prompts consist of, no parameter is without a gradient: DDP waits for all
            dense = dense + 0 * torch.stack([p.sum() for p in self.parameters()]).sum()
        return PromptTokens(sparse.to(dense.dtype), attended, dense)

    def positions(self) -> Tensor:
        """Of the cells of the image's embedding, `[h * w, C]`."""
        return self.pe_layer.grid(self.side).to(self.no_mask_embed.weight.dtype)

    def _sparse(self, prompts: PromptInput) -> tuple[Tensor, Tensor]:
        there = prompts.kinds != PADDING
        tokens, attended = [self._points(prompts.points, prompts.kinds)], [there]
        if prompts.boxes is None:
            without_box = torch.ones_like(prompts.image, dtype=torch.bool)
        else:
            without_box = prompts.boxes.isnan().any(-1)
            tokens.append(self._corners(prompts.boxes.nan_to_num()))
            attended.append(~without_box[:, None].expand(-1, 2))
        if prompts.kinds.shape[1] and (self.padding == "masked" or prompts.boxes is None):
            tokens.append(self.not_a_point_embed.weight.expand(len(there), 1, -1))
            needed = there.any(1) & without_box if self.padding == "masked" else without_box
            attended.append(needed[:, None])
        sparse, which = torch.cat(tokens, 1), torch.cat(attended, 1)
        if self.padding == "zero":
            return sparse.where(which[..., None], 0), torch.ones_like(which)
        return sparse, which

    def _points(self, points: Tensor, kinds: Tensor) -> Tensor:
        """`[P, K, 2]` and `[P, K]` to `[P, K, C]`; "not a point" is nowhere."""
        beside, on, *_ = list[Any](self.point_embeddings)
        table = torch.cat([self.not_a_point_embed.weight, beside.weight, on.weight])
        kind = embedding(kinds.clamp(min=NOT_A_POINT) - NOT_A_POINT, table)
        return kind + self.pe_layer(points / self.image_size).where(kinds[..., None] > NOT_A_POINT, 0)

    def _corners(self, boxes: Tensor) -> Tensor:
        """`[P, 4]` to `[P, 2, C]`; half a pixel is added, as in the release, whose weights are used to it."""
        *_, upper_left, lower_right = list[Any](self.point_embeddings)
        places = (boxes.unflatten(-1, (2, 2)) + 0.5) / self.image_size
        return self.pe_layer(places) + torch.cat([upper_left.weight, lower_right.weight])

    def _dense(self, masks: Tensor | None) -> Tensor:
        weight = self.no_mask_embed.weight
        if masks is None:
            return weight
        if masks.shape[1:] != (4 * self.side, 4 * self.side):
            raise SegfolioError(
                f"prompts have masks of {masks.shape[2]}x{masks.shape[1]} cells, expected {4 * self.side}x"
                f"{4 * self.side}: the logits of an earlier answer over the padded image"
            )
        return self.mask_downscaling(masks[:, None].to(weight.dtype))


class Cells(NamedTuple):
    """What a layer needs of images, `[B, h * w, ...]`.

    Attributes:
        image: C channels.
        placed: these with the positions of the cells.
        keys, values, queries: projected, where an image is shared by several prompts; else None.
    """

    image: Tensor
    placed: Tensor
    keys: Tensor | None = None
    values: Tensor | None = None
    queries: Tensor | None = None

    def of(self, images: Tensor) -> "Cells":
        """Of each of P prompts the image that it is of."""
        if len(self.image) == 1:
            return Cells._make(x if x is None else x.expand(len(images), -1, -1) for x in self)
        return Cells._make(x if x is None else x.index_select(0, images) for x in self)


class Attention(nn.Module):
    """Of several heads, within `dim // reduction` channels.

    An image has thousands of cells and a prompt a few tokens. The product of a token's query with a cell's key is that
    of the query, projected once more, with the cell itself; likewise where a cell attends
    to tokens. So cells are projected only where several prompts share them: the result is the same, for half the work.
    """

    def __init__(self, dim: int, heads: int, reduction: int = 1) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // reduction // heads) ** -0.5
        self.q_proj = nn.Linear(dim, dim // reduction)
        self.k_proj = nn.Linear(dim, dim // reduction)
        self.v_proj = nn.Linear(dim, dim // reduction)
        self.out_proj = nn.Linear(dim // reduction, dim)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, attended: Tensor) -> Tensor:
        """Among tokens `[P, N, C]`, of which those are `attended` to that `[P, N]` holds."""
        return self._attend(queries, self.k_proj(keys), self.v_proj(values), attended[:, None, None])

    def to_image(self, tokens: Tensor, cells: Cells) -> Tensor:
        """Of tokens `[P, N, C]` to the cells of their images."""
        if cells.keys is not None and cells.values is not None:
            return self._attend(tokens, cells.keys, cells.values)
        queries = (self._split(self.q_proj(tokens)) @ self._per_head(self.k_proj.weight)).flatten(1, 2)
        queries = queries + 0 * self.k_proj.bias.sum()  # it changes nothing, and DDP waits for its gradient
        found = scaled_dot_product_attention(
            queries[:, None], cells.placed[:, None], cells.image[:, None], scale=self.scale
        )
        found = found[:, 0].unflatten(1, (self.heads, -1)) @ self._per_head(self.v_proj.weight).transpose(1, 2)
        return self.out_proj(found.transpose(1, 2).flatten(2) + self.v_proj.bias)

    def to_tokens(self, cells: Cells, keys: Tensor, values: Tensor, attended: Tensor) -> Tensor:
        """Of all cells `[P, h * w, C]` to the tokens of their prompts, of which those are seen that are `attended`."""
        keys = self._split(self.k_proj(keys)) * self.scale
        scores = torch.zeros_like(attended, dtype=keys.dtype).masked_fill(~attended, -torch.inf)[:, None, :, None]
        if cells.queries is not None:
            scores = scores + keys @ self._split(cells.queries).transpose(2, 3)
        else:
            folded = (keys @ self._per_head(self.q_proj.weight)).flatten(1, 2)
            bias = keys @ self._per_head(self.q_proj.bias[:, None])
            scores = scores + bias + (folded @ cells.placed.transpose(1, 2)).unflatten(1, (self.heads, -1))
        values = self._split(self.v_proj(values)) @ self._per_head(self.out_proj.weight.T)
        values = values + self.out_proj.bias / self.heads  # of each head the weights are 1 together
        return scores.softmax(2).flatten(1, 2).transpose(1, 2) @ values.flatten(1, 2)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (self._split(x) for x in (self.q_proj(queries), keys, values))
        return self.out_proj(scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """`[P, N, c]` to `[P, heads, N, c / heads]`."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _per_head(self, weight: Tensor) -> Tensor:
        """`[c, C]` to `[heads, c / heads, C]`."""
        return weight.unflatten(0, (self.heads, -1))


class TwoWayBlock(nn.Module):
    """A layer of the decoder, figure 14: tokens attend to tokens, then to the image, and the image to the tokens."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, reduction=2)
        self.norm2 = nn.LayerNorm(dim)
        lin1, lin2 = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)
        self.mlp = nn.Sequential(OrderedDict(lin1=lin1, act=nn.ReLU(), lin2=lin2))
        self.norm3 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, reduction=2)
        self.norm4 = nn.LayerNorm(dim)

    def shared(self, image: Tensor, positions: Tensor) -> Cells:
        """Images `[B, h * w, C]` that have several prompts each."""
        to_image, to_token, placed = self.cross_attn_token_to_image, self.cross_attn_image_to_token, image + positions
        return Cells(image, placed, to_image.k_proj(placed), to_image.v_proj(image), to_token.q_proj(placed))

    def forward(self, tokens: Tensor, cells: Cells, original: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `[P, N, C]` and the images of their prompts to both, attended to.

        Args:
            original: the tokens before the first layer, which stand for their positions.
            attended: `[P, N]`, see `PromptTokens`.
        """
        if self.first:
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens, attended))
        else:
            placed = tokens + original
            tokens = self.norm1(tokens + self.self_attn(placed, placed, tokens, attended))
        tokens = self.norm2(tokens + self.cross_attn_token_to_image.to_image(tokens + original, cells))
        tokens = self.norm3(tokens + self.mlp(tokens))
        found = self.cross_attn_image_to_token.to_tokens(cells, tokens + original, tokens, attended)
        return tokens, self.norm4(cells.image + found)


class TwoWayTransformer(nn.Module):
    """The layers, and a last attention of the tokens to the image."""

    def __init__(self, dim: int, depth: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, heads, mlp_dim, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, heads, reduction=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def shared(self, image: Tensor, positions: Tensor) -> Cells:
        """Of the first layer, see `TwoWayBlock.shared`."""
        first: Any = self.layers[0]
        return first.shared(image, positions)

    def forward(self, tokens: Tensor, cells: Cells, positions: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `[P, N, C]` and the first layer's cells to tokens and images `[P, h * w, C]` after all layers."""
        original = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, cells, original, attended)
            cells = Cells(image, image + positions)
        return self.norm_final_attn(tokens + self.final_attn_token_to_image.to_image(tokens + original, cells)), image


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, dim: int, hidden: int, out: int, depth: int = 3) -> None:
        super().__init__()
        widths = [dim, *[hidden] * (depth - 1), out]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = relu(layer(x))
        return last(x)


class MaskDecoder(nn.Module):
    """Tokens of prompts and embeddings of images to masks and how well they fit.

    Args:
        dim: C.
        depth: of the transformer.
        num_masks: of an ambiguous prompt; the one of a prompt that is not has a token of its own, the first.
        iou_hidden: width of the head that predicts how well masks fit.
    """

    def __init__(
        self,
        dim: int,
        depth: int = 2,
        heads: int = 8,
        mlp_dim: int = 2048,
        num_masks: int = 3,
        iou_hidden: int = 256,
    ) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, depth, heads, mlp_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(num_masks + 1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim // 8) for _ in range(num_masks + 1))
        self.iou_prediction_head = MLP(dim, iou_hidden, num_masks + 1)

    def read(
        self, image: Tensor, positions: Tensor, prompts: PromptTokens, of: Tensor, multimask: bool = True
    ) -> Reading:
        """Embeddings `[B, C, h, w]`, positions `[h * w, C]` of their cells and P prompts, with the image `of` each."""
        image = image.flatten(2).transpose(1, 2).contiguous()
        if prompts.dense.ndim == 2:
            cells = self.transformer.shared(image + prompts.dense, positions)
        else:
            image = image.index_select(0, of) + prompts.dense.flatten(2).transpose(1, 2)
            cells, of = Cells(image, image + positions), torch.arange(len(of), device=of.device)

        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(of), -1, -1), prompts.sparse], 1)
        attended = torch.cat([prompts.attended.new_ones(len(of), len(own)), prompts.attended], 1)
        portions = [
            self.transformer(tokens[part], cells.of(of[part]), positions, attended[part])
            for part in _portions(len(of), image)
        ]
        tokens, image = (torch.cat(each) for each in zip(*portions, strict=True))

        heads = zip(self.output_hypernetworks_mlps, tokens[:, 1 : len(own)].unbind(1), strict=True)
        readers = torch.stack([head(token) for head, token in heads], 1)  # of all masks: none is without a gradient
        chosen = slice(1, None) if multimask else slice(0, 1)
        iou = self.iou_prediction_head(tokens[:, 0])
        return Reading(iou[:, chosen], None, (readers[:, chosen], image))

    def draw(self, reading: Reading, keep: Tensor | None = None) -> Tensor:
        """As `PromptableNetwork.draw` says: only prompts of which an answer is kept are enlarged."""
        readers, image = reading.state
        if keep is not None:
            kept = keep.any(1)
            readers, image, keep = readers[kept], image[kept], keep[kept]
        portions = _portions(len(image), image)
        masks = [self._masks(readers[part], image[part]) for part in portions]
        return torch.cat(masks if keep is None else [m[keep[part]] for m, part in zip(masks, portions, strict=True)])

    def _masks(self, readers: Tensor, image: Tensor) -> Tensor:
        side = round(image.shape[1] ** 0.5)
        pixels = self.output_upscaling(image.transpose(1, 2).unflatten(2, (side, side)))
        return torch.einsum("pmc,pchw->pmhw", readers, pixels)


def _portions(count: int, image: Tensor, numbers: int = 2**22) -> list[slice]:
    """P prompts in portions, on the CPU of few so that what is computed of them stays in its caches."""
    size = max(numbers // image[:1].numel(), 1) if image.is_cpu and image.numel() else max(count, 1)
    return [slice(start, start + size) for start in range(0, max(count, 1), size)]
