"""COCO panoptic (Kirillov et al., 2019; Lin et al., 2014), and whatever else has its format."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import DatasetInfo, RemoteFile, SegmentationDataset, listed
from segfolio.data.datasets.coco_instances import IMAGES
from segfolio.data.formats.coco import header_size, read_json
from segfolio.data.formats.images import read_image
from segfolio.data.formats.panoptic import MAX_ID, id_places, label_space, panoptic_size, read_panoptic
from segfolio.data.image_ids import id_of
from segfolio.data.sample import Sample, Target, to_image
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

_KEYS = ("images", "annotations", "categories")
_IMAGE = {"id": (int, str), "file_name": str}
_ANNOTATION = {"image_id": (int, str), "file_name": str, "segments_info": list}


class _Entry(NamedTuple):
    """One annotated image, as the JSON has it."""

    image_id: str
    number: int | str
    image: str
    png: str
    size: tuple[Any, Any]  # height, width


class CocoPanoptic(SegmentationDataset):
    """Images whose every pixel belongs to one segment, a thing or stuff, or to none.

    With `root` alone, COCO 2017; a dataset of one's own in the format says where its files are. `{split}` in a
    path becomes the split. Images without an annotation are left out. Classes have the order of the file; of the
    JSON, what evaluation and training need is kept as arrays, so that workers share it.

    Args:
        root: the folder that the other paths are in.
        split: train or val.
        annotations: the panoptic JSON.
        panoptic: the folder of its PNGs.
        images: the folder of the images.
        categories: a JSON list of categories to be read in place of the annotations' own.

    Raises:
        SegfolioError: a missing file or folder, a JSON that cannot be read or lacks what the format asks for.
    """

    info = DatasetInfo(
        title="COCO panoptic 2017",
        url="https://cocodataset.org/#download",
        licence="annotations CC BY 4.0, images of Flickr under their own terms",
        splits={"train": 118287, "val": 5000},
        adjustable=True,
        tasks=("semantic", "instance", "panoptic"),
        layout="annotations/panoptic_{split}2017.json, annotations/panoptic_{split}2017/*.png, {split}2017/*.jpg",
        disk="21 GB",
        files=(
            *IMAGES,
            RemoteFile(  # checksum as those of the images
                "http://images.cocodataset.org/annotations/panoptic_annotations_trainval2017.zip",
                "sha256:c05f76d2129b6b561eb70efe16e7006df62f73fb92889132d373b9d90e31a370",
            ),
        ),
        access="Then unpack annotations/panoptic_train2017.zip and panoptic_val2017.zip in their folder.",
    )

    def __init__(
        self,
        root: str | Path,
        split: str,
        annotations: str = "annotations/panoptic_{split}2017.json",
        panoptic: str = "annotations/panoptic_{split}2017",
        images: str = "{split}2017",
        categories: str | None = None,
    ) -> None:
        paths = [path.replace("{split}", split) for path in (annotations, panoptic, images, categories or annotations)]
        root = self.expect_files(root, *dict.fromkeys(paths))
        self.source, self.panoptic, self.images = (root / path for path in paths[:3])
        content = read_json(self.source)
        if not isinstance(content, dict):
            raise SegfolioError(f"{self.source} is no panoptic JSON, expected an object with {listed(_KEYS)}")
        self.labels = label_space(
            read_json(root / paths[3]) if categories else content.get("categories"), root / paths[3]
        )
        records = {image["id"]: image for image in _records(content, "images", _IMAGE, self.source)}
        found = _records(content, "annotations", _ANNOTATION, self.source)
        if unknown := [str(a["image_id"]) for a in found if a["image_id"] not in records]:
            raise SegfolioError(f"{self.source} has annotations of images that it does not list: {listed(unknown)}")
        self._entries = [_entry(a, records[a["image_id"]]) for a in found]
        if not self._entries:
            raise SegfolioError(f"{self.source} annotates no image")
        if len({entry.image_id for entry in self._entries}) < len(self._entries):
            raise SegfolioError(f"{self.source} annotates an image twice; leave one annotation of each")
        self._pack([a["segments_info"] for a in found])

    def _pack(self, annotations: list[list[Any]]) -> None:
        """Keep the segments of all images as `_segments`, those of image i between `_bounds[i]` and `[i + 1]`."""
        classes = {number: place for place, number in enumerate(self.labels.ids)}
        rows: list[tuple[int, int, int]] = []
        bounds = [0]
        self._faults: list[Problem] = []
        for entry, infos in zip(self._entries, annotations, strict=True):
            seen: set[int] = set()
            for info in infos:
                if what := _fault(info, classes, seen):
                    where = f"{self.source} (image {entry.number}, {str(info)[:80]})"
                    self._faults.append(Problem("segment", what, where, image_id=entry.image_id))
                else:
                    rows.append((info["id"], classes[info["category_id"]], info.get("iscrowd", 0)))
                    seen.add(info["id"])
            bounds.append(len(rows))
        self._segments = np.array(rows, np.int32).reshape(-1, 3)  # id, class, crowd
        self._bounds = np.array(bounds)

    def __len__(self) -> int:
        return len(self._entries)

    def image_id(self, index: int) -> str:
        return self._entries[index].image_id

    def image_file(self, index: int) -> Path:
        return self.images / self._entries[index].image

    def files(self) -> Iterator[Path]:
        yield self.source
        for entry in self._entries:
            yield from (self.images / entry.image, self.panoptic / entry.png)

    def problems(self) -> Iterator[Problem]:
        """Faults of the JSON, missing and broken files, sizes that differ; no pixel is decoded."""
        yield from self._faults
        pairs = [FilePair(entry.image_id, self.images / entry.image, None) for entry in self._entries]
        yield from header_problems(pairs, self.image_space)
        with ThreadPoolExecutor(8) as pool:
            for found in pool.map(lambda entry: list(self._inspect(entry)), self._entries):
                yield from found

    def _inspect(self, entry: _Entry) -> Iterator[Problem]:
        png = self.panoptic / entry.png
        try:
            size = panoptic_size(png)
        except (SegfolioError, ValueError):  # ValueError: a name that no file can have
            what = "empty, cut short or no RGB PNG of 8 bits (export again)" if png.exists() else "missing"
            yield Problem("panoptic PNG", what, str(png), image_id=entry.image_id)
            return
        if (of_image := header_size(self.images / entry.image)) not in (None, size):
            where = f"{png} ({_shape(size)}, image {_shape(of_image)})"
            yield Problem("panoptic PNG", "of another size than the image", where, image_id=entry.image_id)
        elif entry.size != size:
            where = f"{self.source} (image {entry.number} is {_shape(size)})"
            yield Problem("image", "of another size than the JSON says", where, False, entry.image_id)

    def read(self, index: int) -> Sample:
        """Decode one image and its PNG.

        Raises:
            SegfolioError: a file that cannot be decoded, sizes that differ, segments of which the JSON has a fault,
                ids that only the PNG or only the JSON has.
        """
        index = range(len(self))[index]
        entry = self._entries[index]
        if fault := next((fault for fault in self._faults if fault.image_id == entry.image_id), None):
            raise SegfolioError(f"{fault.where}: {fault.kind} {fault.what}; correct the JSON")
        image = to_image(read_image(self.images / entry.image))
        size = (image.shape[-2], image.shape[-1])
        ids = read_panoptic(png := self.panoptic / entry.png)
        if ids.shape != size:
            raise SegfolioError(
                f"{png} is {_shape(ids.shape)} pixels but its image {self.images / entry.image} is {_shape(size)}; "
                "a panoptic PNG has the size of its image"
            )
        known, classes, crowd = self._segments[self._bounds[index] : self._bounds[index + 1]].T
        places = id_places(ids, known, png)
        semantic = np.append(self.labels.ignore_index, classes).astype(self.labels.dtype)[places]
        labels, is_crowd = (torch.from_numpy(x) for x in (classes.astype(np.int64), crowd.astype(np.bool_)))
        target = Target(
            semantic=Mask(torch.from_numpy(semantic)),
            segments=Segments(torch.from_numpy(places), labels, is_crowd),
            ignore_index=self.labels.ignore_index,
            number=entry.number if isinstance(entry.number, int) else None,
        )
        return Sample(image, entry.image_id, size, target)


def _records(content: dict[str, Any], key: str, fields: dict[str, Any], source: Path) -> list[dict[str, Any]]:
    """The list `key` of a JSON, each of its objects with `fields` of the right type."""
    records = content.get(key)
    if not isinstance(records, list):
        raise SegfolioError(f"{source} has no list {key!r}, expected a panoptic JSON with {listed(_KEYS)}")
    for place, record in enumerate(records):
        if not isinstance(record, dict) or not all(isinstance(record.get(k), kind) for k, kind in fields.items()):
            raise SegfolioError(f"{source}: {key}[{place}] is no object with {listed(fields)} of the right types")
    return records


def _entry(annotation: dict[str, Any], image: dict[str, Any]) -> _Entry:
    name, png = (record["file_name"].replace("\\", "/") for record in (image, annotation))
    size = image.get("height"), image.get("width")
    return _Entry(id_of(name), image["id"], name, png, size)


def _fault(info: Any, classes: dict[int, int], seen: set[int]) -> str | None:
    """What is wrong with one of an image's `segments_info`."""
    if not isinstance(info, dict) or any(type(info.get(key)) is not int for key in ("id", "category_id")):
        return "without an integer id and category_id"
    if not 0 < info["id"] <= MAX_ID:
        return f"with an id outside 1 to {MAX_ID}"
    if info["category_id"] not in classes:
        return "of an unknown category_id"
    if info.get("iscrowd", 0) not in (0, 1):
        return "with an iscrowd other than 0 and 1"
    return "whose id its image has twice" if info["id"] in seen else None


def _shape(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
