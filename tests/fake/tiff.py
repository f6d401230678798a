"""TIFFs that no library of ours writes: any channels, types and layouts, as `struct` packs them."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_KINDS = {"u": 1, "i": 2, "f": 3}


def encode(
    *pages: npt.NDArray[Any],
    planar: bool = False,
    deflate: bool = False,
    predictor: bool = False,
    tile: int | None = None,
    big: bool = False,
    order: str = "<",
    photometric: int = 1,
    tags: dict[int, tuple[int, ...]] | None = None,
) -> bytes:
    """One `[H, W, C]` array or more as a TIFF, of one strip per plane or of square tiles.

    Args:
        predictor: differences of neighbours.
        big: BigTIFF.
        tags: further ones, as SHORT.
    """
    wide, pointer = (8, "Q") if big else (4, "I")
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    data = bytearray(start + (struct.pack(f"{order}HHQ", 8, 0, 0) if big else bytes(4)))
    link = len(data) - wide
    for pixels in pages:
        planes = np.split(pixels, pixels.shape[2], 2) if planar else [pixels]
        offsets, counts = [], []
        for part in (part for plane in planes for part in _parts(plane, tile)):
            stored = part.astype(part.dtype.newbyteorder(order))
            if predictor:
                whole = part.view(f"u{part.dtype.itemsize}")
                stored = np.diff(whole, axis=1, prepend=whole[:, :1] * 0).astype(whole.dtype.newbyteorder(order))
            chunk = zlib.compress(stored.tobytes()) if deflate else stored.tobytes()
            offsets.append(len(data))
            counts.append(len(chunk))
            data += chunk
        entries = {
            256: ("I", (pixels.shape[1],)),
            257: ("I", (pixels.shape[0],)),
            258: ("H", (8 * pixels.dtype.itemsize,) * pixels.shape[2]),
            259: ("H", (8 if deflate else 1,)),
            262: ("H", (photometric,)),
            (324 if tile else 273): (pointer, tuple(offsets)),
            277: ("H", (pixels.shape[2],)),
            (325 if tile else 279): (pointer, tuple(counts)),
            284: ("H", (2 if planar else 1,)),
            317: ("H", (2 if predictor else 1,)),
            339: ("H", (_KINDS[pixels.dtype.kind],) * pixels.shape[2]),
            **({322: ("H", (tile,)), 323: ("H", (tile,))} if tile else {278: ("I", (pixels.shape[0],))}),
            **{tag: ("H", values) for tag, values in (tags or {}).items()},
        }
        packed = {tag: (kind, struct.pack(f"{order}{len(v)}{kind}", *v), len(v)) for tag, (kind, v) in entries.items()}
        values = {}
        for tag, (_, value, _) in packed.items():
            if len(value) > wide:
                value, place = struct.pack(order + pointer, len(data)), value
                data += place
            values[tag] = value.ljust(wide, b"\0")
        data[link : link + wide] = struct.pack(order + pointer, len(data))
        data += struct.pack(f"{order}{'Q' if big else 'H'}", len(packed))
        for tag, (kind, _, count) in sorted(packed.items()):
            data += struct.pack(f"{order}HH{pointer}", tag, {"H": 3, "I": 4, "Q": 16}[kind], count) + values[tag]
        link = len(data)
        data += bytes(wide)
    return bytes(data)


def _parts(plane: npt.NDArray[Any], tile: int | None) -> Sequence[npt.NDArray[Any]]:
    """The strip that a plane is, or its tiles, padded with zeros."""
    if tile is None:
        return [plane]
    height, width, _ = plane.shape
    padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
    return [
        np.ascontiguousarray(padded[y : y + tile, x : x + tile])
        for y in range(0, height, tile)
        for x in range(0, width, tile)
    ]
