"""Networks by their names, and what they look at, for commands that draw pictures of them."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segfolio.data.dataset import files_by_id
from segfolio.data.formats.images import read_image
from segfolio.data.image_space import IMAGENET_MEAN, IMAGENET_STD
from segfolio.data.sample import to_image
from segfolio.errors import SegfolioError, did_you_mean
from segfolio.listing import architecture_classes
from segfolio.viz.overlay import fit

Variant = tuple[Any, Mapping[str, Any]]
"""A class and the arguments of one of its variants."""

_NOISE = 4


def check(output: Path, size: int) -> None:
    """
    Raises:
        SegfolioError: an output that is no picture, a size that is none.
    """
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise SegfolioError(f"--output {output} is no name of a picture; give one that ends in .png or .jpg")
    if size < 1:
        raise SegfolioError(f"--size is {size}, expected 1 or more")


def variants_of(names: Sequence[str]) -> dict[str, Variant]:
    """Those of `names`, as `segfolio architectures` lists them.

    Raises:
        SegfolioError: a name that there is not.
    """
    variants = {name: (cls, variant) for cls in architecture_classes() for name, variant in cls.variants.items()}
    if unknown := [name for name in names if name not in variants]:
        raise SegfolioError(
            f"there is no architecture {unknown[0]!r}{did_you_mean(unknown[0], variants)}; `segfolio architectures` "
            "lists all names"
        )
    return {name: variants[name] for name in names}


def built(name: str, cls: Any, variant: Mapping[str, Any], weights: str | None) -> nn.Module:
    """The network in evaluation, on RGB, whatever the variant's images are.

    Raises:
        SegfolioError: weights that are not to be had, or of a network that takes none.
    """
    takes = inspect.signature(cls).parameters
    if weights is not None and "weights" not in takes:
        raise SegfolioError(f"{name} takes no weights; leave out --weights")
    given = {name: value for name, value in (("in_channels", 3), ("weights", weights)) if name in takes}
    torch.manual_seed(0)
    network: nn.Module = cls(21, **{**variant, **given})
    return network.eval().requires_grad_(False)


def pictures(path: Path | None, size: int) -> list[Tensor]:
    """`[3, size, size]` each: the middle of an image or of each of a folder, as large as it can be, normalised as
    ImageNet; noise if no path is given."""
    if path is None:
        generator = torch.Generator().manual_seed(0)
        return [torch.randn(3, size, size, generator=generator) for _ in range(_NOISE)]
    found = []
    for file in sorted(files_by_id(path).values()) if path.is_dir() else [path]:
        pixels = read_image(file)
        side = min(pixels.shape[:2])
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        image = to_image(fit(pixels[top : top + side, left : left + side], (size, size))).as_subclass(Tensor) / 255
        found.append((image - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None])
    return found
