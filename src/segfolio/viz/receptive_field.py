"""How far networks see: effective receptive fields as a picture (Luo et al., 2016, arXiv 1701.04128, section 3; as in
SegFormer, arXiv 2105.15203, figure 3)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segfolio.data.formats.images import write_image
from segfolio.errors import SegfolioError
from segfolio.layers.outputs import MaskOutput, PixelOutput
from segfolio.viz.overlay import Pixels, fit
from segfolio.viz.sheet import compose
from segfolio.viz.variants import built, check, pictures, variants_of
from segfolio.words import counted

Floats = npt.NDArray[np.float64]
SHARES = (0.5, 0.95)
"""Of the gradient, for which the side of a square is told."""
_TILE, _COLUMNS = 320, 4


def effective_receptive_field(network: nn.Module, images: Iterable[Tensor]) -> Floats:
    """How much each pixel matters to the scores in the middle: the absolute gradient of their sum over the classes,
    summed over the channels, a mean over images.

    Args:
        network: in evaluation; its output is scores per pixel, `[B, C, h, w]` or a `PixelOutput`, or a `MaskOutput`.
        images: `[C_in, H, W]` of one size, as the network sees them.

    Returns:
        `[H, W]`, the sum is 1.

    Raises:
        SegfolioError: a network of another output; no gradient at all.
    """
    total: Tensor | None = None
    for image in images:
        seen = image[None].detach().requires_grad_()
        scores = _scores(network(seen))
        middle = scores[..., scores.shape[-2] // 2, scores.shape[-1] // 2].sum()
        (gradient,) = torch.autograd.grad(middle, seen)
        found = gradient[0].double().abs().sum(0)
        total = found if total is None else total + found
    if total is None or not total.sum() > 0:
        raise SegfolioError(
            f"no pixel matters to the scores of {type(network).__name__}, whose last layers begin with 0; give weights"
        )
    return (total / total.sum()).cpu().numpy()


def side_of(field: Floats, share: float) -> int:
    """The side in pixels of the smallest square around the middle that holds this share of a field `[H, W]`."""
    height, width = field.shape
    far = np.maximum(abs(np.arange(height) - height // 2)[:, None], abs(np.arange(width) - width // 2))
    inside = np.cumsum(np.bincount(far.ravel(), field.ravel()))
    return 2 * int(np.searchsorted(inside, share * inside[-1])) + 1


def draw(names: Sequence[str], output: Path, images: Path | None, size: int, weights: str | None) -> list[list[str]]:
    """Write a picture with the effective receptive field of each variant.

    Args:
        names: of variants, as `segfolio architectures` lists them.
        output: PNG or JPEG.
        images: an image or a folder of them, of which the middle is taken; noise if not given.
        size: of the images, in pixels.
        weights: given to each network; random if not given.

    Returns:
        Of each name what its weights are, and the sides of the squares for `SHARES`.

    Raises:
        SegfolioError: an unknown name, images or weights that are not to be had, a network that cannot be drawn.
    """
    check(output, size)
    variants, seen = variants_of(names), pictures(images, size)
    said, tiles, rows = weights or "random weights", [], []
    for name in names:
        field = effective_receptive_field(built(name, *variants[name], weights), seen)
        sides = [side_of(field, share) for share in SHARES]
        rows.append([name, said, *(f"{side} px" for side in sides)])
        tiles.append((f"{name}\n{said}\n" + ", ".join(_shares(sides)), heat(field)))
    shown = counted(len(seen), "image") if images else "noise"
    title = f"effective receptive fields of {shown}, {size} x {size} pixels; brightness is the square root"
    write_image(output, compose(tiles, min(len(tiles), _COLUMNS), [], title, 16))
    return rows


def heat(field: Floats) -> Pixels:
    """A field `[H, W]` in colours, the square root so that its tail is seen, `_TILE` pixels wide."""
    shade = np.sqrt(field / field.max())
    colours = cv2.applyColorMap((255 * shade).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return fit(np.ascontiguousarray(colours), (_TILE, round(_TILE * field.shape[0] / field.shape[1])))


def _scores(output: Any) -> Tensor:
    """Scores per pixel, `[B, C, h, w]`."""
    if isinstance(output, Tensor) and output.ndim == 4:
        return output
    if isinstance(output, PixelOutput):
        return output.logits
    if isinstance(output, MaskOutput):
        classes = output.class_logits.softmax(-1)[..., :-1]
        return torch.einsum("bqc,bqhw->bchw", classes, output.mask_logits.sigmoid())
    raise SegfolioError("a receptive field is drawn of networks with scores per pixel or masks of queries, as PSPNet")


def _shares(sides: Sequence[int]) -> list[str]:
    return [f"{share:.0%} in {side} px" for share, side in zip(SHARES, sides, strict=True)]
