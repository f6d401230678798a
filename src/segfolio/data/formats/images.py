"""Images and id maps: files to arrays and back.

Orientation tags are not applied, so that an image and its mask stay aligned.
"""

import io
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyspng
from PIL import Image

from segfolio.errors import SegfolioError
from segfolio.files import write_atomically

_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
_READ = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR_RGB}


def read_image(path: Path, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Decode an image to `[H, W, channels]` uint8, RGB or grey.

    Grey is repeated to three channels, colour becomes grey for one, alpha is dropped.

    Raises:
        SegfolioError: a file that is missing, cut short, no image, or of more than 8 bits per channel.
    """
    if channels not in _READ:
        raise SegfolioError(f"channels is {channels}; images are read with 1 (grey) or 3 (RGB)")
    data = load(path)
    pixels = _fast_png(data, kind=2) if channels == 3 else None
    if pixels is None:
        pixels = decode(path, data, _READ[channels] | cv2.IMREAD_ANYDEPTH)
    if pixels.dtype != np.uint8:
        raise SegfolioError(
            f"{path} holds {pixels.dtype} values, expected uint8; which range to keep is yours to say: "
            "scale the image to 0-255 and save it with 8 bits per channel"
        )
    return pixels.reshape(*pixels.shape[:2], channels)


def read_id_map(path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Decode a grey or palette PNG to the ids that it stores, `[H, W]` uint8 or uint16.

    Raises:
        SegfolioError: a file that is missing, cut short, no PNG, or that holds colours in place of ids.
    """
    data = load(path)
    if not data.startswith(_PNG):
        raise SegfolioError(f"{path} is no PNG; id maps are PNG files, because lossy formats change the ids")
    bits, kind = data[24], data[25]  # of the header, PNG specification 11.2.2
    if kind == 3:  # OpenCV would turn the indices of a palette into its colours
        try:
            return np.array(Image.open(io.BytesIO(data)))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise SegfolioError(f"{path} cannot be decoded ({error}); copy or export it again") from None
    if kind != 0:
        raise SegfolioError(
            f"{path} has been converted to colours ({'RGB' if kind == 2 else 'with alpha'}), expected class "
            "ids in one channel; export it as a grey or palette PNG"
        )
    if (pixels := _fast_png(data, kind=0)) is not None:
        return pixels
    ids = decode(path, data, cv2.IMREAD_UNCHANGED)
    return ids // (255 // (2**bits - 1)) if bits < 8 else ids  # OpenCV stretches 1, 2 and 4 bits to 0-255


def is_cut_short(data: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end mark. Bytes after the mark are allowed."""
    if data.startswith(_PNG):
        return not data.endswith(_PNG_END) and _PNG_END not in data
    if data.startswith(_JPEG):  # a thumbnail in the header has an end mark of its own
        return not data.endswith(_JPEG_END) and data.rfind(_JPEG_END) <= data.rfind(_JPEG_SCAN)
    return False


def write_image(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write `[H, W, 3]` RGB or `[H, W, 1]` grey uint8 in the format that the suffix names."""
    _encode(path, pixels if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


def write_id_map(path: Path, ids: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
    """Write `[H, W]` ids as a grey PNG of 8 or 16 bits."""
    if ids.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"ids are uint8 or uint16, not {ids.dtype}")  # OpenCV would clip them
    _encode(path, ids)


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


def decode(path: Path, data: bytes, flags: int) -> npt.NDArray[np.uint8]:
    """`data` of the file `path` by OpenCV, as it is stored; a `SegfolioError` where that fails."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # more pixels than OpenCV's limit
        pixels = None
    if pixels is None:
        raise SegfolioError(f"{path} cannot be decoded: it is damaged or no image; copy or export it again")
    return pixels


def _fast_png(data: bytes, kind: int) -> npt.NDArray[np.uint8] | None:
    """Decode a PNG of 8 bits and the given colour type (0 grey, 2 RGB); None for all that OpenCV is to judge.

    pyspng needs a quarter less time than OpenCV, but reads damaged files without a word.
    """
    if not data.startswith(_PNG) or data[24:26] != bytes((8, kind)) or not _checksums_hold(data):
        return None
    try:
        pixels = pyspng.load(data)
    except RuntimeError:
        return None
    return pixels if pixels.ndim == 2 + kind // 2 and pixels.shape[2:] in ((), (3,)) else None


def _checksums_hold(data: bytes) -> bool:
    """Whether every chunk of a PNG is whole (PNG specification 5.3)."""
    view, start = memoryview(data), len(_PNG)
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(view[start : start + 4])
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4]):
            return False
        if view[start + 4 : start + 8] == b"IEND":
            return True
        start = end + 4
    return False


def _encode(path: Path, pixels: npt.NDArray[np.integer]) -> None:
    write_atomically(path, cv2.imencode(path.suffix, pixels)[1].tobytes())
