"""`inspect_dataset`: every image and annotation of every split is read once."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from segfolio.data.checks.problems import Problem
from segfolio.data.checks.truth import has_truth
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.formats import coco
from segfolio.data.image_space import ImageSpace
from segfolio.data.labels import LabelSpace, UnknownIds
from segfolio.data.panoptic_truth import panoptic_losses
from segfolio.data.sample import Size, Target, to_pixels
from segfolio.errors import SegfolioError
from segfolio.inspection.report import Found, Report, Split

_AHEAD = 256  # images in work or waiting to be counted: memory stays flat

Seen = defaultdict[tuple[Size, bytes], list[tuple[str, str]]]
"""Split and image id of all images of one size and hash."""


def inspect_dataset(splits: Mapping[str, Callable[[], SegmentationDataset]], optional: Collection[str] = ()) -> Report:
    """Read every split once, in threads, and count.

    Nothing that is wrong with the data is raised: it becomes a `Problem` of the report, and is told once.

    Args:
        splits: what opens each split, by name; there is at least one, and the first is trained on.
        optional: names of splits without which training goes on.
    """
    report, seen = Report(trained_on=next(iter(splits))), Seen(list)
    for name, opened in splits.items():
        needed = name not in optional
        try:
            dataset = opened()
            split = Split(dataset)
        except Exception as error:
            report.problems.append(Problem("split", "that cannot be opened", f"{name}: {_sentence(error)}", needed))
            continue
        labels = dataset.labels
        if report.labels and (labels.names, labels.ignore_index) != (report.labels.names, report.labels.ignore_index):
            where = f"{name}: {', '.join(labels.names)}, void {labels.ignore_index}"
            report.problems.append(Problem("split", "of other classes than another", where))
            continue
        report.splits[name] = split
        report.problems += _read(name, split, seen)
        report.problems += _gaps(name, split, needed)
    report.problems += _duplicates(seen, report.trained_on)
    return report


def class_map(target: Target, labels: LabelSpace) -> npt.NDArray[np.integer] | None:
    """The class index of each pixel, `[H, W]`, drawn from the objects where there are only these."""
    if target.semantic is not None:
        return target.semantic.numpy()
    segments = target.segments
    if segments is not None and segments.box_only is not None:  # of a box, no pixel is known
        segments = segments[~segments.box_only]
    return None if segments is None else coco.semantic(segments, labels)


def _read(name: str, split: Split, seen: Seen) -> Iterator[Problem]:
    """Fill `split` and `seen`."""
    dataset = split.dataset
    named = set[str | None]()
    try:
        for problem in dataset.problems():
            yield problem
            if problem.fatal:
                named.add(problem.image_id)
    except Exception as error:
        yield Problem("split", "whose files cannot be checked", f"{name}: {_sentence(error)}")
    for index, found in enumerate(_outcomes(name, split)):
        if isinstance(found, Found):
            split.add(index, found)
            seen[found.size, found.digest].append((name, found.image_id))
            yield from (problem._replace(where=f"{name} {problem.where}") for problem in found.lost)
            continue
        if isinstance(found, UnknownIds):
            split.add_unknown(found.pixels)
        image_id = dataset.image_id(index)
        if image_id is None or image_id not in named:
            known = isinstance(found, SegfolioError)  # its sentence names the file
            where = _sentence(found) if known else f"{name} {image_id or index}: {_sentence(found)}"
            yield Problem("sample", "that cannot be read", where, image_id=image_id)


def _outcomes(name: str, split: Split) -> Iterator[Found | Exception]:
    """What reading each image in turn came to."""

    def attempt(index: int) -> Found | Exception:
        try:
            return _look(split.dataset, index)
        except Exception as error:
            return error

    indices = range(split.images)
    bar = tqdm(total=len(indices), desc=name, unit=" images", disable=None)  # of a terminal alone
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in indices[::_AHEAD]:
            for outcome in pool.map(attempt, indices[start : start + _AHEAD]):
                bar.update()
                yield outcome


def _look(dataset: SegmentationDataset, index: int) -> Found:
    """Read one image, count, and check what only a dataset's own code can get wrong."""
    sample, labels = dataset[index], dataset.labels
    target = sample.target or Target()
    pixels = np.zeros(labels.num_classes + 1, np.int64)
    objects, crowds = np.zeros((2, labels.num_classes), np.int64)
    classes = class_map(target, labels)
    if classes is not None:
        height, width = sample.image.shape[1:]
        if classes.shape != (height, width):
            raise SegfolioError(
                f"{sample.image_id}: the truth is {classes.shape[1]}x{classes.shape[0]} pixels but the image is "
                f"{width}x{height}; `read` returns both in one size"
            )
        counts = np.bincount(classes.reshape(-1), minlength=labels.ignore_index + 1)
        pixels[:] = counts[[*range(labels.num_classes), labels.ignore_index]]
        if pixels.sum() != classes.size:
            stray = set(np.flatnonzero(counts).tolist()) - {*range(labels.num_classes), labels.ignore_index}
            raise SegfolioError(
                f"{sample.image_id}: the truth holds {sorted(stray)}, expected 0 to {labels.num_classes - 1} or "
                f"ignore_index {labels.ignore_index}; `read` returns class indices, see LabelSpace.encode"
            )
    if target.segments is not None:
        kinds, crowd = target.segments.labels, target.segments.crowd
        for counted, which in ((objects, ~crowd), (crowds, crowd)):
            counted += np.bincount(kinds[which], minlength=labels.num_classes) * labels.is_thing
    is_panoptic = "panoptic" in getattr(getattr(dataset, "info", None), "tasks", ())
    lost = list(panoptic_losses(target, labels, sample.image_id)) if is_panoptic else []
    digest = hashlib.blake2b(to_pixels(sample.image).data, digest_size=16).digest()
    annotated = sample.target is not None
    truth, values = has_truth(sample.target), _values(to_pixels(sample.image), dataset.image_space)
    stored = sample.image.numpy()  # torch has no extremes of 16 bits
    extent = float(stored.min()), float(stored.max())
    about = sample.image_id, sample.original_size, digest, annotated, truth
    return Found(*about, pixels, objects, crowds, lost, values, extent)


def _values(pixels: npt.NDArray[Any], space: ImageSpace) -> npt.NDArray[np.float64]:
    """See `Found.values`."""
    (low, high), number = space.value_range, pixels.shape[0] * pixels.shape[1]
    found = [cv2.meanStdDev(np.ascontiguousarray(pixels[..., c : c + 4])) for c in range(0, pixels.shape[2], 4)]
    mean, std = np.concatenate(found, 1)[..., 0]
    mean, std = (mean - low) / (high - low), std / (high - low)
    return number * np.stack([mean, std**2 + mean**2])


def _gaps(name: str, split: Split, needed: bool) -> Iterator[Problem]:
    """What a split as a whole lacks."""
    if not split.images:
        yield Problem("split", "without an image", name, needed)
    elif split.read and not (split.pixels[:-1].any() or split.objects.any()):
        yield Problem("split", "without a pixel of any class", name, needed)
    elif split.read and not split.has_truth:
        yield Problem("split", "without an object that is not a crowd", name, needed)
    elif split.read:
        for class_name, pixels, objects in zip(split.dataset.labels.names, split.pixels, split.objects, strict=False):
            if not (pixels or objects):
                yield Problem("class", f"without a pixel in {name}", class_name, fatal=False)
    if split.read and (said := _unlike_range(split)):
        yield Problem("split", "of values unlike their range", f"{name}: {said}", fatal=False)
    if said := split.dataset.unlike_published(name):
        yield Problem("split", "of another length than published", said, fatal=False)
    for image_id in split.empty:
        yield Problem("image", f"without class or object in {name}", image_id, fatal=False)


def _unlike_range(split: Split) -> str | None:
    """Where values reach a range beyond their own, or an eighth of it: 12 bits in 16, or 255 where 1 is the most."""
    (least, most), (low, high) = split.extent, split.dataset.image_space.value_range
    width = high - low
    if least >= low - width and most <= high + width and most - least >= width / 8:
        return None
    return f"{least:g} to {most:g}, and value_range is {low:g} to {high:g}; give the range that they are of"


def _duplicates(seen: Seen, trained_on: str) -> Iterator[Problem]:
    """Images that occur more than once; fatal where what is trained on is tested on."""
    for places in seen.values():
        if len(places) > 1:
            splits = list(dict.fromkeys(split for split, _ in places))
            what = f"in {' and '.join(splits)} alike" if len(splits) > 1 else f"repeated in {splits[0]}"
            where = " = ".join(f"{split} {image_id}" for split, image_id in places)
            yield Problem("image", what, where, fatal=len(splits) > 1 and trained_on in splits)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, SegfolioError) else f"{type(error).__name__}: {error}"
