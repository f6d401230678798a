"""Images and id maps: files to arrays and back.

Orientation tags (EXIF's, TIFF's) are not applied, in no format, so that an image and its mask stay aligned; the check
of headers names the files that have one. Gamma and colour profiles are not applied either.

A file that is cut short is found out in every format. Changed bytes are in PNG and in deflated TIFF, by their
checksums. LZW and PackBits have none: what is found out is codes that make no sense and strips that come out too short.
In JPEG and WebP nearly every sequence of bits is some picture, and what libjpeg warns of neither OpenCV nor Pillow
tells; of pixels that are not compressed (BMP, NPY, plain TIFF) every value may be meant. Copies of such files are to be
compared by checksums of their own.
"""

import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyspng
from PIL import Image

from segfolio.data.formats import tiff
from segfolio.data.image_space import RGB, ImageSpace
from segfolio.errors import SegfolioError
from segfolio.files import write_atomically

PNG_START, JPEG_START, NPY_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x93NUMPY"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_END, _JPEG_END = b"IEND\xaeB`\x82", b"\xff\xd9"
_DAMAGED = "{path} cannot be decoded: it is damaged or no image; copy or export it again"
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length behind them: those in a scan, and the start


def read_image(path: Path, space: ImageSpace = RGB) -> npt.NDArray[Any]:
    """Decode an image to `[H, W, channels]` of the space's type, as it is stored; of a TIFF the first page.

    Grey is repeated to three channels, colour becomes grey for one, and the alpha of grey and of RGB is dropped where
    it is not asked for. NPY files hold `[H, W]` or `[H, W, C]`.

    Raises:
        SegfolioError: a file that is missing, cut short, no image, or of another type or number of channels; values
            that are no numbers.
    """
    data = load(path)
    pixels = _fast_png(data, kind=2) if space.channels == 3 else None
    if pixels is None:
        pixels = _decoded(path, data, space.channels)
    if wrong := space.misfit(pixels.shape[2], pixels.dtype.name):
        raise SegfolioError(f"{path} is {wrong}")
    pixels = with_channels(pixels.astype(space.dtype, copy=False), space.channels)
    if space.dtype == "float32" and not np.isfinite(pixels).all():
        raise SegfolioError(f"{path} holds values that are no numbers or infinite; write others in their places")
    return pixels


def read_id_map(path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Decode a grey or palette PNG to the ids that it stores, `[H, W]` uint8 or uint16.

    Raises:
        SegfolioError: a file that is missing, cut short, no PNG, or that holds colours in place of ids.
    """
    data = load(path)
    if not data.startswith(PNG_START):
        raise SegfolioError(f"{path} is no PNG; id maps are PNG files, because lossy formats change the ids")
    bits, kind = data[24], data[25]  # of the header, PNG specification 11.2.2
    if kind not in (0, 3):
        raise SegfolioError(
            f"{path} has been converted to colours ({'RGB' if kind == 2 else 'with alpha'}), expected class "
            "ids in one channel; export it as a grey or palette PNG"
        )
    if kind == 3 and _checksums_hold(data):  # decoders would turn the indices of a palette into its colours
        data = _without_palette(data)
    elif kind == 3:
        raise SegfolioError(_DAMAGED.format(path=path))
    if (pixels := _fast_png(data, kind=0)) is not None:
        return pixels[..., 0]
    ids = decode(path, data, cv2.IMREAD_UNCHANGED)
    return ids // (255 // (2**bits - 1)) if bits < 8 else ids  # OpenCV stretches 1, 2 and 4 bits to 0-255


def is_cut_short(data: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end mark. Bytes after the mark are allowed."""
    if data.startswith(PNG_START):
        return not data.endswith(_PNG_END) and _PNG_END not in data
    return data.startswith(JPEG_START) and not data.endswith(_JPEG_END) and not _ends(data)


def _ends(jpeg: bytes) -> bool:
    """Whether the image itself comes to its end mark: a thumbnail in the header has one, what is appended any."""
    place = 0
    while (marker := _MARKER.search(jpeg, place)) and marker[0][-1:] != _JPEG_END[1:]:
        place = marker.end()
        if marker[1][0] not in _ALONE:
            place += int.from_bytes(jpeg[place : place + 2])
    return marker is not None


def write_image(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write `[H, W, 3]` RGB or `[H, W, 1]` grey uint8 in the format that the suffix names."""
    write_atomically(path, encoded(pixels, path.suffix))


def encoded(pixels: npt.NDArray[np.uint8], suffix: str) -> bytes:
    """The file that `write_image` writes."""
    return _encoded(pixels if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), suffix)


def write_id_map(path: Path, ids: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    """Write `[H, W]` ids as a grey PNG of 8 or 16 bits."""
    if ids.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"ids are uint8 or uint16, not {ids.dtype}")  # OpenCV would clip them
    write_atomically(path, _encoded(ids, path.suffix))


def write_palette(path: Path, ids: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8]) -> None:
    """Write `[H, W]` ids as a palette PNG: viewers show colours, `read_id_map` reads the ids.

    Args:
        palette: `[N, 3]` RGB, the colour of each id; N is at most 256.
    """
    if ids.dtype != np.uint8:
        raise TypeError(f"ids of a palette PNG are uint8, not {ids.dtype}")
    image = Image.fromarray(ids)
    image.putpalette(palette.tobytes())
    image.save(stream := io.BytesIO(), "PNG")
    write_atomically(path, stream.getvalue())


def load(path: Path) -> bytes:
    """The bytes of an image file, or a `SegfolioError` if it is missing, empty or cut short."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SegfolioError(f"{path} cannot be read: {(error.strerror or 'unknown error').lower()}") from None
    if not data:
        raise SegfolioError(f"{path} is empty (0 bytes); copy or export it again")
    if is_cut_short(data):
        raise SegfolioError(f"{path} is cut short: after {len(data)} bytes the image goes on; copy it again")
    return data


def decode(path: Path, data: bytes, flags: int) -> npt.NDArray[Any]:
    """`data` of the file `path` by OpenCV, as it is stored; a `SegfolioError` where that fails."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # more pixels than OpenCV's limit
        pixels = None
    if pixels is None:
        raise SegfolioError(_DAMAGED.format(path=path))
    return pixels


def _decoded(path: Path, data: bytes, channels: int) -> npt.NDArray[Any]:
    """`[H, W, C]`, RGB before BGR: all channels of the file, or those three of a picture that are asked for."""
    try:
        if data.startswith(NPY_START):
            values = np.load(io.BytesIO(data), allow_pickle=False)
            if values.ndim not in (2, 3):
                raise ValueError(f"its shape is {list(values.shape)}, expected [H, W] or [H, W, C]")
            return np.ascontiguousarray(values.reshape(*values.shape[:2], -1))
        if data.startswith(TIFF_STARTS):
            page = next(tiff.pages(io.BytesIO(data)))
            if page.is_plain:
                return tiff.numbers(data, page)
            data = tiff.upright(data, page)
    except (ValueError, EOFError, StopIteration) as error:
        reason = str(error) or "there is no image in it"
        raise SegfolioError(f"{path} cannot be decoded: {reason}; copy or export it again") from None
    if channels == 3:
        return decode(path, data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)
    pixels = decode(path, data, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)
    grey_and_alpha = data.startswith(PNG_START) and data[25] == 4
    return pixels[..., [0, 3]] if grey_and_alpha else pixels


def with_channels(pixels: npt.NDArray[Any], channels: int) -> npt.NDArray[Any]:
    """`[H, W, C]` as grey or RGB where that is asked for and there is something else."""
    if pixels.shape[2] == channels:
        return pixels
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]  # without alpha
    if channels == 3:
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    if pixels.shape[2] == 3:
        return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)[..., None]
    return np.ascontiguousarray(pixels)


def _fast_png(data: bytes, kind: int) -> npt.NDArray[np.uint8] | None:
    """Decode a PNG of 8 bits and the given colour type (0 grey, 2 RGB); None for all that OpenCV is to judge.

    pyspng needs a quarter less time than OpenCV, but reads damaged files without a word.
    """
    if not data.startswith(PNG_START) or data[24:26] != bytes((8, kind)) or not _checksums_hold(data):
        return None
    try:
        pixels = pyspng.load(data)
    except RuntimeError:
        return None
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels if pixels.shape[2] == kind + 1 else None


def _checksums_hold(data: bytes) -> bool:
    """Whether every chunk of a PNG is whole (PNG specification 5.3)."""
    view, last = memoryview(data), b""
    for kind, start, end in _chunks(data):
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            return False
        last = kind
    return last == b"IEND"


def _chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk of a PNG, to the one that ends it."""
    end, kind = len(PNG_START), b""
    while end + 12 <= len(png) and kind != b"IEND":
        start, kind = end, png[end + 4 : end + 8]
        end += 12 + int.from_bytes(png[start : start + 4])
        yield kind, start, end


def _without_palette(png: bytes) -> bytes:
    """A palette PNG as the grey one of the same indices: they are packed alike."""
    parts = [png[start:end] for kind, start, end in _chunks(png) if kind in (b"IDAT", b"IEND")]
    header = png[12:25] + b"\0" + png[26:29]
    return b"".join((png[:12], header, zlib.crc32(header).to_bytes(4), *parts))


def _encoded(pixels: npt.NDArray[np.integer], suffix: str) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()
