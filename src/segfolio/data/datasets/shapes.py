"""Shapes: drawn landscapes with exact semantic, instance and panoptic truth. No files, no licence, no waiting."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.dataset import DatasetInfo, SegmentationDataset
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Segments, Size, Target, to_image
from segfolio.errors import SegfolioError

Array = npt.NDArray[np.float32]

_SPLITS = ("train", "val", "test")
_STUFF = ("sky", "water", "grass", "sand")
_THINGS = {  # tips, and the radius between two tips as a share of the radius at a tip
    "circle": (24, np.cos(np.pi / 24)),
    "square": (4, np.cos(np.pi / 4)),
    "triangle": (3, np.cos(np.pi / 3)),
    "star": (5, 0.48),
}
_BITS = 4  # of a vertex, below the pixel


class Shapes(SegmentationDataset):
    """Layers of textured stuff with shapes on them, drawn when they are read.

    Sample `i` is a function of `(seed, split, i, size)`. All classes share one range of colours, so that
    texture and outline tell them apart; shapes of all classes have the same areas, and hide one another.
    `Target.segments` holds the visible part of every shape.

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
        tasks=("semantic", "instance", "panoptic"),
        layout="no files",
    )
    labels = LabelSpace(
        names=(*_STUFF, *_THINGS),
        things=tuple(_THINGS),
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
        self.split, self.size, self.seed = split, size, seed
        self.length = {"train": train, "val": val, "test": test}[split]

    def __len__(self) -> int:
        return self.length

    def read(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, _SPLITS.index(self.split), index])
        picture, semantic = _landscape(rng, self.size)
        segments = _add_things(rng, picture, semantic)
        picture *= rng.uniform(0.75, 1.1)  # time of day
        picture += rng.standard_normal(picture.shape, np.float32) * 6
        image = to_image(np.clip(picture, 0, 255).astype(np.uint8))
        return Sample(image, f"{self.split}_{index:05d}", self.size, Target(Mask(torch.from_numpy(semantic)), segments))


def _landscape(rng: np.random.Generator, size: Size) -> tuple[Array, npt.NDArray[np.uint8]]:
    """The layers of stuff, sky on top: picture `[H, W, 3]` and class indices `[H, W]`."""
    (h, w), scale = size, min(size) / 96
    y, x = np.mgrid[:h, :w].astype(np.float32)
    below = rng.permutation([1, 2, 3])[: rng.integers(1, 4)]
    hue = rng.random()
    picture = _color(rng, hue) + _texture(rng, 0, y, x)[..., None]
    semantic = np.zeros(size, np.uint8)
    edges = np.linspace(0.36 if len(below) > 1 else 0.45, 1, len(below) + 1)[:-1]
    for stuff, edge in zip(below.tolist(), edges, strict=True):
        hue += rng.uniform(0.08, 0.25)
        a, b = rng.uniform(0, 2 * np.pi, 2)
        line = h * (edge + rng.uniform(-0.08, 0.08)) + scale * (
            5 * np.sin(x[0] / (17 * scale) + a) + 2 * np.sin(x[0] / (7 * scale) + b)
        )
        _lay(picture, _color(rng, hue) + _texture(rng, stuff, y, x)[..., None], np.clip(y - line + 0.5, 0, 1))
        semantic[y >= line] = stuff
    return picture, semantic


def _texture(rng: np.random.Generator, stuff: int, y: Array, x: Array) -> Array:
    """What makes `_STUFF[stuff]` look as it does, `[H, W]` around 0 in units of the 256 grey levels."""
    a, b = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
    if stuff == 0:
        return (y / len(y) - 0.3) * 60
    if stuff == 1:
        return 22 * np.sin(y * 1.15 + 1.6 * np.sin(x / 5 + a) + b)
    if stuff == 2:
        return 22 * np.sin(x * 1.7 + 1.2 * np.sin(y / 4 + a) + 2.5 * np.sin(x / 9 + b))
    return 90 * cv2.GaussianBlur(rng.standard_normal(y.shape, np.float32), (0, 0), 1.1)


def _add_things(rng: np.random.Generator, picture: Array, semantic: npt.NDArray[np.uint8]) -> Segments:
    """Draw shapes over a landscape, in place, and return what is visible of each."""
    h, w = semantic.shape
    masks = np.zeros((0, h, w), bool)
    labels: list[int] = []
    for _ in range(rng.choice([0, 2, 3, 4, 5, 6, 7])):
        kind = int(rng.integers(len(_THINGS)))
        points = _outline(rng, kind, min(h, w) * rng.uniform(0.08, 0.17)) + rng.uniform(0.08, 0.92, 2) * (w, h)
        cover = _fill(points, (h, w))
        mask = cover >= 0.5
        if not mask.any() or ((masks & mask).sum((1, 2)) > 0.5 * masks.sum((1, 2))).any():
            continue  # outside, or it would hide most of another
        shadow = cv2.GaussianBlur(_fill(points + (1.5, 2.5), (h, w)), (0, 0), 2)
        picture *= 1 - 0.45 * shadow[..., None]
        _lay(picture, _color(rng, rng.random(), vivid=True), cover)
        semantic[mask] = len(_STUFF) + kind
        masks = np.concatenate([masks & ~mask, mask[None]])
        labels.append(len(_STUFF) + kind)
    return Segments(
        Mask(torch.from_numpy(masks)), torch.tensor(labels, dtype=torch.int64), torch.zeros(len(labels), dtype=torch.bool)
    )


def _outline(rng: np.random.Generator, kind: int, radius: float) -> npt.NDArray[np.float64]:
    """Vertices `[N, 2]` around 0 of a shape with the area of a circle of `radius`, turned at random."""
    tips, inner = list(_THINGS.values())[kind]
    angles = rng.uniform(0, 2 * np.pi) + np.arange(2 * tips) * np.pi / tips
    radii = np.where(np.arange(2 * tips) % 2, inner, 1) * np.sqrt(np.pi / (tips * inner * np.sin(np.pi / tips))) * radius
    return np.stack([np.cos(angles), np.sin(angles)], -1) * radii[:, None]


def _fill(points: npt.NDArray[np.float64], size: Size) -> Array:
    """How much of each pixel a polygon covers, `[H, W]` in [0, 1]."""
    canvas = np.zeros(size, np.uint8)
    vertices = np.round(points * 2**_BITS).astype(np.int32)
    cv2.fillPoly(canvas, [vertices], 255, cv2.LINE_AA, _BITS)
    return canvas.astype(np.float32) / 255


def _color(rng: np.random.Generator, hue: float, vivid: bool = False) -> Array:
    """A random RGB colour of a hue in turns, `[3]` in [0, 255]."""
    saturation, value = (rng.uniform(0.45, 0.9), rng.uniform(0.6, 1)) if vivid else (rng.uniform(0.25, 0.6), rng.uniform(0.55, 0.9))
    hsv = np.array([[[hue % 1 * 360, saturation, value]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255


def _lay(picture: Array, over: Array, cover: Array) -> None:
    """Blend a picture or colour over another, in place."""
    picture += (over - picture) * cover[..., None]
