"""SAM's prompt encoder (Segment Anything, arXiv 2304.02643, section 3 and appendix A), which MobileSAM and SAM 2 took
over. Modules have the names of the original release.

A prompt becomes tokens, one of each point and two of each box, and a map that is added to the image's embedding.
"""

from typing import Any, Literal, NamedTuple

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn.functional import embedding

from segfolio.errors import SegfolioError
from segfolio.layers.prompting import NO_POINT, PADDING, PromptInput


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
        box_padding: "not a point" is added to boxes as well as to points, as SAM 2 does.
    """

    def __init__(
        self,
        dim: int,
        image_size: int,
        stride: int = 16,
        mask_channels: int = 16,
        padding: Literal["masked", "zero"] = "masked",
        box_padding: bool = False,
    ) -> None:
        super().__init__()
        self.image_size, self.side, self.padding = image_size, image_size // stride, padding
        self.box_padding = box_padding
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
        if self.box_padding and (prompts.kinds.shape[1] or prompts.boxes is not None):
            tokens.append(self.not_a_point_embed.weight.expand(len(there), 1, -1))
            attended.append((there.any(1) | ~without_box)[:, None])
        elif prompts.kinds.shape[1] and (self.padding == "masked" or prompts.boxes is None):
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
        kind = embedding(kinds.clamp(min=NO_POINT) - NO_POINT, table)
        return kind + self.pe_layer(points / self.image_size).where(kinds[..., None] > NO_POINT, 0)

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
