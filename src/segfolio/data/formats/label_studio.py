"""Label Studio: brush and polygon regions of an export, and predictions for annotators to start from.

A brush region is the RGBA image of its mask, row by row, as a list of bytes: a bit stream of 32 bits number of
values, 5 bits word size - 1, four times 4 bits length size - 1, then blocks of 1 bit (one value repeated, or
all values), 2 bits which of the length sizes, length - 1, value or values (thi.ng/rle-pack; label-studio-converter,
`brush.py`). The mask is where alpha is above 0.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt
import torch

from segfolio.data.formats import rle
from segfolio.data.formats.coco import read_json
from segfolio.data.formats.rle import RLE
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Prediction
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


def load(path: Path, labels: LabelSpace, key: str = "image") -> list[tuple[str, Segments]]:
    """The images of a JSON export and their regions; `coco.annotations_json` takes them as they are.

    Of each task the first annotation that was not cancelled is read; tasks without one are left out.

    Args:
        labels: its names are those of the labels.
        key: under which a task's data has the image.

    Raises:
        SegfolioError: no export, a label that is unknown, a region of another kind than brush and polygon,
            or one that is damaged: which task and region.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise SegfolioError(f"{path} holds no list of tasks; export the project as JSON (not JSON-MIN)")
    images = []
    for task in tasks:
        where = f"{path}, task {task.get('id')}"
        url = task["data"].get(key) if isinstance(task.get("data"), dict) else None
        if not isinstance(url, str):
            raise SegfolioError(f"{where} has no data.{key}; say under which key its image is")
        for annotation in _dicts(task.get("annotations")):
            if not annotation.get("was_cancelled"):
                images.append((_file_name(url), _segments(annotation, labels, where)))
                break
    return images


def prediction_task(
    prediction: Prediction, labels: LabelSpace, url: str, model: str, from_name: str = "tag", to_name: str = "image"
) -> dict[str, Any]:
    """Detected objects as a task with pre-annotations, to be imported as JSON.

    Args:
        url: of the image, as Label Studio sees it.
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
    return {"data": {"image": url}, "predictions": [{"model_version": model, "score": score, "result": regions}]}


def _segments(annotation: dict[str, Any], labels: LabelSpace, where: str) -> Segments:
    rles: list[RLE] = []
    classes, size = [], (0, 0)
    for region in _dicts(annotation.get("result")):
        value = region.get("value")
        if not isinstance(value, dict) or not value.keys() & {"rle", "points", "x"}:
            continue  # a choice, a text, a relation
        try:
            mask, name = _region(region, value)
            if name not in labels.names:
                raise SegfolioError(f"the label is {name!r}, expected one of {', '.join(labels.names)}")
            if rles and mask["size"] != rles[0]["size"]:
                raise SegfolioError(f"the image is {mask['size']} here and {rles[0]['size']} in another region")
        except SegfolioError as error:
            raise SegfolioError(f"{where}, region {region.get('id')}: {error}") from None
        rles.append(mask)
        classes.append(labels.names.index(name))
        size = (mask["size"][0], mask["size"][1])
    return Segments(rles, torch.tensor(classes, dtype=torch.int64), torch.zeros(len(rles), dtype=torch.bool), size)


def _region(region: dict[str, Any], value: dict[str, Any]) -> tuple[RLE, str]:
    kind = next((kind for kind in ("brushlabels", "polygonlabels") if kind in value), None)
    if kind is None:
        raise SegfolioError(f"a region of type {region.get('type')!r}, expected brushlabels or polygonlabels")
    names = value[kind]
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise SegfolioError(f"{kind} is {names!r}, expected one label")
    height, width = region.get("original_height"), region.get("original_width")
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        raise SegfolioError(f"original_width and original_height are {width!r} and {height!r}, expected pixels")
    if kind == "brushlabels":
        return rle.encode(decode(value.get("rle", []), (height, width))[None])[0], names[0]
    try:
        points = np.array(value.get("points"), np.float64).reshape(-1, 2) * (width / 100, height / 100)
    except (TypeError, ValueError, OverflowError):
        raise SegfolioError("points are no list of [x, y] in percent") from None
    return rle.from_segmentation([points.reshape(-1).tolist()], (height, width)), names[0]


def _dicts(values: Any) -> Iterator[dict[str, Any]]:
    return (value for value in (values if isinstance(values, list) else []) if isinstance(value, dict))


def _file_name(url: str) -> str:
    """Of `/data/upload/1/name.png`, of `/data/local-files/?d=folder/name.png`, of any address: `name.png`."""
    parts = urlsplit(url)
    local = parse_qs(parts.query).get("d")
    return PurePosixPath((local[0] if local else unquote(parts.path)).replace("\\", "/")).name
