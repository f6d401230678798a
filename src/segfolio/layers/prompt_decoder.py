"""SAM's mask decoder (Segment Anything, arXiv 2304.02643, section 3 and appendix A), which MobileSAM and SAM 2 took
over, and the network that it makes with a prompt encoder and an encoder of images. Modules have the names of the
original release.

The tokens of a prompt, with one of each mask to be predicted and one of their quality, attend to each other and to the
image, and the image to them, twice. Each mask's token then becomes the weights by which the enlarged image is read.

P prompts are of B images. As long as no prompt has added a mask to it, an image is the same for all its prompts: it is
projected once for the first layer, not for each of them.
"""

from collections import OrderedDict
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import pad, relu, scaled_dot_product_attention

from segfolio.errors import SegfolioError
from segfolio.layers.prompt_encoder import PromptEncoder, PromptTokens
from segfolio.layers.prompting import Embedding, PromptableNetwork, PromptInput, Reading

STRIDE = 16
DIM = 256  # of embeddings and tokens


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
    of the query, projected once more, with the cell itself; likewise where a cell attends to tokens. So cells are
    projected only where several prompts share them, or a layer has more than its weights (LoRA): the result is the
    same, for half the work.
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
        return self._attend(self.q_proj(queries), self.k_proj(keys), self.v_proj(values), attended[:, None, None])

    def to_image(self, tokens: Tensor, cells: Cells) -> Tensor:
        """Of tokens `[P, N, C]` to the cells of their images."""
        if cells.keys is not None and cells.values is not None:
            return self._attend(self.q_proj(tokens), cells.keys, cells.values)
        if self._adapted:
            return self._attend(self.q_proj(tokens), self.k_proj(cells.placed), self.v_proj(cells.image))
        queries = (self._split(self.q_proj(tokens)) @ self._per_head(self.k_proj.weight)).flatten(1, 2)
        queries = queries + 0 * self.k_proj.bias.sum()  # it changes nothing, and DDP waits for its gradient
        found = scaled_dot_product_attention(
            queries[:, None], cells.placed[:, None], cells.image[:, None], scale=self.scale
        )
        found = found[:, 0].unflatten(1, (self.heads, -1)) @ self._per_head(self.v_proj.weight).transpose(1, 2)
        return self.out_proj(found.transpose(1, 2).flatten(2) + self.v_proj.bias)

    def to_tokens(self, cells: Cells, keys: Tensor, values: Tensor, attended: Tensor) -> Tensor:
        """Of all cells `[P, h * w, C]` to the tokens of their prompts, of which those are seen that are `attended`."""
        if self._adapted:
            queries = self.q_proj(cells.placed) if cells.queries is None else cells.queries
            return self._attend(queries, self.k_proj(keys), self.v_proj(values), attended[:, None, None])
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

    @property
    def _adapted(self) -> bool:
        return any(type(layer) is not nn.Linear for layer in (self.q_proj, self.k_proj, self.v_proj, self.out_proj))

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Of what has been projected."""
        q, k, v = (self._split(x) for x in (queries, keys, values))
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
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens, image = self.attended(own, image, positions, prompts, of)
        chosen = slice(1, None) if multimask else slice(0, 1)
        iou = self.iou_prediction_head(tokens[:, 0])
        return Reading(iou[:, chosen], None, (self.readers(tokens[:, 1:])[:, chosen], image))

    def attended(
        self, own: Tensor, image: Tensor, positions: Tensor, prompts: PromptTokens, of: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The decoder's `own` tokens `[N, C]`, `[P, N, C]` after all layers, and images `[P, h * w, C]`; see `read`."""
        image = image.flatten(2).transpose(1, 2).contiguous()
        if prompts.dense.ndim == 2:
            cells = self.transformer.shared(image + prompts.dense, positions)
        else:
            image = image.index_select(0, of) + prompts.dense.flatten(2).transpose(1, 2)
            cells, of = Cells(image, image + positions), torch.arange(len(of), device=of.device)

        tokens = torch.cat([own.expand(len(of), -1, -1), prompts.sparse], 1)
        attended = torch.cat([prompts.attended.new_ones(len(of), len(own)), prompts.attended], 1)
        parts = [
            self.transformer(tokens[part], cells.of(of[part]), positions, attended[part])
            for part in portions(len(of), image)
        ]
        tokens, image = (torch.cat(each) for each in zip(*parts, strict=True))
        return tokens[:, : len(own)], image

    def readers(self, tokens: Tensor) -> Tensor:
        """Tokens `[P, M, C]` of all masks to the weights by which these are read, `[P, M, c]`; none is without a
        gradient."""
        heads = zip(self.output_hypernetworks_mlps, tokens.unbind(1), strict=True)
        return torch.stack([head(token) for head, token in heads], 1)

    def draw(self, reading: Reading, keep: Tensor | None = None) -> Tensor:
        """As `PromptableNetwork.draw` says: only prompts of which an answer is kept are enlarged."""
        readers, image = reading.state
        if keep is not None:
            kept = keep.any(1)
            readers, image, keep = readers[kept], image[kept], keep[kept]
        parts = portions(len(image), image)
        masks = [self._masks(readers[part], image[part]) for part in parts]
        return torch.cat(masks if keep is None else [m[keep[part]] for m, part in zip(masks, parts, strict=True)])

    def _masks(self, readers: Tensor, image: Tensor) -> Tensor:
        side = round(image.shape[1] ** 0.5)
        pixels = self.output_upscaling(image.transpose(1, 2).unflatten(2, (side, side)))
        return torch.einsum("pmc,pchw->pmhw", readers, pixels)


def portions(count: int, image: Tensor, numbers: int = 2**22) -> list[slice]:
    """P prompts in portions, on the CPU of few so that what is computed of them stays in its caches."""
    size = max(numbers // image[:1].numel(), 1) if image.is_cpu and image.numel() else max(count, 1)
    return [slice(start, start + size) for start in range(0, max(count, 1), size)]


class SamNetwork(PromptableNetwork):
    """An image encoder of stride 16, the prompt encoder and the mask decoder.

    Args:
        image_encoder: images `[B, C_in, image_size, image_size]` to `[B, 256, h, w]`, `neck` at its end.
        image_size: side of the padded square, in pixels, a multiple of 16, see `check_image_size`.
        padding: see `PromptEncoder`.
    """

    def __init__(
        self, image_encoder: nn.Module, image_size: int, padding: Literal["masked", "zero"] = "masked"
    ) -> None:
        super().__init__()
        self.image_size, self.mask_size = image_size, image_size // 4
        self.image_encoder = image_encoder
        self.prompt_encoder = PromptEncoder(DIM, image_size, STRIDE, padding=padding)
        self.mask_decoder = MaskDecoder(DIM)

    def embed(self, images: Tensor) -> Embedding:
        return (self.image_encoder(padded_square(images, self.image_size)),)

    def read(self, embedding: Embedding, prompts: PromptInput, multimask: bool = True) -> Reading:
        (image,) = embedding
        positions = self.prompt_encoder.positions()
        return self.mask_decoder.read(image, positions, self.prompt_encoder(prompts), prompts.image, multimask)

    def draw(self, reading: Reading, keep: Tensor | None = None) -> Tensor:
        return self.mask_decoder.draw(reading, keep)


def neck(channels: int) -> nn.Sequential:
    """An image encoder's features to the 256 channels of the decoder."""
    return nn.Sequential(
        nn.Conv2d(channels, DIM, 1, bias=False),
        LayerNorm2d(DIM),
        nn.Conv2d(DIM, DIM, 3, padding=1, bias=False),
        LayerNorm2d(DIM),
    )


def padded_square(images: Tensor, side: int) -> Tensor:
    """Images `[B, C, H, W]` with zeros on the right and below, `[B, C, side, side]`.

    Raises:
        SegfolioError: an image with a longer side.
    """
    height, width = images.shape[-2:]
    if max(height, width) > side:
        raise SegfolioError(
            f"an image is {width}x{height} pixels, expected at most {side} on each side: resize it, or give the "
            "network a larger image_size"
        )
    return pad(images, (0, side - width, 0, side - height))


def check_image_size(image_size: int, network: str, stride: int = STRIDE) -> None:
    """Raises the one sentence on a side that is not of whole cells."""
    if image_size < stride or image_size % stride:
        raise SegfolioError(f"image_size of {network} is {image_size}, expected a multiple of {stride}, e.g. 1024")
