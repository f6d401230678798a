"""A plain ViT whose blocks look into windows, but for some (RF-DETR, arXiv 2511.09554, after ViTDet, 2203.16527)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segfolio.errors import SegfolioError
from segfolio.layers.vit import patch_map, plain_vit


def windowed_vit(backbone: str, image_size: int, patch_size: int, windows: int, taps: Sequence[int]) -> Any:
    """timm's plain ViT with a class token alone beside the patches, for `windowed_maps`.

    Args:
        backbone: timm's name.
        image_size: side of the images of which the table of positions is, in pixels.
        patch_size: in pixels.

    The others, by name, are those of `windowed_maps`.

    Raises:
        SegfolioError: an unknown name, one that is no plain ViT, an image that is not of whole windows, no such blocks.
    """
    if image_size % (patch_size * windows):
        raise SegfolioError(
            f"image_size is {image_size}; expected a multiple of {patch_size * windows}, of {windows}x{windows} "
            f"windows of whole patches of {patch_size}x{patch_size} pixels"
        )
    vit = plain_vit(backbone, image_size, prefix=1, patch_size=patch_size, init_values=1.0)
    if not taps or not 0 < min(taps) <= max(taps) <= len(vit.blocks):
        raise SegfolioError(
            f"taps is {list(taps)}; expected numbers of 1 to {len(vit.blocks)}, of the blocks of {backbone}"
        )
    del vit.blocks[max(taps) :]  # what nobody reads
    return vit


def windowed_maps(vit: Any, images: Tensor, windows: int, taps: Sequence[int]) -> list[Tensor]:
    """Images of whole windows to maps `[B, D, h, w]`, of what is behind so many of the blocks each.

    Args:
        vit: of `plain_vit`, with a class token, of which each window has its own.
        windows: in each direction.
        taps: the block behind each looks at all of the image.
    """
    number = windows**2
    patches = vit.patch_embed.proj(images)
    grid = (patches.shape[-2], patches.shape[-1])
    first, table = vit.pos_embed.split([1, vit.pos_embed.shape[1] - 1], 1)
    tokens = to_windows(patches + fitted(table, vit.patch_embed.grid_size, grid), windows)
    tokens = torch.cat([(vit.cls_token + first).expand(len(tokens), -1, -1), tokens], 1)
    found = []
    for index, block in enumerate(vit.blocks):
        if index in taps:  # each image is one sequence
            tokens = block(tokens.unflatten(0, (-1, number)).flatten(1, 2))
            tokens = tokens.unflatten(1, (number, -1)).flatten(0, 1)
        else:
            tokens = block(tokens)
        if index + 1 in taps:
            found.append(from_windows(vit.norm(tokens)[:, 1:], windows, grid))
    return found


def to_windows(patches: Tensor, windows: int) -> Tensor:
    """`[B, D, h, w]` to the tokens of each window, `[B windows^2, h w / windows^2, D]`."""
    parts = patches.unflatten(3, (windows, -1)).unflatten(2, (windows, -1))
    return parts.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)


def from_windows(tokens: Tensor, windows: int, grid: tuple[int, int]) -> Tensor:
    """The map `[B, D, h, w]` of what `to_windows` has made."""
    parts = tokens.unflatten(1, (grid[0] // windows, -1)).unflatten(0, (-1, windows, windows))
    return parts.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def fitted(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positions `[1, h w, D]` of a grid as a map `[1, D, h, w]` of another."""
    positions = patch_map(table, old)
    if old == new:
        return positions
    return interpolate(positions.float(), new, mode="bicubic", antialias=True).to(positions.dtype)
