"""`check_headers`: what headers tell of every file, before training starts."""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from segfolio.data.formats.images import is_cut_short
from segfolio.errors import SegfolioError

_NAMED = 3  # files that a message names of each problem
_GREY = {"1", "L", "LA"}
_ALPHA = {"LA", "PA", "RGBA"}
_IDS = {"1", "L", "P", "I", "I;16", "I;16B"}


class FilePair(NamedTuple):
    """An image file and the id map that belongs to it, if there is one."""

    image_id: str
    image: Path
    mask: Path | None


def check_headers(pairs: Sequence[FilePair], channels: int) -> None:
    """Read the headers of all images and masks, in threads; no pixel is decoded.

    Grey images, colour images to be read as grey, and alpha are allowed: a warning of each counts them.

    Args:
        channels: of the images as they will be read, 1 or 3.

    Raises:
        SegfolioError: missing, unreadable or truncated files, images of more than 8 bits, masks that hold
            no ids or differ from their image in size; it names the first files of each and counts them.
    """
    problems = defaultdict[tuple[str, str], list[str]](list)  # places, by kind of file and what is wrong with it
    remarks = defaultdict[tuple[str, str], list[str]](list)
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None  # it guards decoders
    try:
        with ThreadPoolExecutor(8) as pool:
            for findings in pool.map(lambda pair: list(_inspect(pair, channels)), pairs):
                for fatal, kind, what, where in findings:
                    (problems if fatal else remarks)[kind, what].append(where)
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if problems:
        said = (
            f"{counted(len(where), kind)} {what}: {', '.join(where[:_NAMED])}{', ...' if len(where) > _NAMED else ''}"
            for (kind, what), where in problems.items()
        )
        raise SegfolioError(f"{counted(len(pairs), 'pair')} of image and mask: {'; '.join(said)}")
    for (_, what), paths in remarks.items():
        warnings.warn(f"{len(paths)} of {counted(len(pairs), 'image')}: {what}; the first is {paths[0]}", stacklevel=2)


def counted(number: int, noun: str) -> str:
    """`1 mask`, `2 masks`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


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


def _inspect(pair: FilePair, channels: int) -> Iterator[tuple[bool, str, str, str]]:
    """Whether it is fatal, of which kind of file, what, where."""
    headers: dict[str, _Header] = {}
    for kind, path in (("image", pair.image), ("mask", pair.mask)):
        if path is None:
            continue
        try:
            headers[kind] = _read(path)
        except FileNotFoundError:
            yield True, kind, "missing", str(path)
        except (OSError, SyntaxError, ValueError):
            yield True, kind, "empty, cut short or of no known format (copy again)", str(path)
    if image := headers.get("image"):
        if image.deep:
            yield True, "image", "of more than 8 bits per channel (scale to 0-255)", str(pair.image)
        if image.mode in _ALPHA:
            yield False, "image", "alpha channel, which is dropped", str(pair.image)
        if channels == 3 and image.mode in _GREY:
            yield False, "image", "grey, which is repeated to 3 channels", str(pair.image)
        if channels == 1 and image.mode not in _GREY:
            yield False, "image", "colour, which is turned to grey", str(pair.image)
    if mask := headers.get("mask"):
        if mask.format != "PNG" or mask.mode not in _IDS:
            what = "without ids (export class ids as grey or palette PNG)"
            yield True, "mask", what, f"{pair.mask} ({mask.mode} {mask.format})"
        if image and mask.size != image.size:
            sizes = "{}x{}, image {}x{}".format(*mask.size, *image.size)
            yield True, "mask", "of another size than the image", f"{pair.mask} ({sizes})"
