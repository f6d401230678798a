"""Label Studio: the regions of an export, and predictions for annotators to start from.

A brush region is the RGBA image of its mask, row by row, as a list of bytes: a bit stream of 32 bits number of
values, 5 bits word size - 1, four times 4 bits length size - 1, then blocks of 1 bit (one value repeated, or
all values), 2 bits which of the length sizes, length - 1, value or values (thi.ng/rle-pack; label-studio-converter,
`brush.py`). The mask is where alpha is above 0, as it is in the PNG of a bitmask region. Polygons and ellipses are
the masks that they enclose, a rectangle is a box without a mask.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import cv2
import numpy as np
import numpy.typing as npt
import torch

from segfolio.data.checks.problems import Problem, raise_problems
from segfolio.data.formats import polygons, rle
from segfolio.data.formats.coco import header_size, read_json
from segfolio.data.formats.rle import RLE
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction, Size
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

_LENGTH_SIZES = (3, 4, 8, 16)


def encode(mask: npt.NDArray[np.bool_]) -> list[int]:
    """A mask `[H, W]` to the bytes of a brush region."""
    flat = mask.reshape(-1)
    starts = np.flatnonzero(np.append(True, flat[1:] != flat[:-1])) if flat.size else np.zeros(0, int)
    bits = [f"{4 * flat.size:032b}{7:05b}", *(f"{size - 1:04b}" for size in _LENGTH_SIZES)]
    for start, pixels in zip(starts, np.diff(starts, append=flat.size).tolist(), strict=True):
        value = f"{255 * int(flat[start]):08b}"
        whole, rest = divmod(4 * pixels, 2**16)
        bits += [f"111{2**16 - 1:016b}{value}"] * whole
        if rest:
            which = next(i for i, size in enumerate(_LENGTH_SIZES) if rest <= 2**size)
            bits.append(f"1{which:02b}{rest - 1:0{_LENGTH_SIZES[which]}b}{value}")
    return np.packbits(np.frombuffer("".join(bits).encode(), np.uint8) & 1).tolist()


def decode(data: Sequence[int], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The bytes of a brush region to its mask `[H, W]`.

    Raises:
        SegfolioError: bytes that are no brush, end too early, or make up an image of another size.
    """
    values = decode_values(data, 4 * size[0] * size[1])
    return values.reshape(*size, 4)[..., 3] > 0


def decode_values(data: Sequence[int], count: int) -> npt.NDArray[np.uint32]:
    """The values that a bit stream packs; there must be `count` of them."""
    if not isinstance(data, list) or not set(map(type, data)) <= {int} or not all(0 <= x <= 255 for x in data):
        raise SegfolioError("the brush is no list of bytes")
    stream, place, end = bytes(data) + bytes(8), 0, 8 * len(data)

    def take(bits: int) -> int:
        nonlocal place
        first, place = place, place + bits
        if place > end:
            raise SegfolioError(f"the brush is cut short after {len(data)} bytes")
        window = int.from_bytes(stream[first // 8 : first // 8 + 8])
        return window >> (64 - first % 8 - bits) & ((1 << bits) - 1)

    if (total := take(32)) != count:
        raise SegfolioError(f"the brush has {total} values, but an RGBA image of this size has {count}")
    width, sizes = take(5) + 1, [take(4) + 1 for _ in range(4)]
    values, done = np.zeros(count, np.uint32), 0
    weights = (1 << np.arange(width, dtype=np.uint64))[::-1]
    while done < count:
        repeated = take(1)
        length = take(sizes[take(2)]) + 1
        if done + length > count:
            raise SegfolioError(f"the brush has more than the {count} values that it announces")
        if repeated:
            values[done : done + length] = take(width)
        else:
            first = place
            if (place := place + length * width) > end:
                raise SegfolioError(f"the brush is cut short after {len(data)} bytes")
            packed = np.frombuffer(stream[first // 8 : place // 8 + 1], np.uint8)
            bits = np.unpackbits(packed)[first % 8 :][: length * width]
            values[done : done + length] = bits.reshape(length, width) @ weights
        done += length
    return values


def load(path: Path, labels: LabelSpace, key: str = "image", images: Path | None = None) -> list[tuple[str, Segments]]:
    """The images of a JSON export and their regions; `coco.annotations_json` takes them as they are.

    Of each task the first annotation that was not cancelled is read; tasks without one are left out. Images have
    their path below the deepest folder that holds those of all tasks. Points and lines have no area: they are left
    out, counted and named. What is said of an image or of a region (choices, texts, ratings, relations) is not read.

    Args:
        labels: its names are those of the labels.
        key: under which a task's data has the image.
        images: the folder of the images, that of the export if not given: where nothing in a task tells the size of
            its image, as nothing is in it, the image does.

    Raises:
        SegfolioError: no export, a label that is unknown, a region of an unknown kind or one that is damaged, two
            tasks of one image, an image of unknown size: which task and region.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise SegfolioError(f"{path} holds no list of tasks; export the project as JSON (not JSON-MIN)")
    for task in tasks:
        if not isinstance(task.get("data"), dict):
            raise SegfolioError(f"{path}, task {task.get('id')} has no data; export the project as JSON (not JSON-MIN)")
        if not isinstance(task["data"].get(key), str):
            raise SegfolioError(f"{path}, task {task.get('id')} has no data.{key}; say under which key its image is")
        if task["data"][key].startswith("data:"):
            raise SegfolioError(f"{path}, task {task.get('id')} holds its image itself, which then has no name; upload it")
    left_out: list[Problem] = []
    found: dict[str, tuple[str, Segments]] = {}
    paths = [_path(task["data"][key]) for task in tasks]
    for task, whole, name in zip(tasks, paths, _below(paths), strict=True):
        where = f"{path}, task {task.get('id')}"
        for annotation in _dicts(task.get("annotations")):
            if not annotation.get("was_cancelled"):
                if name in found:
                    raise SegfolioError(f"{where} is of the image {name}, as {found[name][0]} is; leave one of each")
                files = [(images or path.parent) / file for file in (name, whole)]
                size = _size(task, files, where)
                found[name] = where, _segments(annotation, labels, size, where, left_out)
                break
    raise_problems(left_out, of=str(path))
    return [(name, segments) for name, (_, segments) in found.items()]


def prediction_task(
    prediction: Prediction, labels: LabelSpace, url: str, model: str, from_name: str = "tag", to_name: str = "image"
) -> dict[str, Any]:
    """Detected objects as a task with pre-annotations, to be imported as JSON; it tells the size of the image, too.

    Args:
        url: of the image, as Label Studio sees it; `url_of` makes one of a path.
        model: `model_version`, shown beside the predictions.
        from_name, to_name: names of the `BrushLabels` and of the `Image` in the labelling interface.
    """
    found = prediction.instances
    if found is None:
        raise SegfolioError(f"{prediction.image_id} has no instances; brush regions are made of instances")
    height, width = prediction.size
    regions = [
        {
            "id": f"{prediction.image_id}-{place}",
            "type": "brushlabels",
            "from_name": from_name,
            "to_name": to_name,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": score,
            "value": {"format": "rle", "rle": encode(mask), "brushlabels": [labels.names[label]]},
        }
        for place, (mask, label, score) in enumerate(
            zip(rle.decode(found.rles, prediction.size), found.labels.tolist(), found.scores.tolist(), strict=True)
        )
    ]
    score = float(found.scores.mean()) if len(found.scores) else 0.0
    return {
        "data": {"image": url, "width": width, "height": height},
        "predictions": [{"model_version": model, "score": score, "result": regions}],
    }


def url_of(path: str) -> str:
    """A relative path as an address, from which `load` makes the path again."""
    return quote(path)


_AREAS = {  # what the value of each kind of region holds
    "brush": {"rle"},
    "bitmask": {"imageDataURL"},
    "polygon": {"points"},
    "ellipse": {"x", "y", "radiusX", "radiusY"},
    "rectangle": {"x", "y", "width", "height"},
}
_NO_AREA = ("keypoint", "vector")
_SAID = {"choices", "textarea", "rating", "taxonomy", "number", "datetime", "pairwise", "ranker", "relation"}


def _segments(
    annotation: dict[str, Any], labels: LabelSpace, size: Size, where: str, left_out: list[Problem]
) -> Segments:
    rles: list[RLE] = []
    classes, boxes = [], []
    for region in _regions(annotation):
        value, kind = _value(region), str(region.get("type"))
        area = next((area for area, keys in _AREAS.items() if keys <= value.keys()), None)
        if area is None and kind.removesuffix("labels") in _NO_AREA:
            left_out.append(Problem("region", f"without an area left out ({kind})", where, fatal=False))
            continue
        try:
            if area is None:
                known = ", ".join([*_AREAS, *_NO_AREA])
                raise SegfolioError(f"a region of type {kind!r} that is none of {known}, or lacks what these have")
            name, (mask, box) = _label(value, labels), _read(area, value, _size_of(region, size))
        except SegfolioError as error:
            raise SegfolioError(f"{where}, region {region.get('id')}: {error}") from None
        rles.append(mask)
        classes.append(labels.names.index(name))
        boxes.append(box)
    alone = torch.tensor([box is not None for box in boxes], dtype=torch.bool)
    boxes = [box or around for box, around in zip(boxes, rle.boxes(rles).tolist(), strict=True)]
    return Segments(
        rles,
        torch.tensor(classes, dtype=torch.int64),
        torch.zeros(len(rles), dtype=torch.bool),
        size,
        boxes=torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4) if alone.any() else None,
        box_only=alone if alone.any() else None,
    )


def _regions(annotation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The results that are regions, each once: in interfaces with `Labels` beside `Brush`, the one that has a label."""
    results = [result for result in _dicts(annotation.get("result")) if str(result.get("type")) not in _SAID]
    labelled = [result for result in results if any(key.endswith("labels") for key in _value(result))]
    for result in results:
        again = (_value(other).items() for other in labelled if other.get("id") == result.get("id"))
        if result in labelled or not any(all(item in items for item in _value(result).items()) for items in again):
            yield result


def _value(region: dict[str, Any]) -> dict[str, Any]:
    return value if isinstance(value := region.get("value"), dict) else {}


def _size_of(region: dict[str, Any], size: Size) -> Size:
    """That of the image, which every region tells again."""
    if turned := region.get("image_rotation"):
        raise SegfolioError(f"its image was turned by {turned} degrees in Label Studio; turn the file instead")
    if (here := _stated([region])) not in (None, size):
        raise SegfolioError(f"the image is {_shown(here)} here and {_shown(size)} in another place")
    return size


def _label(value: dict[str, Any], labels: LabelSpace) -> str:
    kind, names = next(((k, v) for k, v in value.items() if k.endswith("labels")), ("the label", None))
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise SegfolioError(f"{kind} is {names!r}, expected one label")
    if names[0] not in labels.names:
        raise SegfolioError(f"the label is {names[0]!r}, expected one of {', '.join(labels.names)}")
    return names[0]


def _read(area: str, value: dict[str, Any], size: Size) -> tuple[RLE, list[float] | None]:
    """The mask of a region, and the box of one that is a box alone."""
    if area == "brush":
        return rle.encode(decode(value["rle"], size)[None])[0], None
    if area == "bitmask":
        return rle.encode(_bitmask(value["imageDataURL"], size)[None])[0], None
    scale = np.array([size[1] / 100, size[0] / 100])
    if area == "rectangle":  # it is turned about its upper left corner
        x, y, width, height, degrees = _numbers(value, "x", "y", "width", "height", "rotation")
        outline = polygons.corners(x, y, width, height) * scale
        box = polygons.enclosing(polygons.turned(outline, outline[0], degrees))
        return rle.from_box(box, size), box
    if area == "ellipse":
        x, y, across, along, degrees = _numbers(value, "x", "y", "radiusX", "radiusY", "rotation")
        points = polygons.ellipse(np.array([x, y]) * scale, np.array([across, along]) * scale, degrees)
    else:
        try:
            points = np.array(value["points"], np.float64).reshape(-1, 2) * scale
        except (TypeError, ValueError, OverflowError):
            raise SegfolioError("points are no list of [x, y] in percent") from None
    return rle.from_segmentation([points.reshape(-1).tolist()], size), None


def _bitmask(url: Any, size: Size) -> npt.NDArray[np.bool_]:
    """The mask that a PNG in a `data:` address draws: where it is not transparent; without alpha, where not black."""
    kind, _, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    try:
        if not kind.endswith(";base64"):
            raise ValueError
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data, validate=True), np.uint8), cv2.IMREAD_UNCHANGED)
    except (ValueError, binascii.Error, cv2.error):
        pixels = None
    if pixels is None:
        raise SegfolioError(f"imageDataURL is {str(url)[:40]!r}, expected a PNG as data:image/png;base64,...")
    if pixels.shape[:2] != size:
        raise SegfolioError(f"the bitmask is {_shown(pixels.shape[:2])} but its image {_shown(size)}")
    channels = pixels.reshape(*size, -1)
    return channels[..., 3] > 0 if channels.shape[2] == 4 else channels.any(2)


def _numbers(value: dict[str, Any], *keys: str) -> list[float]:
    numbers = [value.get(key, 0) for key in keys]
    if wrong := [k for k, n in zip(keys, numbers, strict=True) if type(n) not in (int, float) or not abs(n) < 1e6]:
        raise SegfolioError(f"{wrong[0]} is {value[wrong[0]]!r}, expected a number")
    return numbers


def _size(task: dict[str, Any], files: Sequence[Path], where: str) -> Size:
    """That of a task's image: as a result or the task's data tells it, or as its file does."""
    drawn = [*_dicts(task.get("annotations")), *_dicts(task.get("predictions"))]
    stated = _stated([result for annotation in drawn for result in _dicts(annotation.get("result"))])
    data = {f"original_{side}": task["data"].get(side) for side in ("width", "height")}
    size = stated or _stated([data]) or next(filter(None, map(header_size, files)), None)
    if size is None:
        raise SegfolioError(
            f"{where} does not tell the size of its image, and {files[0]} is none; say in which folder the images are "
            "(images)"
        )
    return size


def _stated(results: list[dict[str, Any]]) -> Size | None:
    for result in results:
        height, width = (result.get(f"original_{side}") for side in ("height", "width"))
        if type(height) is type(width) is int and min(height, width) > 0:
            return height, width
    return None


def _shown(size: Sequence[int] | None) -> str:
    return "of unknown size" if size is None else f"{size[1]}x{size[0]}"


def _dicts(values: Any) -> Iterator[dict[str, Any]]:
    return (value for value in (values if isinstance(values, list) else []) if isinstance(value, dict))


def _path(url: str) -> PurePosixPath:
    """Of `/data/local-files/?d=folder/name.png`, of any address: `folder/name.png`; of Label Studio's own
    `/data/upload/1/name.png`: `name.png`.
    """
    parts = urlsplit(url)
    local = parse_qs(parts.query).get("d")
    path = (local[0] if local else unquote(parts.path)).replace("\\", "/")
    path = re.sub(r"^/?data/upload/\d+/", "", path)
    return PurePosixPath(*(part for part in path.split("/") if part not in ("", ".", "..")))


def _below(paths: Sequence[PurePosixPath]) -> list[str]:
    """The paths below the deepest folder that holds all of them."""
    levels = zip(*(path.parent.parts for path in paths), strict=False)
    common = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, levels))
    return ["/".join(path.parts[common:]) for path in paths]
