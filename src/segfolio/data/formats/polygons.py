"""Masks as polygons and back.

An outline runs along the edges of pixels: its vertices are the integer corners at which it turns, so that
nothing is lost. Pixels that touch in a corner alone belong to two polygons.
"""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Ring = npt.NDArray[np.float64]
"""Vertices `[K, 2]` as x, y in pixels; the last is joined to the first. (0, 0) is the image's corner."""


class Polygon(NamedTuple):
    """One region: on screen the outer ring runs clockwise, its holes counter-clockwise."""

    outer: Ring
    holes: list[Ring]


def from_mask(mask: npt.NDArray[np.bool_], simplify: float = 0.0) -> list[Polygon]:
    """The outlines of a mask `[H, W]`, one polygon per region that is connected by edges.

    Args:
        simplify: how far, in pixels, a simplified outline may lie from the exact one (Douglas and Peucker,
            1973); 0 for the exact one.
    """
    _, regions = cv2.connectedComponents(mask.view(np.uint8), connectivity=4)
    polygons: dict[int, Polygon] = {}
    for ring in _rings(mask):
        x, y = ring[0]  # the leftmost of its topmost corners: below it lies a region, or a hole of the one above
        shape = _simplified(ring, simplify)
        if region := int(regions[y, x]):
            polygons[region] = Polygon(shape, [])
        else:
            polygons[int(regions[y - 1, x])].holes.append(shape[::-1])
    return list(polygons.values())


def to_mask(rings: Iterable[Ring], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """`[H, W]` of the pixels whose centres an odd number of rings encloses; parts outside the image are cut."""
    height, width = size
    rings = list(rings)
    if not rings:
        return np.zeros(size, np.bool_)
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, 0) for ring in rings])
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64) for y in (low, high))
    rows = last - first  # whose centres the edge crosses
    edge = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows) + first[edge]
    (x, y), (dx, dy) = start[edge].T, (end - start)[edge].T
    column = np.clip(np.ceil(x + (row + 0.5 - y) * dx / dy - 0.5), 0, width).astype(np.int64)
    crossings = np.bincount(row * (width + 1) + column, minlength=height * (width + 1))
    odd = (crossings & 1).astype(np.bool_).reshape(height, width + 1)
    return np.ascontiguousarray(np.logical_xor.accumulate(odd, axis=1)[:, :-1])


def ellipse(centre: Ring, radii: Ring, degrees: float = 0.0) -> Ring:
    """An outline that lies within a tenth of a pixel of an ellipse.

    Args:
        centre, radii: `[2]`, along x and y, in pixels.
        degrees: by which it is turned about its centre, clockwise on screen.
    """
    angle = np.linspace(0, 2 * np.pi, 8 + int(10 * np.max(radii) ** 0.5), endpoint=False)
    return turned(np.stack([np.cos(angle), np.sin(angle)], 1) * radii + centre, centre, degrees)


def turned(points: Ring, centre: Ring, degrees: float) -> Ring:
    """`[K, 2]` after a turn about a point, clockwise on screen."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (points - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre


def enclosing(points: Ring) -> list[float]:
    """x, y, width, height of the box around `[K, 2]`."""
    low, high = points.min(0), points.max(0)
    return [*low.tolist(), *(high - low).tolist()]


def corners(x: float, y: float, width: float, height: float) -> Ring:
    """`[4, 2]`, from the upper left on, clockwise."""
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float64)


def to_coco(polygons: Iterable[Polygon]) -> list[list[float]]:
    """COCO's `segmentation`: one list `x, y, x, y, ...` per polygon.

    COCO has no holes: each is joined to the ring above it by a cut of no width, which adds no pixel.
    pycocotools' rasterisation of exact outlines gives the mask back.
    """
    flat = []
    for polygon in polygons:
        ring = polygon.outer
        for hole in polygon.holes:
            ring = _joined(ring, hole)
        flat.append(ring.reshape(-1).tolist())
    return flat


def _rings(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int64]]:
    """All outlines, in the order of their first vertex by row and column, clockwise from there.

    Sorted along a line of the grid, corners at which outlines turn are the ends of the edges on that line in
    pairs. Where two pixels touch in a corner, two outlines turn; each keeps to its pixel.
    """
    padded = np.pad(mask.view(np.uint8), 1)
    around = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, :-1] + 8 * padded[1:, 1:]
    y, x = np.nonzero(_TURNS[around])
    kind = around[y, x]
    double = (kind == 6) | (kind == 9)
    place = np.repeat(np.arange(len(x)), 1 + double)  # of each turn among the corners: by rows already
    x, y, kind = x[place], y[place], kind[place]
    second = np.append(False, place[1:] == place[:-1])
    second_in_column = second ^ (kind == 6)  # the left one of these two pixels is the lower one
    by_column = np.lexsort((second_in_column, y, x))
    across, along = np.arange(len(x)) ^ 1, np.empty(len(x), np.int64)
    along[by_column[0::2]], along[by_column[1::2]] = by_column[1::2], by_column[0::2]
    ends, nexts = across.tolist(), along[across].tolist()
    seen = bytearray(len(x))
    corners = np.stack([x, y], 1)
    rings = []
    for turn in range(len(ends)):
        ring: list[int] = []
        while not seen[turn]:
            ring += (turn, ends[turn])
            seen[turn] = seen[ends[turn]] = 1
            turn = nexts[turn]
        if ring:
            rings.append(corners[ring])
    return rings


_TURNS = np.ones(16, np.bool_)
_TURNS[[0, 3, 5, 10, 12, 15]] = False  # none or all of the four pixels around a corner, or two side by side


def _simplified(ring: npt.NDArray[np.int64], tolerance: float) -> Ring:
    if tolerance > 0:
        shorter = cv2.approxPolyDP(ring.astype(np.int32), tolerance, True)[:, 0]
        ring = shorter if len(shorter) > 2 else ring
    return ring.astype(np.float64)


def _joined(ring: Ring, hole: Ring) -> Ring:
    """A ring that enters the hole by a vertical cut and leaves it on the same way."""
    hole = np.roll(hole, 1, 0)  # reversed, its first vertex was the last
    (x, y), end = hole[0], np.roll(ring, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        height = ring[:, 1] + (x - ring[:, 0]) * ((end - ring)[:, 1] / (end - ring)[:, 0])
    above = (np.minimum(ring[:, 0], end[:, 0]) <= x) & (x < np.maximum(ring[:, 0], end[:, 0])) & (height < y)
    at = int(np.argmax(np.where(above, height, -np.inf)))
    foot = np.array([[x, height[at]]]) if above[at] else ring[at : at + 1]  # of simplified rings none may be above
    whole = np.concatenate([ring[: at + 1], foot, hole, hole[:1], foot, ring[at + 1 :]])
    return whole[(whole != np.roll(whole, 1, 0)).any(1)]
