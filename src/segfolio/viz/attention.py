"""What patches attend to: attention maps of networks on a plain ViT as a picture, as Segmenter (Strudel et al., 2021,
arXiv 2105.05633, appendix) shows them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers import Attention
from torch import Tensor, nn

from segfolio.data.formats.images import write_image
from segfolio.errors import SegfolioError
from segfolio.viz.overlay import Pixels, fit
from segfolio.viz.receptive_field import Floats, heat
from segfolio.viz.sheet import Tile, compose
from segfolio.viz.variants import built, check, for_each, normalisation, pictures, variants_of

_TILE, _COLUMNS, _SHOWN = 320, 4, 6


def attention_maps(network: nn.Module, image: Tensor) -> dict[str, Floats]:
    """How much the patch in the middle attends to each patch, a mean over the heads, in every block.

    Args:
        network: in evaluation; its `encoder` is one of timm's ViTs, and its `decoder` may have further blocks, whose
            tokens begin with the patches.
        image: `[C_in, H, W]` of whole patches, as the network sees it.

    Returns:
        By the name of the block, `[h, w]`; the sum is what does not go to tokens beside the patches.

    Raises:
        SegfolioError: a network without such blocks; an image that is not of whole patches.
    """
    encoder: Any = getattr(network, "encoder", None)
    blocks = {
        f"{part}.{number}": block.attn
        for part in ("encoder", "decoder")
        for number, block in enumerate(getattr(getattr(network, part, None), "blocks", ()))
        if isinstance(getattr(block, "attn", None), Attention)
    }
    if not (hasattr(encoder, "patch_embed") and hasattr(encoder.patch_embed, "patch_size") and blocks):
        raise SegfolioError(
            f"{type(network).__name__} has no blocks of a plain ViT; attention is drawn of Segmenter, SETR, DPT and "
            "DINOLinear of DINOv2"
        )
    patch = encoder.patch_embed.patch_size[0]
    height, width = (side // patch for side in image.shape[-2:])
    if (height * patch, width * patch) != tuple(image.shape[-2:]) or not height * width:
        raise SegfolioError(
            f"the image is of {image.shape[-2]}x{image.shape[-1]} pixels; give a --size of whole patches of "
            f"{patch}x{patch}"
        )
    seen: dict[str, Tensor] = {}
    hooks = [
        attention.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
        for name, attention in blocks.items()
    ]
    try:
        with torch.no_grad():
            network(image[None])
    finally:
        for hook in hooks:
            hook.remove()
    patches, middle = height * width, height // 2 * width + width // 2
    found = {}
    for name, tokens in seen.items():
        first = tokens.shape[1] - patches if name.startswith("encoder") else 0
        shares = _shares(blocks[name], tokens, first + middle)[0, first : first + patches]
        found[name] = shares.view(height, width).double().cpu().numpy()
    return found


def _shares(attention: Any, tokens: Tensor, query: int) -> Tensor:
    """`[B, N]`: how the attention of one token of `[B, N, D]` is shared out, a mean over the heads."""
    with torch.no_grad():
        qkv = attention.qkv(tokens).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
        asks, keys = attention.q_norm(qkv[0, :, :, query : query + 1]), attention.k_norm(qkv[1])
        scores = attention.scale * asks @ keys.transpose(-2, -1)
        return scores.softmax(-1).mean(1)[:, 0]


def draw(
    names: Sequence[str], output: Path, images: Path | None, size: int, weights: Sequence[str] = ()
) -> list[list[str]]:
    """Write a picture with attention maps of each variant: the image, six blocks of the ViT and those of a decoder.

    Args:
        names: of variants, as `segfolio architectures` lists them.
        output: PNG or JPEG.
        images: an image or a folder of them, whose first is taken; noise if not given.
        size: of the image, in pixels.
        weights: one for all networks or one for each; random if not given.

    Returns:
        Of each name what its weights are, how the image is normalised, and the blocks that are drawn.

    Raises:
        SegfolioError: an unknown name, images or weights that are not to be had, a network that cannot be drawn.
    """
    check(output, size)
    variants, image = variants_of(names), pictures(images, size)[0]
    rows = []
    tiles: list[Tile] = [("the image, and the patch that asks", _pointed(image))]
    for name, given in zip(names, for_each(names, weights), strict=True):
        network, normal = built(name, *variants[name], given), normalisation(*variants[name], given)
        said, maps = given or "random weights", attention_maps(network, normal.done(image))
        encoder, rest = ([key for key in maps if key.startswith("encoder") is first] for first in (True, False))
        chosen = [encoder[place] for place in sorted({round(x) for x in np.linspace(0, len(encoder) - 1, _SHOWN)})]
        tiles += [(f"{name}\n{said}\n{_words(key)}", heat(maps[key])) for key in (*chosen, *rest)]
        rows.append([name, said, normal.source, ", ".join((*chosen, *rest))])
    title = f"attention of the middle patch, {size} x {size} pixels, a mean over heads; brightness is the square root"
    write_image(output, compose(tiles, min(len(tiles), _COLUMNS), [], title, 16))
    return rows


def _words(key: str) -> str:
    """`encoder.11` as `block 12 of the encoder`."""
    part, _, number = key.partition(".")
    return f"block {int(number) + 1} of the {part}"


def _pointed(image: Tensor) -> Pixels:
    """`[3, H, W]` from 0 to 1 as a picture with a mark in its middle."""
    pixels = (image.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    shown = fit(np.ascontiguousarray(pixels), (_TILE, _TILE)).copy()
    middle = slice(_TILE // 2 - 4, _TILE // 2 + 5)
    shown[middle, middle] = (255, 255, 255)
    shown[_TILE // 2 - 2 : _TILE // 2 + 3, _TILE // 2 - 2 : _TILE // 2 + 3] = (220, 0, 0)
    return shown
