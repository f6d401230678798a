"""Shapes: drawn landscapes with exact semantic, instance and panoptic truth, and no files."""

import colorsys
import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.dataset import DatasetInfo, SegmentationDataset
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Segments, Size, Target, to_image
from segfolio.errors import SegfolioError

Array = npt.NDArray[np.floating]
Map = npt.NDArray[np.uint8]

_SPLITS = ("train", "val", "test")
_STUFF = ("sky", "water", "grass", "sand")


class _Thing(NamedTuple):
    """A star or polygon that rises from its outline to a flat top; lengths in radii of its tips."""

    name: str
    tips: int
    inner: float  # radius between two tips
    top: float  # radius of the flat top


_THINGS = (
    _Thing("circle", 12, 1.0, 0.0),
    _Thing("square", 4, math.cos(math.pi / 4), 0.6),
    _Thing("triangle", 3, math.cos(math.pi / 3), 0.0),
    _Thing("star", 5, 0.48, 0.0),
)
_COUNTS = (0, 3, 4, 5, 6, 7, 8)  # of shapes tried in an image
_PALE = (0.2, 0.5), (0.7, 0.95)  # ranges of saturation and value
_MUTED = (0.3, 0.6), (0.55, 0.85)
_VIVID = (0.55, 0.9), (0.7, 1.0)
_NOISE = 5  # grey levels
_SHADOW = np.array([1.5, 2.5])  # right, down
_SHIFT = 4  # bits of a vertex below the pixel


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
    labels = LabelSpace(
        names=(*_STUFF, *(thing.name for thing in _THINGS)),
        things=tuple(thing.name for thing in _THINGS),
        palette=(
            (142, 202, 230),
            (33, 118, 174),
            (106, 153, 78),
            (233, 196, 106),
            (214, 40, 40),
            (123, 44, 191),
            (247, 127, 0),
            (255, 214, 10),
        ),
    )

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
        picture, semantic = _landscape(rng, self.size)
        segments = _add_things(rng, picture, semantic)
        picture *= rng.uniform(0.8, 1.1)  # time of day
        picture += rng.standard_normal(picture.shape, np.float32) * _NOISE
        image = to_image(np.clip(picture, 0, 255).astype(np.uint8).transpose(1, 2, 0))
        target = Target(Mask(torch.from_numpy(semantic)), segments)
        return Sample(image, f"{self.split}_{index:05d}", self.size, target)


def _landscape(rng: np.random.Generator, size: Size) -> tuple[Array, Map]:
    """Layers of stuff, sky on top: picture `[3, H, W]` in grey levels, class indices `[H, W]`."""
    (h, w), scale = size, min(size) / 96
    y, x = np.arange(h, dtype=np.float32)[:, None], np.arange(w, dtype=np.float32)
    semantic = np.zeros(size, np.uint8)
    hue = rng.random()
    picture = _color(rng, hue, _PALE) + _texture(rng, 0, y, x)
    below = rng.permutation([1, 2, 3])[: rng.integers(2, 4)]
    for stuff, edge in zip(below.tolist(), np.linspace(0.3, 1, len(below), endpoint=False), strict=True):
        hue += rng.uniform(0.1, 0.3)
        a, b = rng.uniform(0, 2 * np.pi, 2)
        waves = 5 * np.sin(x / (17 * scale) + a) + 2 * np.sin(x / (7 * scale) + b)
        depth = y - h * (edge + rng.uniform(-0.06, 0.06)) - scale * waves
        _lay(picture, _color(rng, hue, _MUTED) + _texture(rng, stuff, y, x), np.clip(depth + 0.5, 0, 1))
        semantic[depth >= 0] = stuff
    return picture, semantic


def _texture(rng: np.random.Generator, stuff: int, y: Array, x: Array) -> Array:
    """What makes `_STUFF[stuff]` look as it does: `[H, W]` grey levels around 0.

    Args:
        y: `[H, 1]` pixels.
        x: `[W]` pixels.
    """
    a, b = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    if _STUFF[stuff] == "sky":
        return 70 * (y / len(y) - 0.2) + 6 * np.sin(x / 40 + a)
    if _STUFF[stuff] == "water":
        return 18 * np.sin(y * 1.15 + 1.6 * np.sin(x / 5 + a) + b)
    if _STUFF[stuff] == "grass":
        return 18 * np.sin(x * 1.7 + 1.2 * np.sin(y / 4 + a) + 2.5 * np.sin(x / 9 + b))
    return 80 * cv2.GaussianBlur(rng.standard_normal((len(y), len(x)), np.float32), (0, 0), 1.1)


def _add_things(rng: np.random.Generator, picture: Array, semantic: Map) -> Segments:
    """Draw shapes over a landscape, in place, and return what is visible of each."""
    h, w = semantic.shape
    owner = np.zeros((h, w), np.uint8)  # of each pixel: 0, or the place of its shape in `kinds` + 1
    kinds: list[int] = []
    areas = np.zeros(0, int)  # visible, in pixels
    for _ in range(rng.choice(_COUNTS)):
        kind = int(rng.integers(len(_THINGS)))
        centre = rng.uniform(0.06, 0.94, 2) * (w, h)
        points = centre + _outline(rng, _THINGS[kind], min(h, w) * rng.uniform(0.11, 0.18))
        cover = _fill(points, (h, w))
        mask = cover >= 0.5
        hidden = np.bincount(owner[mask], minlength=len(kinds) + 1)[1:]
        if (hidden > 0.5 * areas).any():
            continue  # it would hide most of another
        picture *= 1 - 0.4 * cv2.GaussianBlur(_fill(points + _SHADOW, (h, w)), (0, 0), 2)  # its shadow
        _lay(picture, _color(rng, rng.random(), _VIVID) * _shade(_THINGS[kind], points, centre, (h, w)), cover)
        kinds.append(kind)
        areas = np.append(areas - hidden, mask.sum())
        owner[mask] = len(kinds)
        semantic[mask] = len(_STUFF) + kind
    n = len(kinds)
    labels = len(_STUFF) + torch.tensor(kinds, dtype=torch.int64)
    return Segments(torch.from_numpy(owner), labels, torch.zeros(n, dtype=torch.bool))


def _outline(rng: np.random.Generator, thing: _Thing, radius: float) -> npt.NDArray[np.float64]:
    """Vertices `[N, 2]` (x, y) around 0 of a shape as large as a circle of `radius`, turned at random."""
    vertex, half_angle = np.arange(2 * thing.tips), np.pi / thing.tips
    angles = rng.uniform(0, 2 * np.pi) + vertex * half_angle
    area = thing.tips * thing.inner * np.sin(half_angle)
    radii = np.where(vertex % 2, thing.inner, 1) * radius * np.sqrt(np.pi / area)
    return np.stack([np.cos(angles), np.sin(angles)], -1) * radii[:, None]


def _fill(points: npt.NDArray[np.float64], size: Size) -> Array:
    """How much of each pixel a polygon covers, `[H, W]` in [0, 1]."""
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [_fixed(points)], 255, cv2.LINE_AA, shift=_SHIFT)
    return canvas.astype(np.float32) / 255


def _fixed(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    return np.round(points * 2**_SHIFT).astype(np.int32)


def _shade(thing: _Thing, points: npt.NDArray[np.float64], centre: npt.NDArray[np.float64], size: Size) -> Array:
    """Light from the upper left on the facets of a shape that rises to its centre, `[H, W]` around 1."""
    ends = np.roll(points, -1, 0)
    x, y = (ends - points).T / np.hypot(*(ends - points).T)
    light = 1 + 0.33 * (0.8 * x - 0.6 * y)
    facets = np.stack([np.broadcast_to(centre, points.shape), points, ends], 1)
    canvas = np.ones(size, np.float32)
    for facet, value in zip(_fixed(facets), light.tolist(), strict=True):
        cv2.fillConvexPoly(canvas, facet, value, shift=_SHIFT)
    if thing.top:
        cv2.fillConvexPoly(canvas, _fixed(centre + thing.top * (points - centre)), 1.0, shift=_SHIFT)
    return canvas


def _color(rng: np.random.Generator, hue: float, tone: tuple[tuple[float, float], ...]) -> Array:
    """A random colour of a hue in turns: `[3, 1, 1]` RGB in grey levels."""
    saturation, value = (rng.uniform(*limits) for limits in tone)
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)[:, None, None] * 255


def _lay(picture: Array, over: Array, cover: Array) -> None:
    """Blend a picture or a colour over another, in place."""
    picture += (over - picture) * cover
