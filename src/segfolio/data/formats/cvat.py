"""CVAT's annotation files, for images and for video, as the COCO files that they amount to.

The format is that of docs.cvat.ai, "XML annotation format", version 1.1.

Polygons, masks and ellipses are masks, boxes are boxes without a mask. Polygons and masks of one label and one group
are one object, as in CVAT's own export to COCO. A track is an object in each frame in which it is not outside; the
frames of a video are the images `frame_000000`, `frame_000001`, ... that CVAT exports. Points, polylines, cuboids and
skeletons have no area: they are left out, counted and named.
"""

import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segfolio.data.checks.problems import Problem, raise_problems
from segfolio.data.formats import polygons, rle
from segfolio.data.sample import Size
from segfolio.errors import SegfolioError

_NO_AREA = {"points", "polyline", "cuboid", "skeleton"}
_NO_SHAPE = {"attribute", "tag"}  # they say something of an image or a track


class _Shape(NamedTuple):
    """An object in one image, or a part of it: polygons or run lengths, or a box alone."""

    label: str
    group: str
    track: int | None
    crowd: bool
    segmentation: Any
    box: list[float] | None


class _Image(NamedTuple):
    """As `images` of a COCO file has it, and what is in it."""

    id: int
    file_name: str
    height: int
    width: int
    shapes: list[_Shape]


def is_xml(data: bytes) -> bool:
    """Whether a file begins as XML does."""
    return data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def to_coco(data: bytes, source: Path) -> dict[str, Any]:
    """Images, annotations and categories as a COCO file holds them; ids of categories count from 1.

    Categories are the labels of the task, in its order.

    Raises:
        SegfolioError: no XML or none of CVAT's, a shape of an unknown kind or one that is damaged: which image.
    """
    try:
        root = ET.fromstring(data)
    except ET.ParseError as error:
        raise SegfolioError(f"{source} is no XML ({error}); export it again") from None
    if root.tag != "annotations":
        raise SegfolioError(f"{source} is <{root.tag}>, expected <annotations>; export as CVAT for images or for video")
    left_out: list[Problem] = []
    images = (_frames if root.find("image") is None else _images)(root, source, left_out)
    raise_problems(left_out, of=str(source))
    names = _labels(root) or sorted({shape.label for image in images for shape in image.shapes})
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
    }
    for image in images:
        content["images"].append({key: getattr(image, key) for key in ("id", "file_name", "height", "width")})
        for shape in _merged(image):
            if shape.label not in names:
                known = ", ".join(names)
                raise SegfolioError(f"{source}: the label {shape.label!r} is not among those of the task, {known}")
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image.id,
                    "category_id": 1 + names.index(shape.label),
                    "iscrowd": int(shape.crowd),
                    "segmentation": shape.segmentation,
                    **({} if shape.box is None else {"bbox": shape.box, "area": shape.box[2] * shape.box[3]}),
                    **({} if shape.track is None else {"track_id": shape.track}),
                }
            )
    return content


def _images(root: ET.Element, source: Path, left_out: list[Problem]) -> list[_Image]:
    images = []
    for image in root.iterfind("image"):
        name, where = image.get("name", ""), f"{source}, image {image.get('name')}"
        number, height, width = (_whole(image, key, where) for key in ("id", "height", "width"))
        read = (_shape(shape, shape, (height, width), where, left_out) for shape in image)
        images.append(_Image(number, name, height, width, [shape for shape in read if shape]))
    return images


def _frames(root: ET.Element, source: Path, left_out: list[Problem]) -> list[_Image]:
    height, width = (_number_of(root, f"original_size/{side}") for side in ("height", "width"))
    if not (height and width):
        raise SegfolioError(
            f"{source} lists no images, and its meta has no original_size as that of a video has; export the task as "
            "CVAT for images"
        )
    tracks = root.findall("track")
    if len({track.get("task_id") for track in tracks}) > 1:
        raise SegfolioError(f"{source} has tracks of several tasks, whose frames have the same numbers; export each")
    start, stop = _number_of(root, "start_frame") or 0, _number_of(root, "stop_frame")
    step = re.fullmatch(r"step=(\d+)", (root.findtext("meta//frame_filter") or "").strip())
    end = start + (_number_of(root, "size") or 0) if stop is None else stop + 1
    shapes: defaultdict[int, list[_Shape]] = defaultdict(list)
    for place, track in enumerate(tracks):
        for element in track:
            if element.tag in _NO_SHAPE or element.get("outside") == "1":
                continue
            where = f"{source}, track {track.get('id', place)}"
            frame = _whole(element, "frame", where)
            if shape := _shape(element, track, (height, width), f"{where}, frame {frame}", left_out):
                shapes[frame].append(shape._replace(track=place))
    numbers = sorted({*range(start, end, int(step[1]) if step else 1), *shapes})
    return [_Image(number, f"frame_{number:06d}", height, width, shapes[number]) for number in numbers]


def _shape(element: ET.Element, owner: ET.Element, size: Size, where: str, left_out: list[Problem]) -> _Shape | None:
    """What an element draws; label and group are its `owner`'s, which is itself or its track."""
    kind = element.tag
    if kind in _NO_SHAPE:
        return None
    if kind in _NO_AREA:
        left_out.append(Problem("shape", f"without an area left out ({kind})", where, fatal=False))
        return None
    if kind not in _READ:
        kinds = ", ".join(sorted({*_READ, *_NO_AREA}))
        raise SegfolioError(f"{where} has a shape of the unknown kind {kind!r}, expected one of {kinds}")
    if not (label := owner.get("label")):
        raise SegfolioError(f"{where} has a {kind} without a label; give it one")
    try:
        segmentation, box = _READ[kind](element, size)
    except (KeyError, ValueError) as error:
        said = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise SegfolioError(f"{where}: a {kind} of {label} {said}; correct or export it again") from None
    crowd = any(
        attribute.get("name") == "is_crowd" and (attribute.text or "").strip().lower() in ("1", "true")
        for attribute in element.iterfind("attribute")
    )
    return _Shape(label, owner.get("group_id", "0"), None, crowd, segmentation, box)


def _merged(image: _Image) -> list[_Shape]:
    """The shapes of an image, those with masks of one label and one group as one."""
    found: dict[Any, _Shape] = {}
    for place, shape in enumerate(image.shapes):
        key = place if shape.group == "0" or shape.box else (shape.label, shape.group, shape.crowd)
        if (other := found.get(key)) is None:
            found[key] = shape
        elif isinstance(other.segmentation, list) and isinstance(shape.segmentation, list):
            found[key] = other._replace(segmentation=other.segmentation + shape.segmentation)
        else:
            size = image.height, image.width
            parts = [rle.from_segmentation(part.segmentation, size) for part in (other, shape)]
            found[key] = other._replace(segmentation=_run_lengths(np.logical_or(*rle.decode(parts, size))))
    return list(found.values())


def _polygon(shape: ET.Element, size: Size) -> tuple[Any, None]:
    ring = [float(x) for point in shape.attrib["points"].split(";") for x in point.split(",")]
    if len(ring) < 6 or len(ring) % 2 or not np.isfinite(ring).all():
        raise ValueError(f"{len(ring)} coordinates, expected pairs of 3 points or more")
    return [ring], None


def _ellipse(shape: ET.Element, size: Size) -> tuple[Any, None]:
    x, y, across, along = (float(shape.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
    outline = polygons.ellipse(np.array([x, y]), np.array([across, along]), float(shape.get("rotation", 0)))
    return [outline.reshape(-1).tolist()], None


def _box(shape: ET.Element, size: Size) -> tuple[Any, list[float]]:
    left, top, right, bottom = (float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
    outline = polygons.corners(left, top, right - left, bottom - top)
    return [], polygons.enclosing(polygons.turned(outline, outline.mean(0), float(shape.get("rotation", 0))))


def _mask(shape: ET.Element, size: Size) -> tuple[Any, None]:
    """Runs, outside and inside in turn, of the rows of a box."""
    left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
    runs = [int(run) for run in shape.attrib["rle"].split(",")]
    if min(runs) < 0 or sum(runs) != width * height:
        raise ValueError(f"its runs sum to {sum(runs)}, but {width}x{height} are {width * height} pixels")
    if min(left, top) < 0 or left + width > size[1] or top + height > size[0]:
        raise ValueError(f"it leaves the image of {size[1]}x{size[0]} pixels")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    mask = np.zeros(size, np.bool_)
    mask[top : top + height, left : left + width] = inside
    return _run_lengths(mask), None


_READ: dict[str, Callable[[ET.Element, Size], tuple[Any, list[float] | None]]] = {
    "polygon": _polygon,
    "mask": _mask,
    "ellipse": _ellipse,
    "box": _box,
}


def _run_lengths(mask: rle.Bools) -> dict[str, Any]:
    return rle.to_json(rle.encode(mask[None])[0])


def _labels(root: ET.Element) -> list[str]:
    """Those of the task or the project, without the points of skeletons."""
    found = (label for label in root.iterfind("meta//label") if not (label.findtext("parent") or "").strip())
    return list(dict.fromkeys(name.strip() for label in found if (name := label.findtext("name"))))


def _number_of(root: ET.Element, path: str) -> int | None:
    text = (root.findtext(f"meta//{path}") or "").strip()
    return int(text) if text.isdecimal() else None


def _whole(element: ET.Element, key: str, where: str) -> int:
    value = element.get(key, "")
    if not value.isdecimal():
        raise SegfolioError(f"{where}: {key} is {value!r}, expected a whole number")
    return int(value)
