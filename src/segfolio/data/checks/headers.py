"""`header_problems`: what headers tell of every file, before training starts."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from segfolio.data.checks.problems import Problem
from segfolio.data.checks.remembered import remembered_problems
from segfolio.data.formats import image_header, images, tiff
from segfolio.data.formats.image_header import ImageHeader, read_header
from segfolio.data.image_space import ImageSpace

_KINDS = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}


class FilePair(NamedTuple):
    """An image file and the id map that belongs to it, if there is one."""

    image_id: str
    image: Path
    mask: Path | None


def header_problems(pairs: Sequence[FilePair], space: ImageSpace, in_colors: bool = False) -> list[Problem]:
    """Read the headers of all images and masks, in threads; no pixel is decoded, and no file twice until it changes.

    Fatal are missing, unreadable and truncated files, images of another type or number of channels than the space has,
    masks that hold no ids or differ from their image in size. Grey images, colour images to be read as grey, alpha,
    orientation tags and further images in a file are remarks.

    Args:
        space: of the images as they will be read.
        in_colors: whether masks hold the colours of classes in place of ids.
    """
    key = [asdict(space), in_colors, [pair.image_id for pair in pairs], [pair.mask is None for pair in pairs]]
    code = [Path(str(module.__file__)) for module in (image_header, images, tiff)]
    files = (path for pair in pairs for path in pair[1:] if path)
    return remembered_problems(key, chain([Path(__file__), *code], files), lambda: _inspected(pairs, space, in_colors))


def _inspected(pairs: Sequence[FilePair], space: ImageSpace, in_colors: bool) -> Iterator[Problem]:
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda pair: list(_inspect(pair, space, in_colors)), pairs):
            yield from found


def _inspect(pair: FilePair, space: ImageSpace, in_colors: bool) -> Iterator[Problem]:
    def problem(kind: str, what: str, where: object, fatal: bool = True) -> Problem:
        return Problem(kind, what, str(where), fatal, pair.image_id)

    headers: dict[str, ImageHeader] = {}
    for kind, path in (("image", pair.image), ("mask", pair.mask)):
        if path is None:
            continue
        try:
            headers[kind] = read_header(path)
        except FileNotFoundError:
            yield problem(kind, "missing", path)
        except (OSError, ValueError):
            yield problem(kind, "empty, cut short or of no known format (copy again)", path)
    if image := headers.get("image"):
        if wrong := space.misfit(image.channels, image.dtype):
            yield problem("image", wrong, pair.image)
        for remark in _remarks(image, space):
            yield problem("image", remark, pair.image, fatal=False)
    if mask := headers.get("mask"):
        if in_colors and (mask.format != "PNG" or mask.dtype != "uint8" or mask.channels == 2):
            what = "without colours of 8 bits (export as RGB PNG)"
            yield problem("mask", what, f"{pair.mask} ({_KINDS.get(mask.channels, 'bands')} {mask.format})")
        elif not in_colors and not mask.holds_ids:
            what = "without ids (export class ids as grey or palette PNG)"
            yield problem("mask", what, f"{pair.mask} ({_KINDS.get(mask.channels, 'bands')} {mask.format})")
        if image and mask.size != image.size:
            sizes = "{1}x{0}, image {3}x{2}".format(*mask.size, *image.size)
            yield problem("mask", "of another size than the image", f"{pair.mask} ({sizes})")


def _remarks(image: ImageHeader, space: ImageSpace) -> Iterator[str]:
    channels = space.channels
    if channels in (1, 3) and image.channels in (2, 4):
        yield "with an alpha channel, which is dropped"
    if channels == 3 and image.channels <= 2:
        yield "in grey, which is repeated to 3 channels"
    if channels == 1 and image.channels >= 3:
        yield "in colour, which is turned to grey"
    if image.orientation != 1:
        yield "with an orientation tag, which is not applied (masks lie on the pixels as stored: turn these, or masks)"
    if image.images > 1:
        yield "with further images in the same file, which are not read"
