"""COCO's run lengths: the form in which masks are stored, evaluated and exported.

A mask is read column by column; the runs alternate between outside and inside and begin outside. Compressed
(`counts` is bytes), the difference of each run to the one two places before it is written in groups of five
bits (pycocotools, `maskApi.c`).
"""

import itertools
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from faster_coco_eval.core import mask as _coco

from segfolio.errors import SegfolioError

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.integer]


class RLE(TypedDict):
    """A compressed mask: `size` is `[height, width]`."""

    size: list[int]
    counts: bytes


def encode(masks: Bools) -> list[RLE]:
    """`[N, H, W]` bool to N run lengths."""
    columns = np.ascontiguousarray(masks.transpose(0, 2, 1)).view(np.uint8)
    return _coco.encode(columns.transpose(2, 1, 0)) if len(masks) else []  # column by column in memory


def decode(rles: Sequence[RLE], size: tuple[int, int]) -> Bools:
    """N run lengths of one `size` (height, width) to `[N, H, W]` bool."""
    return decode_window(rles, size, np.arange(size[0]), np.arange(size[1]))


def decode_window(rles: Sequence[RLE], size: tuple[int, int], rows: Indices, columns: Indices) -> Bools:
    """The pixels of N masks at `rows` and `columns`: cropped, padded, flipped and resized to the nearest pixel in one.

    What lies outside the window or an object's box is not decoded.

    Args:
        size: height and width of the masks.
        rows: `[h]` indices of rows, all ascending or all descending, where one may be repeated; those outside the
            mask hold nothing.
        columns: `[w]`, likewise.

    Returns:
        `[N, h, w]` bool.
    """
    masks = np.zeros((len(rles), len(rows), len(columns)), np.bool_)
    if not rles:
        return masks
    ahead = masks  # seen so that both ascend
    if rows[0] > rows[-1]:
        rows, ahead = rows[::-1], ahead[:, ::-1]
    if columns[0] > columns[-1]:
        columns, ahead = columns[::-1], ahead[:, :, ::-1]
    height = size[0]
    above = np.searchsorted(rows, np.arange(height))  # of each row, how many of `rows` lie above it
    for mask, rle, (x, y, w, h) in zip(ahead, rles, boxes(rles).tolist(), strict=True):
        (top, bottom), (left, right) = np.searchsorted(rows, (y, y + h)), np.searchsorted(columns, (x, x + w))
        if top == bottom or left == right:
            continue
        first, past = int(columns[left]), int(columns[right - 1]) + 1
        edges = np.append(0, to_counts(rle).cumsum()).clip(first * height, past * height) - first * height
        column, row = np.divmod(edges, height)
        ends = column * (bottom - top) + (above[row] - top).clip(0, bottom - top)
        inside = np.arange(len(ends) - 1) % 2 == 1
        block = np.repeat(inside, ends[1:] - ends[:-1]).reshape(past - first, bottom - top)
        mask[top:bottom, left:right] = block[columns[left:right] - first].T
    return masks


def areas(rles: Sequence[RLE]) -> npt.NDArray[np.int64]:
    """Pixels of each mask, `[N]`."""
    return np.asarray(_coco.area(list(rles)), np.int64) if rles else np.zeros(0, np.int64)


def boxes(rles: Sequence[RLE]) -> npt.NDArray[np.float64]:
    """The box around each mask, `[N, 4]` as x, y, width, height in pixels; zeros where a mask is empty."""
    return np.asarray(_coco.toBbox(list(rles)), np.float64).reshape(-1, 4) if rles else np.zeros((0, 4))


def ious(rles: Sequence[RLE], mask: RLE) -> npt.NDArray[np.float64]:
    """Intersection over union of each mask with one, `[N]`; 0 of two that are empty."""
    return np.asarray(_coco.iou(list(rles), [mask], [False]), np.float64).reshape(-1)


def from_box(box: Sequence[float], size: tuple[int, int]) -> RLE:
    """The mask that a box of x, y, width and height draws: its pixels in the image, a row and a column at least."""
    mask = np.zeros(size, np.bool_)
    (left, top), (right, bottom) = (
        [max(0, round(start)) for start in box[:2]],
        [max(0, round(start + side), round(start) + (side > 0)) for start, side in zip(box[:2], box[2:], strict=True)],
    )
    mask[top:bottom, left:right] = True
    return encode(mask[None])[0]


def from_segmentation(segmentation: Any, size: tuple[int, int]) -> RLE:
    """What a COCO file holds under `segmentation` to the mask that pycocotools makes of it (`annToRLE`).

    Args:
        segmentation: a list of polygons `[x, y, x, y, ...]`, or `{size, counts}` with runs or compressed runs.
        size: height and width of the image.

    Raises:
        SegfolioError: all else, runs that do not make up the image, polygons of fewer than 3 points or with
            coordinates that are not finite or lie further outside the image than it is large.
    """
    pixels = size[0] * size[1]
    if pixels >= 2**31:
        raise SegfolioError(f"an image of {size[1]}x{size[0]} pixels is too large for run lengths")
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, size)
    if not isinstance(segmentation, dict):
        raise SegfolioError(
            f"the segmentation is {_shown(segmentation)}, expected a list of polygons or a mapping of size and counts"
        )
    if segmentation.get("size") != list(size):
        raise SegfolioError(
            f"the run lengths are of size {_shown(segmentation.get('size'))}, but [height, width] of the image is "
            f"{list(size)}"
        )
    counts = segmentation.get("counts")
    if isinstance(counts, str) and counts.isascii():
        counts = counts.encode()
    if isinstance(counts, bytes):
        runs = to_counts({"size": list(size), "counts": counts})
    elif isinstance(counts, list) and set(map(type, counts)) <= {int} and max(map(abs, counts), default=0) < 2**40:
        runs = np.array(counts, np.int64)
    else:
        raise SegfolioError(
            f"the counts are {_shown(counts)}, expected compressed run lengths or a list of whole numbers"
        )
    if (runs < 0).any():
        raise SegfolioError(f"the run lengths hold the negative number {runs.min()}")
    if (total := sum(runs.tolist())) != pixels:
        raise SegfolioError(f"the run lengths sum to {total}, but the image has {pixels} pixels")
    return {"size": list(size), "counts": counts} if isinstance(counts, bytes) else from_counts(counts, size)


def _from_polygons(polygons: list[Any], size: tuple[int, int]) -> RLE:
    if not polygons:
        raise SegfolioError("the segmentation is an empty list, expected at least one polygon")
    for polygon in polygons:
        if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
            raise SegfolioError(f"a polygon is {_shown(polygon)}, expected a list of numbers x, y, x, y, ...")
        if len(polygon) % 2 or len(polygon) < 6:
            raise SegfolioError(f"a polygon has {len(polygon)} coordinates, expected an even number of 6 or more")
        for side, values in ((size[1], polygon[::2]), (size[0], polygon[1::2])):
            if not all(-side <= value <= 2 * side for value in values):  # nor NaN; pycocotools would run out of memory
                wrong = next(value for value in values if not -side <= value <= 2 * side)
                raise SegfolioError(
                    f"a polygon has the coordinate {_shown(wrong)}, but the image is {side} pixels long there"
                )
    return _coco.merge(_coco.frPyObjects(polygons, *size))


def _shown(value: Any) -> str:
    """A value of a JSON file, cut to a length that a sentence bears."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def from_counts(counts: Sequence[int], size: tuple[int, int]) -> RLE:
    """Compress runs; they sum to the pixels of the mask."""
    return _coco.frPyObjects({"size": list(size), "counts": list(map(int, counts))}, *size)


def to_json(rle: RLE) -> dict[str, Any]:
    """As a COCO file holds it: `counts` is text."""
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def to_counts(rle: RLE) -> npt.NDArray[np.int64]:
    """The runs of a compressed mask.

    Raises:
        SegfolioError: bytes that are no run lengths.
    """
    data = np.frombuffer(rle["counts"], np.uint8).astype(np.int64) - 48
    if not len(data) or data.min() < 0 or data.max() > 63 or data[-1] & 32:
        raise SegfolioError("the counts are no compressed run lengths")
    last = np.flatnonzero(data & 32 == 0)
    first = np.append(0, last[:-1] + 1)
    groups = last - first + 1
    if groups.max() > 12:
        raise SegfolioError("the counts are no compressed run lengths")
    place = np.arange(len(data)) - np.repeat(first, groups)
    values = np.add.reduceat((data & 31) << (5 * place), first)
    values -= (data[last] >> 4 & 1) << (5 * groups)  # the sign
    for start in (1, 2):  # each run but the first three is a difference to the one two before it
        values[start::2] = np.cumsum(values[start::2])
    return values


def from_id_map(ids: npt.NDArray[np.integer], count: int) -> list[RLE]:
    """A map `[H, W]` of 1 to `count`, 0 where there is none, to the run lengths of each id, in one pass."""
    height, width = ids.shape
    flat = ids.T.reshape(-1)
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.append(starts[1:], flat.size)
    owner = flat[starts]
    order = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[order], np.arange(1, count + 2))
    rles = []
    for low, high in itertools.pairwise(bounds):
        edges = np.stack([starts[order[low:high]], ends[order[low:high]]], 1).reshape(-1)
        runs = np.diff(edges, prepend=0, append=flat.size).tolist()
        rles.append(from_counts(runs if runs[-1] else runs[:-1], (height, width)))
    return rles


def to_id_map(rles: Sequence[RLE], size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Run lengths to a map `[H, W]` of places + 1, 0 where there is none; of two that overlap the later is seen."""
    flat = np.zeros(size[0] * size[1], np.int32)
    for place, rle in enumerate(rles, 1):
        edges = np.cumsum(to_counts(rle))
        for start, end in zip(edges[::2], edges[1::2], strict=False):
            flat[start:end] = place
    return np.ascontiguousarray(flat.reshape(size[1], size[0]).T)
