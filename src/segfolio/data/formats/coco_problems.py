"""What is wrong with a COCO file, annotation by annotation."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segfolio.data.checks.problems import Problem
from segfolio.data.formats import rle
from segfolio.data.formats.coco import Annotation, CocoFile, Image, box_of, header_size
from segfolio.data.sample import Size
from segfolio.errors import SegfolioError


def problems(file: CocoFile, paths: Sequence[Path]) -> Iterator[Problem]:
    """What is wrong with the annotations; every mask is decoded. Of the images' files only the size is looked at.

    A zero box or mask is a remark, as COCO has some: evaluation counts the object, training cannot use it.

    Args:
        paths: the file of each image.
    """
    for kind, counts in (
        ("image id", Counter(image.id for image in file.images)),
        ("image name", Counter(image.stem for image in file.images)),
        ("annotation id", Counter(a.id for found in file.annotations.values() for a in found)),
    ):
        for value, times in counts.items():
            if times > 1:
                yield Problem(kind, "given more than once", f"{file.path}: {value}")
            if isinstance(value, int) and value < 0:
                yield Problem(kind, "below 0", f"{file.path}: {value}")
    known = {image.id for image in file.images}
    for image_id in file.annotations.keys() - known:
        for annotation in file.annotations[image_id]:
            yield Problem("annotation", "of an unknown image", f"{file.path}: annotation {annotation.id}")
    for image, path in zip(file.images, paths, strict=True):
        stored = header_size(path)
        if image.size and stored and image.size != stored:
            sizes = "{1}x{0}, in its file {3}x{2}".format(*image.size, *stored)
            where = f"{file.path}: image {image.id} ({image.file_name}: {sizes})"
            yield Problem("image", "of another size in the annotations than in its file", where, True, image.stem)
        for what, number, fatal in _contradictions(image, file):
            yield Problem("image", what, f"{file.path}: image {image.id} (category {number})", fatal, image.stem)
        if size := stored or image.size:
            for annotation in file.annotations.get(image.id, []):
                for what, detail, fatal in _faults(annotation, size, file.categories):
                    where = f"{file.path}: annotation {annotation.id}{detail and f' ({detail})'}"
                    yield Problem("annotation", what, where, fatal, image.stem)


def _contradictions(image: Image, file: CocoFile) -> Iterator[tuple[str, int, bool]]:
    """Of a federated file: what is wrong about a category, which one, and whether it is fatal."""
    absent, partial = (set(x or ()) for x in (image.neg_category_ids, image.not_exhaustive_category_ids))
    for number in sorted((absent | partial) - file.categories.keys()):
        yield "with an unknown category in neg_category_ids or not_exhaustive_category_ids", number, True
    present = {a.category_id for a in file.annotations.get(image.id, [])} if absent else set()
    for number in sorted(absent & present):
        yield "with objects of a category that its neg_category_ids say it lacks (they count)", number, False


def _faults(annotation: Annotation, size: Size, categories: Mapping[int, str]) -> Iterator[tuple[str, str, bool]]:
    """What is wrong, more of it, and whether it is fatal."""
    if annotation.category_id not in categories:
        yield "of an unknown category", str(annotation.category_id), True
    box = box_of(annotation.bbox)
    if annotation.bbox is not None and box is None:
        yield "with a box that is none (x, y, width, height in pixels)", f"{annotation.bbox}"[:40], True
    if box is not None:
        x, y, width, height = box
        if width * height == 0:
            yield "with a box without area", "", False
        if min(x, y) < -1 or x + width > size[1] + 1 or y + height > size[0] + 1:
            yield "with a box that leaves the image", "", False
    if annotation.box_only:
        if box is not None:
            yield "with a box and no mask, which networks that learn masks refuse", "", False
        return
    if annotation.segmentation is None:
        yield "without a segmentation and without a box", "", True
        return
    try:
        found = rle.from_segmentation(annotation.segmentation, size)
    except SegfolioError as error:
        yield "with a segmentation that is none", str(error), True
        return
    if not rle.areas([found])[0]:
        yield "with a mask without a pixel", "", False
    elif box is not None and (apart := _apart(np.array(box), rle.boxes([found])[0])) > _APART:
        far = _iou(np.array(box), rle.boxes([found])[0]) < 0.5
        what = (
            "whose mask and box overlap by less than half" if far else f"whose mask and box are over {_APART} px apart"
        )
        yield what, f"{apart:.0f} px", far and not annotation.crowd  # a crowd's box is not learned


_APART = 2
"""Pixels by which sides of a box and of its mask may differ: tools round in different ways."""


def _apart(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """The most by which two sides differ."""
    return float(np.abs([a[:2] - b[:2], a[:2] + a[2:] - b[:2] - b[2:]]).max())


def _iou(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.tolist(), b.tolist()
    width, height = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
    common = max(0.0, width) * max(0.0, height)
    return common / (aw * ah + bw * bh - common)
