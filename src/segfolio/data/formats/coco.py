"""COCO's annotation files: read and written (cocodataset.org/#format-data).

A file is gone through once; after that it is known where the annotations of each image lie, which are parsed when
the image is read.
"""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segfolio.data.checks.remembered import remembered, stamps
from segfolio.data.formats import cvat, polygons, rle
from segfolio.data.formats.image_header import read_header
from segfolio.data.formats.json_outline import Entries, Irregular, outline
from segfolio.data.formats.rle import RLE
from segfolio.data.image_ids import id_of
from segfolio.data.labels import FREQUENCIES, LabelSpace
from segfolio.data.sample import Federated, Prediction, Size
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.files import making_many

_SEARCHED = ("neg_category_ids", "not_exhaustive_category_ids")
_FREQUENCIES = dict(zip("rcf", FREQUENCIES, strict=True))


class Image(NamedTuple):
    """What a file lists of an image; all but id and name may be lacking.

    Attributes:
        neg_category_ids: in LVIS's files, categories that the image is known to lack.
        not_exhaustive_category_ids: and those of which it may have more objects than are annotated.
    """

    id: int
    file_name: str
    size: Size | None
    neg_category_ids: list[int] | None = None
    not_exhaustive_category_ids: list[int] | None = None

    @property
    def stem(self) -> str:
        """The name of the image in this house."""
        return id_of(self.file_name)

    @property
    def path(self) -> str:
        """The file name as every system reads it: some exports are written with Windows' separators."""
        return self.file_name.replace("\\", "/")


class Annotation(NamedTuple):
    """One object. `segmentation`, `bbox` and `area` are as in the file, None where it has none."""

    id: int
    category_id: int
    crowd: bool
    segmentation: Any
    bbox: Any
    area: Any

    @property
    def box_only(self) -> bool:
        """Whether there is a box and no mask, as exports for detection have it."""
        return not has_mask(self.segmentation) and self.bbox is not None


class CocoFile(NamedTuple):
    """An annotation file.

    Attributes:
        categories: names under their ids, in the order of ids.
        annotations: of each image's id; none where the file has no such list, as COCO's own of test images.
        box_only: how many annotations have a box and no mask, and the id of the first.
        frequencies: of the categories of which the file gives one, by id and in their order, see `LabelSpace`.
    """

    path: Path
    images: list[Image]
    categories: dict[int, str]
    annotations: Mapping[int, list[Annotation]]
    box_only: tuple[int, int | None] = (0, None)
    frequencies: Mapping[int, str] = {}

    @property
    def not_federated(self) -> str | None:
        """What an LVIS file has and this one lacks, in words: the first such thing; None where it is federated."""
        for number in self.categories:
            if number not in self.frequencies:
                return f"category {number} has no frequency of {', '.join(_FREQUENCIES)}"
        for image in self.images:
            for key in _SEARCHED:
                if getattr(image, key) is None:
                    return f"image {image.id} has no {key}"
        return None


def load(path: Path) -> CocoFile:
    """Parse and index an annotation file; one of CVAT's (`formats.cvat`) as the COCO file that it amounts to.

    Raises:
        SegfolioError: a file that is missing or no JSON, that lacks a list or an entry's id or name, and
            categories that occur twice.
    """
    data = read_bytes(path)
    if cvat.is_xml(data):
        data = json.dumps(cvat.to_coco(data, path)).encode()
    try:
        sources = [path, Path(__file__), Path(cvat.__file__)]
        kept = remembered(["COCO file", stamps(sources)], lambda: _index(path, data))
    except Irregular:
        content = read_json(path)
        if not isinstance(content, dict):
            raise SegfolioError(
                f"{path} holds a {type(content).__name__}, expected a mapping of images, annotations and categories"
            ) from None
        data = json.dumps(content).encode()
        kept = _index(path, data)
    index = np.load(io.BytesIO(kept))
    with making_many():
        head = json.loads(index["head"].tobytes())
        images = [
            Image(number, name, size and (size[0], size[1]), *more) for number, name, size, *more in head["images"]
        ]
    entries = Entries(data, index["spans"], _annotation)
    return CocoFile(path, images, dict(head["categories"]), entries, tuple(head["box_only"]), dict(head["frequencies"]))


def _index(path: Path, data: bytes) -> bytes:
    """Images, categories and the places of annotations as `npz`."""
    box_only: list[int] = []

    def look(place: int, entry: Any) -> int:
        image, *_ = (_get(path, "annotations", place, entry, key, int) for key in ("image_id", "category_id", "id"))
        if _annotation(entry).box_only:
            box_only.append(entry["id"])
        return int(image)

    content, spans = outline(data, "annotations", look)
    content.setdefault("annotations", [])
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise SegfolioError(
                f"{path} lacks the list {key!r}; expected a COCO file of instances (found {list(content)})"
            )
    images = [
        Image(_get(path, "images", i, x, "id", int), _file_name(path, i, x), _size(x), *_searched(path, i, x))
        for i, x in enumerate(content["images"])
    ]
    names, frequencies = dict[int, str](), dict[int, str]()
    for i, x in enumerate(content["categories"]):
        category = _get(path, "categories", i, x, "id", int)
        if category in names:
            raise SegfolioError(f"{path}: the category id {category} occurs twice; give each category its own")
        names[category] = _get(path, "categories", i, x, "name", str)
        if (frequency := x.get("frequency")) in [*_FREQUENCIES]:
            frequencies[category] = _FREQUENCIES[frequency]
    alone = len(box_only), next(iter(box_only), None)
    kept = {"images": images, "categories": sorted(names.items()), "frequencies": sorted(frequencies.items())}
    head = json.dumps({**kept, "box_only": alone}).encode()
    rows = np.array(spans, np.int64).reshape(-1, 3)
    np.savez(
        stream := io.BytesIO(),
        head=np.frombuffer(head, np.uint8),
        spans=np.ascontiguousarray(rows[np.argsort(rows[:, 0], kind="stable")].T),
    )
    return stream.getvalue()


def _annotation(entry: dict[str, Any]) -> Annotation:
    crowd = entry.get("iscrowd") in (1, True)
    return Annotation(entry["id"], entry["category_id"], crowd, *map(entry.get, ("segmentation", "bbox", "area")))


def read_json(path: Path) -> Any:
    """The content of a JSON file, or a `SegfolioError` that says where it is none."""
    try:
        return json.loads(read_bytes(path))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise SegfolioError(f"{path} is no JSON: {error.msg} at {where}; copy or export it again") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of thousands of digits, lists in lists
        raise SegfolioError(f"{path} is no JSON ({type(error).__name__}); copy or export it again") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file, or a `SegfolioError` that says why it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SegfolioError(f"{path} cannot be read: {(error.strerror or 'unknown error').lower()}") from None


def segments(file: CocoFile, image: Image, size: Size, labels: LabelSpace) -> Segments:
    """The objects of one image, masks as run lengths; boxes and areas as annotated, where each object has them.

    Raises:
        SegfolioError: which annotation has a segmentation that is none, or a category that is none.
    """
    found = file.annotations.get(image.id, [])
    try:
        classes = _places(labels, (a.category_id for a in found))
    except KeyError as error:
        raise SegfolioError(f"{file.path}: image {image.id} has an object of the unknown category {error}") from None
    areas = _floats([a.area for a in found])
    return Segments(
        [mask(file, annotation, size) for annotation in found],
        torch.tensor(classes, dtype=torch.int64),
        torch.tensor([a.crowd for a in found], dtype=torch.bool),
        size,
        boxes=_floats([a.bbox for a in found], 4),
        areas=None if areas is None else areas[:, 0],
        box_only=torch.tensor([a.box_only for a in found]) if any(a.box_only for a in found) else None,
    )


def federated(file: CocoFile, image: Image, labels: LabelSpace) -> Federated | None:
    """What one image was searched for; None where the file does not say.

    Raises:
        SegfolioError: a category that is none.
    """
    absent, partial = image.neg_category_ids, image.not_exhaustive_category_ids
    if absent is None or partial is None:
        return None
    try:
        return Federated(*(tuple(_places(labels, ids)) for ids in (absent, partial)))
    except KeyError as error:
        where = " or ".join(_SEARCHED)
        raise SegfolioError(f"{file.path}: image {image.id} has the unknown category {error} in {where}") from None


def has_mask(segmentation: Any) -> bool:
    """Whether a file says more under `segmentation` than that there is none: no value, an empty list, empty lists."""
    return segmentation is not None and not (isinstance(segmentation, list) and all(x == [] for x in segmentation))


def box_of(value: Any) -> list[float] | None:
    """x, y, width, height, None of what is no box."""
    box = _floats([value], 4)
    return None if box is None or not box.isfinite().all() or (box[0, 2:] < 0).any() else box[0].tolist()


def mask(file: CocoFile, annotation: Annotation, size: Size) -> RLE:
    """An annotation's mask, its box where it has that alone, or a `SegfolioError` that names file and annotation."""
    try:
        if not annotation.box_only:
            return rle.from_segmentation(annotation.segmentation, size)
        if (box := box_of(annotation.bbox)) is None:
            raise SegfolioError(f"the box is {str(annotation.bbox)[:40]}, expected x, y, width, height in pixels")
        return rle.from_box(box, size)
    except SegfolioError as error:
        raise SegfolioError(f"{file.path}, annotation {annotation.id}: {error}") from None


def semantic(segments: Segments, labels: LabelSpace) -> npt.NDArray[np.integer]:
    """The map `[H, W]` of class indices that objects make: the smaller lies on top, crowds are ignored.

    Pixels without an object are the label space's background, ignored where it has none.
    """
    rles, crowd = segments.rles, segments.crowd.numpy()
    order = np.lexsort((-rle.areas(rles), ~crowd))  # crowds lie below all
    nothing = labels.names.index(labels.background) if labels.background else labels.ignore_index
    classes = np.where(crowd, labels.ignore_index, segments.labels.numpy())[order]
    places = rle.to_id_map([rles[i] for i in order], segments.size)
    table: npt.NDArray[np.integer] = np.append(nothing, classes).astype(labels.dtype)
    return table[places]


def header_size(path: Path) -> Size | None:
    """Height and width that an image's header tells, None of what is no image."""
    try:
        return read_header(path).size
    except (OSError, ValueError):
        return None


def results(prediction: Prediction, number: int | str, labels: LabelSpace) -> list[dict[str, Any]]:
    """The detected objects of one image in COCO's results format.

    Args:
        number: of the image in its annotation file.
    """
    found = prediction.instances
    if found is None:
        raise SegfolioError(f"{prediction.image_id} has no instances; COCO results are of instance segmentation")
    boxes = rle.boxes(found.rles) if found.boxes is None else found.boxes.numpy()
    columns = (found.rles, found.labels.tolist(), found.scores.tolist(), boxes.tolist())
    return [
        {
            "image_id": number,
            "category_id": labels.ids[label],
            "segmentation": rle.to_json(mask),
            "score": score,
            "bbox": box,
        }
        for mask, label, score, box in zip(*columns, strict=True)
    ]


def annotations_json(
    images: Iterable[tuple[str, Segments]], labels: LabelSpace, as_polygons: bool = False
) -> dict[str, Any]:
    """An annotation file's content, of file names and their segments; ids count from 1.

    Args:
        as_polygons: in place of run lengths; crowds and empty masks keep these, as polygons cannot hold them.

    Raises:
        SegfolioError: segments that do not know the size of their image.
    """
    things = [(i, name) for i, name, thing in zip(labels.ids, labels.names, labels.is_thing, strict=True) if thing]
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in things],
    }
    for number, (file_name, segments) in enumerate(images, 1):
        height, width = segments.size
        if min(segments.size) < 1:
            raise SegfolioError(f"{file_name} is {width}x{height} pixels; give its segments the size of the image")
        content["images"].append({"id": number, "file_name": file_name, "height": height, "width": width})
        rles = segments.rles
        boxes, areas = rle.boxes(rles), rle.areas(rles).astype(np.float64)
        alone = np.zeros(len(rles), np.bool_) if segments.box_only is None else segments.box_only.numpy()
        if segments.boxes is not None:
            boxes[alone] = segments.boxes.numpy()[alone]
            areas[alone] = boxes[alone, 2] * boxes[alone, 3]
        columns = (rles, segments.labels.tolist(), segments.crowd.tolist(), areas, boxes, alone)
        for mask, label, crowd, area, box, box_only in zip(*columns, strict=True):
            if not labels.is_thing[label]:
                continue
            shape: Any = [] if box_only else rle.to_json(mask)
            if as_polygons and area and not crowd and not box_only:
                shape = polygons.to_coco(polygons.from_mask(rle.decode([mask], segments.size)[0]))
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": labels.ids[label],
                    "iscrowd": int(crowd),
                    "area": int(area) if area.is_integer() else float(area),
                    "bbox": box.tolist(),
                    "segmentation": shape,
                }
            )
    return content


def _places(labels: LabelSpace, ids: Iterable[int]) -> list[int]:
    """Class indices of category ids; a KeyError of one that is none."""
    places = {category: place for place, category in enumerate(labels.ids)}
    return [places[number] for number in ids]


def _floats(values: list[Any], width: int = 1) -> Tensor | None:
    """float64 `[N, width]`, None where a value is missing or of another kind."""
    rows = [value if isinstance(value, list) else [value] for value in values]
    if not all(len(row) == width and set(map(type, row)) <= {int, float} for row in rows):
        return None
    try:
        return torch.from_numpy(np.array(rows, np.float64).reshape(-1, width))
    except OverflowError:  # a whole number of over 308 digits
        return None


def _get(path: Path, where: str, place: int, entry: Any, key: str, kind: type) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if type(value) is not kind or value == "" or (type(value) is int and not -(2**63) <= value < 2**63):
        expected = "whole number of 64 bits" if kind is int else "text"
        raise SegfolioError(f"{path}: {key!r} of {where}[{place}] is {value!r}, expected a {expected}")
    return value


def _file_name(path: Path, place: int, image: dict[str, Any]) -> str:
    """As given; where an image has a `coco_url` alone, as in LVIS's files, its last folder and its name."""
    alone = "coco_url" in image and "file_name" not in image
    name: str = _get(path, "images", place, image, "coco_url" if alone else "file_name", str)
    return "/".join(name.split("/")[-2:]) if alone else name


def _searched(path: Path, place: int, image: dict[str, Any]) -> list[list[int] | None]:
    for key, ids in (found := {key: image.get(key) for key in _SEARCHED}).items():
        if ids is not None and not (isinstance(ids, list) and set(map(type, ids)) <= {int}):
            raise SegfolioError(f"{path}: {key!r} of images[{place}] is {str(ids)[:40]}, expected a list of numbers")
    return list(found.values())


def _size(image: dict[str, Any]) -> Size | None:
    height, width = image.get("height"), image.get("width")
    return (height, width) if type(height) is type(width) is int and height > 0 and width > 0 else None
