"""TIFF: tags, and the numbers of images of any channels and type, which neither OpenCV nor Pillow decodes.

Strips and tiles are unpacked by libtiff, as strips of a grey image of bytes: by Pillow's where that tells damage, else
by OpenCV's, which knows more compressions. What a TIFF says beyond that (channels, planes, types, byte order,
predictors; TIFF 6.0 and its technical notes 1 and 3) is read here.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL.TiffImagePlugin import TiffImageFile

_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of the tags that matter here
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS, _COUNTS, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _FORMAT = 317, 322, 323, 324, 325, 339
_SUBFILE = 254
_REDUCED_OR_MASK = 0b101
_JPEG = (6, 7)
_DEFLATE = (8, 32946)
_LZW, _PACKBITS = 5, 32773
_WHITE_IS_ZERO, _RGB, _PALETTE = 0, 2, 3
_DIFFERENCES, _FLOAT_DIFFERENCES = 2, 3
_MOST_ROWS, _MOST_BYTES = 2**19, 2**26  # OpenCV reads twice as many, Pillow without a warning


class Page(NamedTuple):
    """An image in a TIFF.

    Attributes:
        order: of bytes, as `struct` has it.
        tags: all whose values are integers.
        places: where in the file the value of a tag, or its offset, is.
    """

    order: str
    tags: dict[int, tuple[int, ...]]
    places: dict[int, int]

    def first(self, tag: int, default: int = 1) -> int:
        return self.tags.get(tag, (default,))[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height, width."""
        return self.first(_HEIGHT, 0), self.first(_WIDTH, 0)

    @property
    def orientation(self) -> int:
        return self.first(_ORIENTATION)

    @property
    def channels(self) -> int:
        """Of the decoded image, alpha among them."""
        grey_or_rgb = self.first(_PHOTOMETRIC) <= _RGB
        return self.first(_SAMPLES) if grey_or_rgb else 3

    @property
    def dtype(self) -> str:
        """numpy's name of the type of the decoded values, or how many bits they have."""
        bits, kind = self.first(_BITS), {2: "i", 3: "f"}.get(self.first(_FORMAT), "u")
        if kind == "u" and bits < 8:
            return "uint8"
        if bits in (8, 16, 32, 64) and (kind, bits) != ("f", 8):
            return np.dtype(f"{kind}{bits // 8}").name
        return f"{bits}-bit"

    @property
    def is_plain(self) -> bool:
        """Whether the values are numbers as stored; else there are palettes, other colour spaces, or bits."""
        return (
            self.first(_PHOTOMETRIC) <= _RGB
            and min(self.tags.get(_BITS, (1,))) >= 8
            and "-bit" not in self.dtype
            and self.first(_COMPRESSION) not in _JPEG
            and self.first(_FILL_ORDER) == 1
        )

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """Offset and length of each strip or tile."""
        offsets = self.tags.get(_TILE_OFFSETS) or self.tags.get(_OFFSETS, ())
        counts = self.tags.get(_TILE_COUNTS) or self.tags.get(_COUNTS, ())
        return list(zip(offsets, counts, strict=False))


def pages(file: BinaryIO) -> Iterator[Page]:
    """The images of a TIFF or BigTIFF, without reduced versions (of pyramids) and masks.

    Raises:
        ValueError: no TIFF, or one that ends too early.
    """
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 8:
        raise ValueError("no TIFF")
    big = struct.unpack(f"{order}H", start[2:4]) == (43,)
    number, entry, pointer = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    width, size = struct.calcsize(f"{order}{pointer}"), struct.calcsize(f"{order}{entry}")
    try:
        (place,) = struct.unpack_from(order + pointer, start, 8 if big else 4)
        seen = set[int]()
        while place and place not in seen:
            seen.add(place)
            file.seek(place)
            (length,) = struct.unpack(order + number, file.read(struct.calcsize(order + number)))
            first, table = file.tell(), file.read(length * size)
            (place,) = struct.unpack(order + pointer, file.read(width))
            page = Page(order, {}, {})
            for i, (tag, kind, count, value) in enumerate(struct.iter_unpack(order + entry, table)):
                if kind in _INTEGERS:
                    layout = f"{order}{count}{_INTEGERS[kind]}"
                    if (extent := struct.calcsize(layout)) > width:
                        file.seek(struct.unpack(order + pointer, value)[0])
                        value = file.read(extent)
                    page.tags[tag] = struct.unpack(layout, value[:extent])
                    page.places[tag] = first + (i + 1) * size - width
            if not page.first(_SUBFILE, 0) & _REDUCED_OR_MASK:
                yield page
    except struct.error as error:
        raise ValueError("cut short") from error


def upright(data: bytes, page: Page) -> bytes:
    """The file without its orientation tag, which decoders would apply."""
    if page.orientation == 1:
        return data
    place = page.places[_ORIENTATION]
    return data[:place] + struct.pack(f"{page.order}H", 1) + data[place + 2 :]


def numbers(data: bytes, page: Page) -> npt.NDArray[Any]:
    """The values of a page that `is_plain`, `[H, W, C]`, as stored: alpha is a channel like others.

    Raises:
        ValueError: a page that is cut short, damaged, or compressed in an unknown way.
    """
    height, width = page.size
    samples, dtype = page.first(_SAMPLES), np.dtype(page.dtype).newbyteorder(page.order)  # type: ignore[arg-type]
    tiled = _TILE_OFFSETS in page.tags
    tile = page.first(_TILE_WIDTH, width), page.first(_TILE_HEIGHT, min(page.first(_ROWS, height), height))
    planes = samples if page.first(_PLANAR) == 2 else 1
    each, (parts, odd) = samples // planes, divmod(len(page.chunks), planes)
    if not (height and width and all(tile) and parts) or odd:
        raise ValueError("no image in it")
    across = -(-width // tile[0])
    found = []
    for plane in range(planes):
        chunks = [data[start : start + length] for start, length in page.chunks[plane * parts : (plane + 1) * parts]]
        raw = _unpack(chunks, tile[0] * each * dtype.itemsize, tile[1], height, page)
        if tiled:
            raw = raw.reshape(-1, across, tile[1], raw.shape[1]).swapaxes(1, 2)
        values = _undo(raw.reshape(-1, across, raw.shape[-1])[:height], each, dtype, page.first(_PREDICTOR))
        found.append(values.reshape(height, -1, each)[:, :width])
    values = found[0] if planes == 1 else np.concatenate(found, 2)
    return np.iinfo(values.dtype).max - values if page.first(_PHOTOMETRIC) == _WHITE_IS_ZERO else values


def _unpack(chunks: list[bytes], row: int, rows: int, height: int, page: Page) -> npt.NDArray[np.uint8]:
    """The bytes `[rows of all, row]` of strips or tiles of `rows` rows each; of strips the last ends with the image."""
    compression, parts = page.first(_COMPRESSION), []
    total = len(chunks) * rows if _TILE_OFFSETS in page.tags else height
    if compression in _DEFLATE:
        return _inflated(chunks, row, rows, total)
    step = max(1, min(_MOST_ROWS // rows, _MOST_BYTES // (rows * row)))
    for first in range(0, len(chunks), step):
        some = chunks[first : first + step]
        size = min(total - first * rows, len(some) * rows), row
        part = _bytes(_grey(some, size, rows, compression), size, compression)
        if part is None or part.shape != size:
            raise ValueError(f"damaged, or compressed in an unknown way ({compression})")
        parts.append(part)
    return np.concatenate(parts)


def _bytes(grey: bytes, size: tuple[int, int], compression: int) -> npt.NDArray[np.uint8] | None:
    """The pixels of what `_grey` makes; None where they cannot be decoded. At strips whose codes make no sense, or too
    few bytes, OpenCV goes on with those of before; a single strip that is too large for Pillow is left to it."""
    try:
        if compression in (_LZW, _PACKBITS) and size[0] * size[1] <= _MOST_BYTES:
            return np.asarray(TiffImageFile(io.BytesIO(grey)))
        return cv2.imdecode(np.frombuffer(grey, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, ValueError, SyntaxError, cv2.error):
        return None


def _inflated(chunks: list[bytes], row: int, rows: int, total: int) -> npt.NDArray[np.uint8]:
    """As `_unpack`, where a checksum tells damage, at which OpenCV goes on."""
    whole = bytearray()
    for place, chunk in enumerate(chunks):
        size = row * min(rows, total - place * rows)
        try:
            part = zlib.decompress(chunk)
        except zlib.error:
            raise ValueError("damaged") from None
        if len(part) < size:
            raise ValueError("damaged")
        whole += part[:size]
    return np.frombuffer(whole, np.uint8).reshape(total, row)


def _grey(chunks: list[bytes], size: tuple[int, int], rows: int, compression: int) -> bytes:
    """A TIFF of one channel of 8 bits with these strips."""
    starts = accumulate(map(len, chunks[:-1]), initial=8)
    tags = {
        _WIDTH: (size[1],),
        _HEIGHT: (size[0],),
        _BITS: (8,),
        _COMPRESSION: (compression,),
        _PHOTOMETRIC: (1,),
        _OFFSETS: tuple(starts),
        _SAMPLES: (1,),
        _ROWS: (rows,),
        _COUNTS: tuple(map(len, chunks)),
    }
    content = b"".join(chunks)
    directory = 8 + len(content) + len(content) % 2
    behind = directory + 2 + 12 * len(tags) + 4
    entries = beyond = b""
    for tag, values in tags.items():
        value = struct.pack(f"<{len(values)}I", *values)
        if len(value) > 4:
            beyond, value = beyond + value, struct.pack("<I", behind + len(beyond))
        entries += struct.pack("<HHI", tag, 4, len(values)) + value
    start = struct.pack("<2sHI", b"II", 42, directory)
    return start + content.ljust(directory - 8, b"\0") + struct.pack("<H", len(tags)) + entries + bytes(4) + beyond


def _undo(raw: npt.NDArray[np.uint8], channels: int, dtype: np.dtype[Any], predictor: int) -> npt.NDArray[Any]:
    """Bytes `[H, tiles, bytes]` to values `[H, tiles, pixels, channels]` in the machine's order; the predictor undone.

    Differences are of neighbours in a row of a tile; those of floats are of bytes, the most significant ones of a row
    first.
    """
    height, tiles, row = raw.shape
    if predictor == _FLOAT_DIFFERENCES:
        summed = np.add.accumulate(raw.reshape(height, tiles, -1, channels), axis=2, dtype=np.uint8)
        planes = summed.reshape(height, tiles, dtype.itemsize, row // dtype.itemsize)
        raw, dtype = np.ascontiguousarray(planes.swapaxes(2, 3)), dtype.newbyteorder(">")
    native = dtype.newbyteorder("=")
    values: npt.NDArray[Any] = raw.reshape(height, tiles, row).view(dtype).astype(native, copy=False)
    values = values.reshape(height, tiles, -1, channels)
    if predictor == _DIFFERENCES:
        whole = np.dtype(f"u{native.itemsize}")
        values = np.add.accumulate(values.view(whole), axis=2, dtype=whole).view(native)
    return values
