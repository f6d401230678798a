"""`read_header`: what an image file says of itself before a pixel is decoded."""

from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Image import Exif
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from segfolio.data.formats import tiff
from segfolio.data.formats.images import JPEG_START, NPY_START, PNG_START, TIFF_STARTS, is_cut_short
from segfolio.data.sample import Size

_PICTURES = {PNG_START[:4]: PngImageFile, JPEG_START: JpegImageFile, b"RIFF": WebPImageFile, b"BM": BmpImageFile}
"""By how a file begins. Not by `Image.open`, which refuses large images, to guard services from their users."""

_CHANNELS = {"1": 1, "L": 1, "LA": 2, "I;16": 1, "I;16B": 1, "I": 1, "RGBA": 4, "PA": 4}  # of Pillow's modes; else 3
_ORIENTATION = 0x0112


class ImageHeader(NamedTuple):
    """An image as `read_image` finds it.

    Attributes:
        channels: that are stored, alpha among them.
        dtype: numpy's name, or how many bits a value has.
        holds_ids: whether `read_id_map` reads it.
        orientation: EXIF's or TIFF's tag, 1 where there is none.
        images: in the file, of which the first is read.
    """

    format: str
    size: Size
    channels: int
    dtype: str
    holds_ids: bool = False
    orientation: int = 1
    images: int = 1


def read_header(path: Path) -> ImageHeader:
    """The header of an image file of any format that is read.

    Raises:
        OSError, ValueError: no such file, no image, or one that is cut short.
    """
    with path.open("rb") as file:
        start = file.read(12)
        file.seek(0)
        if start.startswith(NPY_START):
            return _of_npy(file)
        if start.startswith(TIFF_STARTS):
            return _of_tiff(file)
        header = _of_picture(file, next((kind for mark, kind in _PICTURES.items() if start.startswith(mark)), None))
        file.seek(-12, 2)
        if is_cut_short(start + file.read()) and is_cut_short(path.read_bytes()):
            raise ValueError("cut short")
    return header


def _of_picture(file: BinaryIO, kind: type[ImageFile] | None) -> ImageHeader:
    if kind is None:
        raise ValueError("of no known format")
    try:
        image = kind(file)
    except SyntaxError as error:  # Pillow's word for a damaged file
        raise ValueError(str(error)) from error
    exif = Exif()
    exif.load(image.info.get("exif", b""))
    channels = 4 if image.mode == "P" and "transparency" in image.info else _CHANNELS.get(image.mode, 3)
    dtype, holds_ids = "uint8", False
    if kind is BmpImageFile and image.tile[0][0] == "raw":  # which has no end mark
        arguments: Any = image.tile[0].args  # mode, bytes of a row, direction
        if image.tile[0].offset + arguments[1] * image.height > file.seek(0, 2):
            raise ValueError("cut short")
    if kind is PngImageFile:  # of 16-bit RGB the mode is "RGB" all the same
        file.seek(24)
        bits, color = file.read(2)
        dtype, holds_ids = "uint16" if bits == 16 else "uint8", color in (0, 3)
    return ImageHeader(
        image.format or "",
        (image.height, image.width),
        channels,
        dtype,
        holds_ids,
        exif.get(_ORIENTATION, 1),
        getattr(image, "n_frames", 1),
    )


def _of_tiff(file: BinaryIO) -> ImageHeader:
    first, *others = tiff.pages(file)
    if not first.chunks or sum(first.chunks[-1]) > file.seek(0, 2):
        raise ValueError("cut short")
    return ImageHeader(
        "TIFF", first.size, first.channels, first.dtype, orientation=first.orientation, images=1 + len(others)
    )


def _of_npy(file: BinaryIO) -> ImageHeader:
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(npy.read_magic(file))
    if read is None:
        raise ValueError("an NPY file of an unknown version")
    shape, _, dtype = read(file)
    if len(shape) not in (2, 3) or file.tell() + np.prod(shape) * dtype.itemsize > file.seek(0, 2):
        raise ValueError("of another shape than [H, W] or [H, W, C], or cut short")
    return ImageHeader("NPY", (shape[0], shape[1]), shape[2] if len(shape) == 3 else 1, dtype.name)
