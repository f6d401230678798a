"""Images of one split that are in another as well, as far as it shows before training."""

import contextlib
import filecmp
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from segfolio.data.checks.remembered import remembered, stamps
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.formats.images import read_image
from segfolio.data.image_space import ImageSpace
from segfolio.errors import SegfolioError
from segfolio.words import counted

SMALL = 256 * 2**20
"""Bytes of image files up to which all are decoded; of more, files of equal name, size and bytes are one image."""


def shared_splits(trained: str, evaluated: str, split: Callable[[str], SegmentationDataset]) -> str | None:
    """What is wrong with a split to evaluate on: that its images are trained on, in a sentence; None if they are not.

    Args:
        split: opens one by its name.
    """
    so = "figures do not tell how well other images are segmented"
    if trained == evaluated:
        return f"{trained} is both trained and evaluated on: {so}"
    ours, theirs = split(evaluated), split(trained)
    if not (shared := shared_images(ours, theirs)):
        return None
    (mine, other), *_ = shared
    same = mine if mine == other else f"{mine} = {other}"
    number = "all" if len(shared) == len(ours) else f"{len(shared)} of"
    images = f"{number} {counted(len(ours), 'image')} of {evaluated}"
    return (
        f"{images} are images of {trained}, too (the first is {same}): {so}; "
        "give each split images of its own (annotations: my_{split}.json, where a dataset is given files by name)"
    )


def shared_images(ours: SegmentationDataset, theirs: SegmentationDataset) -> list[tuple[str, str]]:
    """The images of one split that the other has, too, as ids in either.

    Splits of few bytes are compared pixel by pixel, as `segfolio inspect` does; of larger ones the files are, where
    name and size are equal. Images without a file of their own are not compared.
    """
    if _are_small(chain(_files(ours), _files(theirs))):
        mine, others = dict(_files(ours)), dict(_files(theirs))
        contents = _contents(sorted({*mine, *others}), ours.image_space)
        first = {contents[path]: image_id for path, image_id in reversed(others.items()) if path in contents}
        return [(image_id, first[contents[path]]) for path, image_id in mine.items() if contents.get(path) in first]
    names = {_name(ours, index) for index in range(len(ours))}
    alike = defaultdict[str, list[tuple[str, str]]](list)
    for path, image_id in _files(theirs, names):
        alike[os.path.basename(path)].append((path, image_id))
    return [
        (image_id, same)
        for path, image_id in _files(ours)
        if (same := next((i for other, i in alike[os.path.basename(path)] if _are_one(path, other)), None))
    ]


def _files(dataset: SegmentationDataset, names: Container[str] | None = None) -> Iterator[tuple[str, str]]:
    """Path and id of each image that has a file of its own; of those in `names` alone, where many are not looked at."""
    for index in range(len(dataset)):
        if (names is None or _name(dataset, index) in names) and (path := dataset.image_file(index)):
            yield os.fspath(path), dataset.image_id(index) or str(index)


def _name(dataset: SegmentationDataset, index: int) -> str:
    """The last part of an image's id, which is its file's name without the suffix."""
    return (dataset.image_id(index) or "").rpartition("/")[2]


def _are_small(files: Iterable[tuple[str, str]]) -> bool:
    """Whether the files, of which some may be missing, are few bytes in all; seen without looking at many."""
    total = 0
    for path, _ in files:
        with contextlib.suppress(OSError):
            total += os.stat(path).st_size
        if total > SMALL:
            return False
    return True


def _are_one(a: str, b: str) -> bool:
    try:
        return a == b or filecmp.cmp(a, b, shallow=False)  # which compares sizes first
    except OSError:  # missing, which is told elsewhere
        return False


def _contents(paths: Sequence[str], space: ImageSpace) -> dict[str, str]:
    """Size and hash of the pixels of each image that can be read."""

    def content(path: str) -> str | None:
        try:
            pixels = read_image(Path(path), space)
        except SegfolioError:  # told where it is read
            return None
        return f"{pixels.shape} {hashlib.blake2b(pixels.data, digest_size=16).hexdigest()}"

    def all_contents() -> bytes:
        with ThreadPoolExecutor() as pool:
            return json.dumps(list(pool.map(content, paths))).encode()

    key = ["pixels", asdict(space), stamps(map(Path, [__file__, *paths]))]
    found = json.loads(remembered(key, all_contents))
    return {path: pixels for path, pixels in zip(paths, found, strict=True) if pixels}
