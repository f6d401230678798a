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
from segfolio.viz.sheet import Tile, compose
from segfolio.viz.variants import built, check, for_each, normalisation, pictures, variants_of
from segfolio.words import counted

Floats = npt.NDArray[np.float64]
SHARES = (0.5, 0.95)
"""Of the gradient, for which the side of a square is told."""
_TILE, _COLUMNS = 320, 4


def effective_receptive_fields(network: nn.Module, images: Iterable[Tensor]) -> dict[str, Floats]:
    """How much each pixel matters to what a network says in the middle: the absolute gradient of a sum over the
    channels, summed over those of the image, a mean over images. The channels are added up with weights drawn at
    random, for where they were normalised together their plain sum is constant.

    Args:
        network: in evaluation; its output is scores per pixel, `[B, C, h, w]` or a `PixelOutput`, or a `MaskOutput`.
        images: `[C_in, H, W]` of one size and square, as the network sees them.

    Returns:
        `[H, W]`, the sum is 1, of `stage 1` to `stage 4` of the encoder where it has four, and of the `logits`.

    Raises:
        SegfolioError: a network of another output; no gradient at all.
    """
    generator, total = torch.Generator().manual_seed(0), dict[str, Tensor]()
    stages, seen = stages_of(network), list[Any]()
    hooks = [stage.register_forward_hook(lambda _, __, output: seen.append(output)) for stage in stages]
    try:
        for image in images:
            seen.clear()
            given = image[None].detach().requires_grad_()
            scores = _scores(network(given))
            maps = {f"stage {number}": each for number, each in enumerate(_maps(seen, image), start=1)}
            for name, values in {**maps, "logits": scores}.items():
                middle = values[0, :, values.shape[-2] // 2, values.shape[-1] // 2]
                drawn = torch.randn(middle.shape, generator=generator)
                (gradient,) = torch.autograd.grad((drawn * middle).sum(), given, retain_graph=True)
                total[name] = total.get(name, 0) + gradient[0].double().abs().sum(0)
    finally:
        for hook in hooks:
            hook.remove()
    if "logits" not in total or not total["logits"].sum() > 0:
        raise SegfolioError(
            f"no pixel matters to the scores of {type(network).__name__}, whose last layers begin with 0; give weights"
        )
    return {name: (each / each.sum()).cpu().numpy() for name, each in total.items()}


def stages_of(network: nn.Module) -> list[nn.Module]:
    """The four stages of the encoder, under the names that ResNets and pyramids have; none of others."""
    for module in network.modules():
        if all(hasattr(module, f"layer{number}") for number in range(1, 5)):
            return [getattr(module, f"layer{number}") for number in range(1, 5)]
        for name in ("stages", "levels"):
            stages = getattr(module, name, None)
            if isinstance(stages, nn.ModuleList | nn.Sequential) and len(stages) == 4:
                return list(stages)
    return []


def _maps(outputs: Sequence[Any], image: Tensor) -> list[Tensor]:
    """What stages put out, the first of several, as `[1, C, h, w]`: channels are last where not all are of the image's
    proportions otherwise."""
    maps = [output[0] if isinstance(output, tuple | list) else output for output in outputs]
    if any(each.ndim != 4 for each in maps):
        return []
    height, width = image.shape[-2:]
    first = all(each.shape[2] * width == each.shape[3] * height for each in maps)
    return maps if first else [each.permute(0, 3, 1, 2) for each in maps]


def side_of(field: Floats, share: float) -> int:
    """The side in pixels of the smallest square around the middle that holds this share of a field `[H, W]`, as far as
    it is within the field."""
    height, width = field.shape
    far = np.maximum(abs(np.arange(height) - height // 2)[:, None], abs(np.arange(width) - width // 2))
    inside = np.cumsum(np.bincount(far.ravel(), field.ravel()))
    return min(2 * int(np.searchsorted(inside, share * inside[-1])) + 1, max(field.shape))


def draw(
    names: Sequence[str], output: Path, images: Path | None, size: int, weights: Sequence[str] = ()
) -> list[list[str]]:
    """Write a picture with the effective receptive fields of each variant: of its logits, and before them of the
    stages of its encoder, where it has four.

    Args:
        names: of variants, as `segfolio architectures` lists them.
        output: PNG or JPEG.
        images: an image or a folder of them, of which the middle is taken; noise if not given.
        size: of the images, in pixels.
        weights: one for all networks or one for each; random if not given.

    Returns:
        Of each name and part what the weights are, how images are normalised, and the sides of the squares of `SHARES`.

    Raises:
        SegfolioError: an unknown name, images or weights that are not to be had, a network that cannot be drawn.
    """
    check(output, size)
    variants, seen, rows, lines = variants_of(names), pictures(images, size), [], list[list[Tile]]()
    for name, given in zip(names, for_each(names, weights), strict=True):
        network, normal = built(name, *variants[name], given), normalisation(*variants[name], given)
        said = given or "random weights"
        fields = effective_receptive_fields(network, [normal.done(image) for image in seen])
        lines.append([])
        for part, field in fields.items():
            sides = [side_of(field, share) for share in SHARES]
            rows.append([name, part, said, normal.source, *(f"{side} px" for side in sides)])
            lines[-1].append((f"{name}, {part}\n{said}\n" + ", ".join(_shares(sides)), heat(field)))
    shown = counted(len(seen), "image") if images else "noise"
    title = f"effective receptive fields of {shown}, {size} x {size} pixels; brightness is the square root"
    columns = max(min(len(names), _COLUMNS), *map(len, lines))
    if any(len(line) > 1 for line in lines):  # a network in a line
        blank = np.full_like(lines[0][0][1], 255)
        lines = [[*line[:-1], *[("", blank)] * (columns - len(line)), line[-1]] for line in lines]
    write_image(output, compose([tile for line in lines for tile in line], columns, [], title, 16))
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
