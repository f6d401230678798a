"""`Report`: what an inspection found, as figures. `summary` and `page` put it into words and pictures."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import SegmentationDataset
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Size

Counts = npt.NDArray[np.int64]
_EXAMPLES = 2  # images of each class and split that are remembered


class Found(NamedTuple):
    """What is kept of an image that was read.

    Attributes:
        digest: hash of its pixels.
        annotated: whether it has a truth, empty or not.
        has_truth: whether it has something to learn, see `checks.truth`.
        pixels: `[C + 1]`, of each class and of none (void, or no object).
        objects, crowds: `[C]`, of thing classes, and regions that stand for a group of them.
        lost: what panoptic truth cannot keep, where the dataset has one.
        values: `[2, channels]`, sums over the image's pixels of its values in units of their range, and of their
            squares.
        extent: the least and the largest value.
    """

    image_id: str
    size: Size
    digest: bytes
    annotated: bool
    has_truth: bool
    pixels: Counts
    objects: Counts
    crowds: Counts
    lost: list[Problem]
    values: npt.NDArray[np.float64]
    extent: tuple[float, float]


class Split:
    """What one split holds: the sums of `Found` over the images that could be read, and what follows.

    Attributes:
        dataset: the split itself.
        images: that it has, readable or not.
        read: images that could be read.
        has_truth: whether one of them has something to learn.
        images_with: `[C + 1]`, images that hold such a pixel.
        pixels_around: `[C]`, all pixels of the images that hold the class.
        sizes: images of each height and width.
        values, extent: as of `Found`, over all images.
        empty: ids of the images whose truth is background or nothing.
        unknown: pixels and images of each id in the files that the label space lacks.
        most: of each class, (pixels, index) of the images with most of it.
    """

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset
        self.images, self.read, self.has_truth = len(dataset), 0, False
        c = dataset.labels.num_classes
        self.pixels, self.images_with = np.zeros((2, c + 1), np.int64)
        self.pixels_around, self.objects, self.crowds = np.zeros((3, c), np.int64)
        self.sizes = Counter[Size]()
        self.values = np.zeros((2, dataset.image_space.channels))
        self.extent = (math.inf, -math.inf)
        self.empty: list[str] = []
        self.unknown: dict[int, tuple[int, int]] = {}
        self.most: list[list[tuple[int, int]]] = [[] for _ in range(c)]

    def add(self, index: int, found: Found) -> None:
        labels, held = self.dataset.labels, found.pixels > 0
        self.read += 1
        self.has_truth |= found.has_truth
        self.sizes[found.size] += 1
        self.values += found.values
        self.extent = min(self.extent[0], found.extent[0]), max(self.extent[1], found.extent[1])
        self.pixels += found.pixels
        self.images_with += held
        self.pixels_around += held[:-1] * found.pixels.sum()
        self.objects += found.objects
        self.crowds += found.crowds
        present = np.flatnonzero(held[:-1]).tolist()
        for c in present:
            self.most[c] = sorted([*self.most[c], (int(found.pixels[c]), index)], reverse=True)[:_EXAMPLES]
        if found.annotated and not found.objects.any() and all(labels.names[c] == labels.background for c in present):
            self.empty.append(found.image_id)

    def add_unknown(self, pixels: Mapping[int, int]) -> None:
        """Count the pixels of each id that the label space lacks, of one image."""
        for i, n in pixels.items():
            before = self.unknown.get(i, (0, 0))
            self.unknown[i] = before[0] + n, before[1] + 1

    @property
    def void_share(self) -> float:
        """Share of the pixels without a class; 0 where there are no pixels."""
        return float(self.pixels[-1] / max(self.pixels.sum(), 1))

    @property
    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Of each channel over all pixels, in units of the value range: the model's `mean` and `std`."""
        mean, squares = self.values / max(1, sum(h * w * n for (h, w), n in self.sizes.items()))
        return mean.tolist(), np.sqrt(np.maximum(squares - mean**2, 0)).tolist()

    @property
    def by_area(self) -> list[Size]:
        """Every image size once, the smallest first."""
        return sorted(self.sizes, key=lambda size: (size[0] * size[1], size))

    def as_dict(self) -> dict[str, Any]:
        labels = self.dataset.labels
        columns = zip(self.pixels, self.images_with, self.objects, self.crowds, strict=False)
        per_class = zip(labels.names, columns, strict=True)
        mean, std = self.mean_and_std
        return {
            "images": self.images,
            "read": self.read,
            "image_space": self.dataset.image_space.words,
            "mean": mean,
            "std": std,
            "sizes": {
                "smallest": list(self.by_area[0]) if self.sizes else None,
                "largest": list(self.by_area[-1]) if self.sizes else None,
                "distinct": len(self.sizes),
            },
            "classes": {
                name: dict(zip(("pixels", "images", "objects", "crowds"), map(int, counts), strict=True))
                for name, counts in per_class
            },
            "void": {"pixels": int(self.pixels[-1]), "images": int(self.images_with[-1]), "share": self.void_share},
            "unknown_ids": {str(i): {"pixels": p, "images": n} for i, (p, n) in sorted(self.unknown.items())},
            "empty": self.empty,
        }


@dataclass
class Report:
    """The splits that could be opened, by name, and all that is wrong.

    Attributes:
        trained_on: the name of the split that is.
    """

    trained_on: str
    splits: dict[str, Split] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def fatal(self) -> list[Problem]:
        """The problems for which training would fail or be wrong."""
        return [problem for problem in self.problems if problem.fatal]

    @property
    def remarks(self) -> list[Problem]:
        return [problem for problem in self.problems if not problem.fatal]

    @property
    def labels(self) -> LabelSpace | None:
        return next((split.dataset.labels for split in self.splits.values()), None)

    @property
    def class_weights(self) -> dict[str, list[float]]:
        """Factors of the loss by method, from what is trained on; none where it has pixels of one class at most."""
        split = self.splits.get(self.trained_on)
        if split is None or np.count_nonzero(split.pixels[:-1]) < 2:
            return {}
        return {
            "median frequency balancing": median_frequency(split.pixels[:-1], split.pixels_around).tolist(),
            "inverse square root of the share": inverse_square_root(split.pixels[:-1]).tolist(),
        }

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON holds it. Sizes are height, width."""
        labels = self.labels
        return {
            "classes": dict(zip(labels.names, labels.ids, strict=True)) if labels else {},
            "void_ids": list(labels.void_ids) if labels else [],
            "splits": {name: split.as_dict() for name, split in self.splits.items()},
            "class_weights": self.class_weights,
            "problems": [problem._asdict() for problem in self.fatal],
            "remarks": [problem._asdict() for problem in self.remarks],
        }


def median_frequency(pixels: Counts, around: Counts) -> npt.NDArray[np.float64]:
    """The median of the classes' frequencies over each, `[C]` (arXiv 1411.4734; SegNet, arXiv 1511.00561, section 3).

    The frequency of a class is its share of the pixels `around` it: all those of the images that hold it. A class
    without a pixel weighs 1 and stays out of the median.
    """
    held = pixels > 0
    frequency = pixels[held] / around[held]
    weights = np.ones(len(pixels))
    weights[held] = np.median(frequency) / frequency
    return weights


def inverse_square_root(pixels: Counts) -> npt.NDArray[np.float64]:
    """One over the root of each class's share of the pixels, `[C]`, with mean 1 over the classes that have any."""
    held = pixels > 0
    weights = np.ones(len(pixels))
    weights[held] = pixels[held] ** -0.5
    weights[held] /= weights[held].mean()
    return weights
