"""`header_problems`: what headers tell of every file, before training starts."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from segfolio.data.checks.problems import Problem
from segfolio.data.checks.remembered import remembered_problems
from segfolio.data.formats.images import is_cut_short

_GREY = {"1", "L", "LA"}
_ALPHA = {"LA", "PA", "RGBA"}
_IDS = {"1", "L", "P", "I", "I;16", "I;16B"}
_COLORS = {"1", "L", "P", "RGB", "RGBA"}


class FilePair(NamedTuple):
    """An image file and the id map that belongs to it, if there is one."""

    image_id: str
    image: Path
    mask: Path | None


def header_problems(pairs: Sequence[FilePair], channels: int, in_colors: bool = False) -> list[Problem]:
    """Read the headers of all images and masks, in threads; no pixel is decoded, and no file twice until it changes.

    Fatal are missing, unreadable and truncated files, images of more than 8 bits, masks that hold no ids or differ
    from their image in size. Grey images, colour images to be read as grey, and alpha are remarks.

    Args:
        channels: of the images as they will be read, 1 or 3.
        in_colors: whether masks hold the colours of classes in place of ids.
    """
    key = [channels, in_colors, [pair.image_id for pair in pairs], [pair.mask is None for pair in pairs]]
    files = (path for pair in pairs for path in pair[1:] if path)
    return remembered_problems(key, chain([Path(__file__)], files), lambda: _inspected(pairs, channels, in_colors))


def _inspected(pairs: Sequence[FilePair], channels: int, in_colors: bool) -> Iterator[Problem]:
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # it guards decoders
    try:
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda pair: list(_inspect(pair, channels, in_colors)), pairs):
                yield from found
    finally:
        Image.MAX_IMAGE_PIXELS = limit


class _Header(NamedTuple):
    size: tuple[int, int]  # width, height
    mode: str  # Pillow's
    format: str | None
    deep: bool  # more than 8 bits per channel


def _read(path: Path) -> _Header:
    with path.open("rb") as file, Image.open(file) as image:
        stored = str([tile.args for tile in image.tile])  # of 16-bit RGB the mode is "RGB" all the same
        header = _Header(image.size, image.mode, image.format, "16" in stored or image.mode[0] in "IF")
        file.seek(0)
        ends = file.read(12)
        file.seek(-12, 2)
        ends += file.read()
    if is_cut_short(ends) and is_cut_short(path.read_bytes()):
        raise OSError("cut short")
    return header


def _inspect(pair: FilePair, channels: int, in_colors: bool) -> Iterator[Problem]:
    def problem(kind: str, what: str, where: object, fatal: bool = True) -> Problem:
        return Problem(kind, what, str(where), fatal, pair.image_id)

    headers: dict[str, _Header] = {}
    for kind, path in (("image", pair.image), ("mask", pair.mask)):
        if path is None:
            continue
        try:
            headers[kind] = _read(path)
        except FileNotFoundError:
            yield problem(kind, "missing", path)
        except (OSError, SyntaxError, ValueError):
            yield problem(kind, "empty, cut short or of no known format (copy again)", path)
    if image := headers.get("image"):
        if image.deep:
            yield problem("image", "of more than 8 bits per channel (scale to 0-255)", pair.image)
        if image.mode in _ALPHA:
            yield problem("image", "with an alpha channel, which is dropped", pair.image, fatal=False)
        if channels == 3 and image.mode in _GREY:
            yield problem("image", "in grey, which is repeated to 3 channels", pair.image, fatal=False)
        if channels == 1 and image.mode not in _GREY:
            yield problem("image", "in colour, which is turned to grey", pair.image, fatal=False)
    if mask := headers.get("mask"):
        if in_colors and (mask.format != "PNG" or mask.mode not in _COLORS or mask.deep):
            what = "without colours of 8 bits (export as RGB PNG)"
            yield problem("mask", what, f"{pair.mask} ({mask.mode} {mask.format})")
        elif not in_colors and (mask.format != "PNG" or mask.mode not in _IDS):
            what = "without ids (export class ids as grey or palette PNG)"
            yield problem("mask", what, f"{pair.mask} ({mask.mode} {mask.format})")
        if image and mask.size != image.size:
            sizes = "{}x{}, image {}x{}".format(*mask.size, *image.size)
            yield problem("mask", "of another size than the image", f"{pair.mask} ({sizes})")
