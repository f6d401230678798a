"""timm's plain ViTs as encoders: images of any size, and the tokens behind any of their blocks."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from segfolio.errors import SegfolioError
from segfolio.layers.backbones import check_timm_name
from segfolio.weights.backbones import load_pretrained
from segfolio.weights.files import check_patches, load_weights
from segfolio.words import counted

PREFIX = ("cls_token", "dist_token", "reg_token")


def plain_vit(backbone: str, image_size: int, prefix: int | None = None, **arguments: Any) -> Any:
    """timm's ViT without classifier, with a table of positions for square images.

    Args:
        backbone: timm's name.
        image_size: of the table of positions, in pixels.
        prefix: how many tokens beside the patches are kept, of class, distillation and registers; all if None.
        arguments: of timm's constructor.

    Raises:
        SegfolioError: an unknown name, one that is no plain ViT, patches without a pixel, an image that is not of whole
            patches.
    """
    check_timm_name(backbone)
    check_patch_size(backbone, arguments.get("patch_size", 1))
    try:
        vit: Any = timm.create_model(backbone, num_classes=0, img_size=image_size, **arguments)
    except (AssertionError, RuntimeError, TypeError) as error:
        raise SegfolioError(f"backbone {backbone} is no plain ViT: {error}") from error
    if not isinstance(vit, VisionTransformer) or vit.pos_embed is None or getattr(vit, "attn_pool", None) is not None:
        raise SegfolioError(f"backbone {backbone} is no plain ViT with a table of positions, e.g. vit_base_patch16_384")
    patch = vit.patch_embed.patch_size[0]
    if image_size % patch or image_size < patch:
        raise SegfolioError(f"image_size is {image_size}; {backbone} needs whole patches of {patch}x{patch} pixels")
    kept = [name for name in PREFIX if getattr(vit, name, None) is not None]
    for name in kept[prefix:] if prefix is not None else ():
        setattr(vit, name, None)
    if prefix is not None:
        patches = math.prod(vit.patch_embed.grid_size)
        with torch.no_grad():
            vit.pos_embed = nn.Parameter(torch.cat(_apart(vit.pos_embed, patches, prefix), 1))
    return vit


def embed(vit: Any, images: Tensor) -> Tensor:
    """Images `[B, C_in, H, W]` of whole patches to tokens `[B, P + h w, D]`, P beside the patches; positions are
    interpolated where the images are not of the table's size."""
    patches = vit.patch_embed.proj(images)
    grid = (patches.shape[-2], patches.shape[-1])
    first, positions = _apart(vit.pos_embed, math.prod(vit.patch_embed.grid_size))
    tokens = patches.flatten(2).transpose(1, 2) + resized(positions, vit.patch_embed.grid_size, grid)
    prefix = [token for name in PREFIX if (token := getattr(vit, name, None)) is not None]
    if prefix:
        beside = torch.cat(prefix, 1)
        beside = beside + first if first.shape[1] else beside
        tokens = torch.cat([beside.expand(len(tokens), -1, -1), tokens], 1)
    return vit.norm_pre(vit.pos_drop(tokens))


def behind_blocks(vit: Any, tokens: Tensor, blocks: Iterable[int], checkpointing: bool) -> list[Tensor]:
    """Tokens behind each of `blocks`, counted from 0; blocks behind the last of them are not run.

    Args:
        checkpointing: in training, keep each block's input alone and compute the block again in the backward pass.
    """
    wanted = sorted(set(blocks))
    found = {}
    for index, block in enumerate(vit.blocks[: wanted[-1] + 1]):
        kept = checkpointing and vit.training
        tokens = checkpoint(block, tokens, use_reentrant=False) if kept else block(tokens)
        if index in wanted:
            found[index] = tokens
    return [found[index] for index in blocks]


def patch_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """`[B, P + h w, D]` to the patches' map `[B, D, h, w]`."""
    return tokens[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)


def without_padding(logits: Tensor, padded: Tensor, images: Tensor) -> Tensor:
    """Logits of `padded` images enlarged to them and cut to `images`; as they are where nothing was padded."""
    if images.shape == padded.shape:
        return logits
    enlarged = interpolate(logits, padded.shape[-2:], mode="bilinear", align_corners=False)
    return enlarged[..., : images.shape[-2], : images.shape[-1]]


def check_patch_size(name: str, patch: int) -> None:
    """Refuse patches without a pixel.

    Raises:
        SegfolioError: such a size.
    """
    if patch < 1:
        raise SegfolioError(f"patch_size is {patch}; {name} needs patches of at least a pixel, such as 16")


def check_at_least_a_patch(name: str, images: Tensor, patch: int) -> None:
    """Refuse images that would be padding for the most part.

    Raises:
        SegfolioError: a side that is shorter than a patch.
    """
    if min(images.shape[-2:]) < patch:
        raise SegfolioError(
            f"{name} got images of {images.shape[-2]}x{images.shape[-1]} pixels, smaller than a patch of "
            f"{patch}x{patch}: enlarge them"
        )


def positions_beside(vit: Any) -> int:
    """How many positions timm's table has beside the patches': of its tokens of class, distillation and registers."""
    return 0 if vit.no_embed_class else vit.num_prefix_tokens


def square_table(table: Tensor, beside: Iterable[int], width: int, source: str) -> tuple[Tensor, Tensor]:
    """A table of positions `[1, P + s s, D]`: those beside the patches, and those of the patches, a square.

    Args:
        beside: P, as it may be, the likeliest first: a table of 80 patches and a class token has as many positions as a
            square of 9 x 9 without one.
        width: D.
        source: where the table comes from, for the error.

    Raises:
        SegfolioError: another width, or positions that are no square grid.
    """
    if table.ndim != 3 or len(table) != 1 or table.shape[2] != width:
        raise SegfolioError(
            f"{source} has a table of positions of {'x'.join(map(str, table.shape))} and the network is {width} wide; "
            "take weights of the same backbone"
        )
    tokens = list(beside)
    for number in tokens:
        patches = table.shape[1] - number
        if patches > 0 and math.isqrt(patches) ** 2 == patches:
            return table[:, :number], table[:, number:]
    raise SegfolioError(
        f"{source} has a table of {table.shape[1]} positions, which is no square grid of patches and "
        f"{counted(tokens[0], 'token')} beside it; take weights of square images"
    )


def of_square_images(vit: Any, state: Mapping[str, Tensor], source: str) -> tuple[Tensor, Tensor]:
    """The positions of timm's state dict beside the patches, as many as timm's `vit` has, and those of the patches.

    Raises:
        SegfolioError: as of `square_table`.
    """
    own = positions_beside(vit)
    of_file = sum(state[name].shape[1] for name in PREFIX if name in state)
    first, positions = square_table(state["pos_embed"], (own, of_file), vit.embed_dim, source)
    return first[:, :own], positions


def of_square(vit: Any, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """timm's state dict with a table of positions that timm resamples to `vit`'s, without positions of tokens that
    `vit` does not have; as it is where either has no table.

    Raises:
        SegfolioError: as of `square_table`.
    """
    if "pos_embed" not in state or vit.pos_embed is None:
        return dict(state)
    first, positions = of_square_images(vit, state, source)
    if not first.shape[1]:  # a class token's is added to the token, by timm
        return dict(state)
    return {**state, "pos_embed": torch.cat([first, positions], 1)}


def fitted_table(
    state: Mapping[str, Tensor], key: str, own: Tensor, beside: int, source: str, bicubic: bool = False
) -> dict[str, Tensor]:
    """A state dict of a whole network, its table of positions interpolated where it is of another image size.

    Args:
        key: of the table, `[1, P + s s, D]` or `[P + s s, D]`; a state dict may lack it.
        own: the network's.
        beside: P.

    Raises:
        SegfolioError: as of `square_table`.
    """
    if key not in state or state[key].shape == own.shape:
        return dict(state)
    table = state[key] if own.ndim == 3 else state[key][None]
    first, positions = square_table(table, (beside,), own.shape[-1], source)
    old, new = (math.isqrt(number) for number in (positions.shape[1], own.shape[-2] - beside))
    table = torch.cat([first, resized(positions, (old, old), (new, new), bicubic)], 1)
    return {**state, key: table.view_as(own)}


def of_own_size(vit: Any, source: str, bicubic: bool = False) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """What `fitted_table` makes of a state dict of a whole network whose `encoder` is `vit`."""

    def fit(state: dict[str, Tensor]) -> dict[str, Tensor]:
        if vit.pos_embed is None:  # positions are rotated
            return state
        beside = vit.pos_embed.shape[1] - math.prod(vit.patch_embed.grid_size)
        return fitted_table(state, "encoder.pos_embed", vit.pos_embed, beside, source, bicubic)

    return fit


def load_vit(vit: Any, state: Mapping[str, Tensor], source: str) -> None:
    """Load what `vit` has of timm's state dict, the table of positions interpolated to its image size.

    Raises:
        SegfolioError: another patch size or width, positions that are no square grid, weights that are missing or do
            not fit.
    """
    own = vit.state_dict()
    taken = {key: value for key, value in state.items() if key in own}
    check_patches(own, taken, source)  # before the positions, of which there are others then
    if "pos_embed" in taken:
        first, positions = of_square_images(vit, state, source)
        side, kept = math.isqrt(positions.shape[1]), own["pos_embed"].shape[1] - math.prod(vit.patch_embed.grid_size)
        positions = resized(positions, (side, side), vit.patch_embed.grid_size)
        taken["pos_embed"] = torch.cat([first[:, :kept], positions], 1)
    load_weights(vit, taken, source)


def load_whole_or_vit(network: Any, weights: str, backbone: str) -> None:
    """Load weights of a network whose `encoder` is timm's plain ViT, of any image size, or of that ViT alone.

    Raises:
        SegfolioError: as of `load_pretrained` and `load_vit`.
    """
    vit = network.encoder
    load_pretrained(
        network, weights, backbone, None, lambda state: load_vit(vit, state, weights), of_own_size(vit, weights)
    )


def resized(positions: Tensor, old: tuple[int, int], new: tuple[int, int], bicubic: bool = False) -> Tensor:
    """Positions `[1, h w, D]` of a grid at another, bilinearly, or bicubically and antialiased as timm does."""
    if tuple(old) == tuple(new):
        return positions
    grid = positions.transpose(1, 2).unflatten(2, tuple(old))
    if bicubic:  # half a float has no such kernel
        found = interpolate(grid.float(), tuple(new), mode="bicubic", antialias=True).to(grid.dtype)
    else:
        found = interpolate(grid, tuple(new), mode="bilinear", align_corners=False)
    return found.flatten(2).transpose(1, 2)


def _apart(table: Tensor, patches: int, first: int | None = None) -> tuple[Tensor, Tensor]:
    """The positions beside the patches, the `first` of them if given, and those of the patches."""
    beside = table[:, :-patches]
    return beside if first is None else beside[:, :first], table[:, -patches:]
