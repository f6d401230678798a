"""COCO's panoptic format: one RGB PNG of segment ids per image, and a JSON that says what they are.

A pixel's id is R + 256 G + 65536 B, and 0 where there is no segment (https://cocodataset.org/#format-data, 4).
"""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segfolio.data.formats import rle
from segfolio.data.formats.images import load, read_image, write_image
from segfolio.data.labels import LabelSpace
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

Ids = npt.NDArray[np.int32]

MAX_ID = 0xFFFFFF
_RGB8 = b"\x08\x02"  # bit depth and colour type of a PNG's header


def panoptic_size(path: Path) -> tuple[int, int]:
    """Height and width of a panoptic PNG, from its header.

    Raises:
        SegfolioError: a file that is missing, cut short, or no PNG of 8 bits and RGB.
    """
    data = load(path)
    if not data.startswith(b"\x89PNG") or data[24:26] != _RGB8:
        raise SegfolioError(
            f"{path} is no RGB PNG of 8 bits, expected segment ids as R + 256 G + 65536 B; grey and palette PNGs "
            "hold other ids, export it again"
        )
    return int.from_bytes(data[20:24]), int.from_bytes(data[16:20])


def read_panoptic(path: Path) -> Ids:
    """Decode a panoptic PNG to its segment ids, `[H, W]` int32 of 0 to `MAX_ID`.

    Raises:
        SegfolioError: as `panoptic_size`, or a file that cannot be decoded.
    """
    panoptic_size(path)
    rgba = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2RGBA)
    return rgba.view("<i4")[..., 0] & MAX_ID


def write_panoptic(path: Path, ids: npt.NDArray[np.integer]) -> None:
    """Write segment ids `[H, W]`, 0 to `MAX_ID`, as a panoptic PNG."""
    if ids.size and not 0 <= ids.min() <= ids.max() <= MAX_ID:
        raise ValueError(f"segment ids lie between 0 and {MAX_ID}, not {ids.min()} to {ids.max()}")
    rgba = np.ascontiguousarray(ids, "<i4")[..., None].view(np.uint8)
    write_image(path, np.ascontiguousarray(rgba[..., :3]))


def runs(*maps: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First places and lengths of the runs, in row order, in which all of `maps` keep their values.

    Runs are few where pixels are many, so that what is counted over runs costs next to nothing.
    """
    flat = [ids.reshape(-1) for ids in maps]
    changes = functools.reduce(np.logical_or, (ids[1:] != ids[:-1] for ids in flat))
    starts = np.append(0, np.flatnonzero(changes) + 1)[: flat[0].size]
    return starts, np.diff(starts, append=flat[0].size)


def id_places(ids: Ids, known: npt.NDArray[np.integer], source: object) -> Ids:
    """Segment ids as in the PNG to places in `known` + 1, 0 where there is none.

    Args:
        ids: `[H, W]`.
        known: `[N]`, distinct ids of the JSON, none of them 0.
        source: the PNG, for the error.

    Raises:
        SegfolioError: an id with pixels that is not in `known`, or one in `known` without pixels.
    """
    starts, lengths = runs(ids)
    values = ids.reshape(-1)[starts]
    listed = np.append(0, known)
    order = np.argsort(listed)
    places = order[np.searchsorted(listed, values, sorter=order).clip(max=len(known))]
    for fault, strays in (
        ("which its JSON does not list", values[listed[places] != values]),
        ("of its JSON without a pixel", np.setdiff1d(known, values)),
    ):
        if strays.size:
            found = ", ".join(map(str, np.unique(strays)[:5]))
            raise SegfolioError(
                f"{source} has segment id {found} {fault}; PNG and JSON must be of one annotation, copy both again"
            )
    return np.repeat(places.astype(np.int32), lengths).reshape(ids.shape)


def panoptic_annotation(segments: Segments, labels: LabelSpace, image_id: int | str, file_name: str) -> dict[str, Any]:
    """What the JSON says of one image whose PNG is `segments.id_map`; segments without a pixel are left out.

    Args:
        image_id: of the image in its annotation file.
        file_name: of the PNG.
    """
    rles = rle.from_id_map(segments.id_map.cpu().numpy(), len(segments))
    columns = (segments.labels.tolist(), rle.areas(rles).tolist(), segments.crowd.tolist(), rle.boxes(rles).tolist())
    infos = [
        {
            "id": place,
            "category_id": labels.ids[label],
            "area": area,
            "iscrowd": int(crowd),
            "bbox": [int(side) for side in box],
        }
        for place, (label, area, crowd, box) in enumerate(zip(*columns, strict=True), 1)
        if area
    ]
    return {"image_id": image_id, "file_name": file_name, "segments_info": infos}


def panoptic_json(
    annotations: Iterable[dict[str, Any]], labels: LabelSpace, images: Iterable[dict[str, Any]] = ()
) -> dict[str, Any]:
    """A panoptic JSON, as COCO's tools and server take it.

    Args:
        annotations: of `panoptic_annotation`.
        images: `id`, `file_name`, `height` and `width` of each; a truth needs them, predictions do not.
    """
    categories = [
        {"id": number, "name": name, "isthing": int(thing), "color": list(color)}
        for number, name, thing, color in zip(labels.ids, labels.names, labels.is_thing, labels.palette, strict=True)
    ]
    return {"images": list(images), "annotations": list(annotations), "categories": categories}


def label_space(categories: Any, source: object) -> LabelSpace:
    """The classes of a panoptic JSON's `categories`, in their order; `color` may be missing.

    Args:
        source: the file, for the error.

    Raises:
        SegfolioError: categories that are none, or that no label space can hold.
    """
    if not isinstance(categories, list) or not categories or not all(map(_is_category, categories)):
        raise SegfolioError(
            f"{source}: categories are no list of objects, each with an integer id, a name, isthing of 0 or 1 and, "
            "if at all, color of three integers"
        )
    ids = tuple(c["id"] for c in categories)
    colored = all("color" in c for c in categories)
    try:
        return LabelSpace(
            names=tuple(c["name"] for c in categories),
            ids=ids,
            void_ids=() if 0 in ids else (0,),
            things=tuple(c["name"] for c in categories if c["isthing"]),
            palette=tuple(tuple(c["color"]) for c in categories) if colored else (),
            ignore_index=max(255, len(ids)),
        )
    except SegfolioError as error:
        raise SegfolioError(f"{source}: {error}") from None


def _is_category(c: Any) -> bool:
    return (
        isinstance(c, dict)
        and type(c.get("id")) is int
        and isinstance(c.get("name"), str)
        and c.get("isthing") in (0, 1)
        and ("color" not in c or (isinstance(c["color"], list) and all(type(v) is int for v in c["color"])))
    )
