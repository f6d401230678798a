"""Shapes: drawn landscapes with exact semantic, instance and panoptic truth, and no files."""

from pathlib import Path

import numpy as np
import torch
from torchvision.tv_tensors import Mask

from segfolio.data import drawing
from segfolio.data.dataset import DatasetInfo, SegmentationDataset
from segfolio.data.drawing import LABELS, STUFF, THINGS, Array, Map
from segfolio.data.sample import Sample, Segments, Size, Target, to_image
from segfolio.errors import SegfolioError

_SPLITS = ("train", "val", "test")
_COUNTS = (0, 3, 4, 5, 6, 7, 8)  # of shapes tried in an image


class Shapes(SegmentationDataset):
    """Layers of textured stuff with shapes on them, drawn when they are read.

    Sample `i` is a function of `(seed, split, i, size)`. Classes have no colour of their own: texture tells
    stuff apart, outline and facets tell things apart, which have the same areas and hide one another.
    `Target.segments` holds the visible part of every thing.

    Args:
        root: not used; there are no files.
        split: train, val or test.
        size: height, width in pixels.
        train: number of images of that split.
        val: likewise.
        test: likewise.

    Raises:
        SegfolioError: an unknown split, a size below 32 pixels.
    """

    info = DatasetInfo(
        title="Shapes",
        url="the docstring of segfolio.data.datasets.Shapes",
        licence="CC0",
        splits={"train": 512, "val": 128, "test": 128},
        adjustable=True,
        tasks=("semantic", "instance", "panoptic"),
        layout="no files",
    )
    labels = LABELS

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        size: Size = (96, 96),
        train: int = 512,
        val: int = 128,
        test: int = 128,
        seed: int = 0,
    ) -> None:
        self.expect_split(split, _SPLITS)
        if min(size) < 32:
            raise SegfolioError(f"size of Shapes is {size}, expected at least 32 pixels each way")
        if min(train, val, test) < 0:
            raise SegfolioError(f"train, val and test of Shapes are numbers of images, not {train}, {val}, {test}")
        self.split, self.size, self.seed = split, size, seed
        self.length = {"train": train, "val": val, "test": test}[split]

    def __len__(self) -> int:
        return self.length

    def read(self, index: int) -> Sample:
        """Draw one sample; an index outside the split is an `IndexError`."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, _SPLITS.index(self.split), index])
        picture, semantic = drawing.landscape(rng, self.size)
        segments = _add_things(rng, picture, semantic)
        picture *= rng.uniform(0.8, 1.1)  # time of day
        image = to_image(drawing.developed(rng, picture))
        target = Target(Mask(torch.from_numpy(semantic)), segments)
        return Sample(image, f"{self.split}_{index:05d}", self.size, target)


def _add_things(rng: np.random.Generator, picture: Array, semantic: Map) -> Segments:
    """Draw shapes over a landscape, in place, and return what is visible of each."""
    h, w = semantic.shape
    owner = np.zeros((h, w), np.uint8)  # of each pixel: 0, or the place of its shape in `kinds` + 1
    kinds: list[int] = []
    areas = np.zeros(0, int)  # visible, in pixels
    for _ in range(rng.choice(_COUNTS)):
        kind = int(rng.integers(len(THINGS)))
        centre = rng.uniform(0.06, 0.94, 2) * (w, h)
        radius, turn = min(h, w) * rng.uniform(0.11, 0.18), rng.uniform(0, 2 * np.pi)
        points = centre + drawing.outline(THINGS[kind], radius, turn)
        mask = drawing.cover(points, (h, w)) >= 0.5
        hidden = np.bincount(owner[mask], minlength=len(kinds) + 1)[1:]
        if (hidden > 0.5 * areas).any():
            continue  # it would hide most of another
        paint = drawing.color(rng, rng.random(), drawing.VIVID)
        drawing.add_thing(picture, THINGS[kind], points, centre, paint)
        kinds.append(kind)
        areas = np.append(areas - hidden, mask.sum())
        owner[mask] = len(kinds)
        semantic[mask] = len(STUFF) + kind
    n = len(kinds)
    labels = len(STUFF) + torch.tensor(kinds, dtype=torch.int64)
    return Segments(torch.from_numpy(owner), labels, torch.zeros(n, dtype=torch.bool))
