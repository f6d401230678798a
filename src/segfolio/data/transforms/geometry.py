"""Where pixels go: windows, sizes, deformations. Images are interpolated, label maps take the nearest pixel.

Pixel centres lie at half-integers throughout, so that images and label maps stay aligned at every scale.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.interpolate import CubicSpline
from torchvision.tv_tensors import Mask

from segfolio.data.sample import Sample, Segments, Size, Target, to_image, to_pixels
from segfolio.errors import SegfolioError

Array = npt.NDArray[Any]


class RandomWindow:
    """Random scale, rotation, crop and flips in one warp: only the chosen window is resized.

    The window lies at any position inside the scaled image with equal probability; where the scaled image is
    smaller than `size`, the image lies at any position inside the window instead. Outside of the image,
    pixels have the image's mean colour, `ignore_index` and no segment.

    Args:
        size: height and width of the result; the whole scaled image if not given.
        scale: range of the scale factor, drawn uniformly.
        short_side: scale factors are relative to the image resized to this short side, in pixels;
            relative to the image as it is if not given.
        hflip: probability of a horizontal flip.
        vflip: probability of a vertical flip.
        rotation: the largest angle in degrees, either way, about the window's centre.

    Raises:
        SegfolioError: an argument outside its range.
    """

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        scale: tuple[float, float] = (1.0, 1.0),
        short_side: int | None = None,
        hflip: float = 0.0,
        vflip: float = 0.0,
        rotation: float = 0.0,
    ) -> None:
        if not 0 < scale[0] <= scale[1]:
            raise SegfolioError(
                f"RandomWindow: scale is {scale}; give the lower and the upper factor, both above 0"
            )
        if not (0 <= hflip <= 1 and 0 <= vflip <= 1):
            raise SegfolioError(
                f"RandomWindow: hflip {hflip}, vflip {vflip}; a probability lies between 0 and 1"
            )
        if min((*(size or ()), short_side or 1)) < 1:
            raise SegfolioError(f"RandomWindow: size {size}, short_side {short_side}; give at least 1 pixel")
        self.size, self.scale, self.short_side = size, scale, short_side
        self.hflip, self.vflip, self.rotation = hflip, vflip, rotation

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        pixels = to_pixels(sample.image)
        height, width = pixels.shape[:2]
        scale = rng.uniform(*self.scale) * (self.short_side / min(height, width) if self.short_side else 1.0)
        size = self.size or (scaled(height, scale), scaled(width, scale))
        window = _Window(
            rows=_Span.draw(height, size[0], scale, rng),
            columns=_Span.draw(width, size[1], scale, rng),
            angle=rng.uniform(-self.rotation, self.rotation),
            hflip=rng.random() < self.hflip,
            vflip=rng.random() < self.vflip,
        )
        return _moved(sample, window.image(pixels), window.labels)


class Resize:
    """A deterministic size, for evaluation images and for training.

    Args:
        size: height and width, or the short side alone, which keeps the aspect ratio.
        max_size: the long side is no longer than this; for a short side alone.
        divisor: both sides are rounded up to a multiple of it (32: SegFormer, 2105.15203, released code).

    Raises:
        SegfolioError: a size below 1, `max_size` beside a height and a width.
    """

    def __init__(self, size: int | tuple[int, int], max_size: int | None = None, divisor: int = 1) -> None:
        if min(*(size if isinstance(size, tuple) else (size, size)), max_size or 1, divisor) < 1:
            raise SegfolioError(
                f"Resize: size {size}, max_size {max_size}, divisor {divisor}; give at least 1 pixel"
            )
        if max_size and isinstance(size, tuple):
            raise SegfolioError(
                "Resize: max_size limits the long side of a short side; leave one of the two out"
            )
        self.size, self.max_size, self.divisor = size, max_size, divisor

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        pixels = to_pixels(sample.image)
        height, width = self.result(pixels.shape[0], pixels.shape[1])

        def labels(plane: Array, fill: int) -> Array:
            return cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)

        return _moved(sample, resize(pixels, (height, width)), labels)

    def result(self, height: int, width: int) -> Size:
        """Height and width of the result of an image of this height and width."""
        if isinstance(self.size, tuple):
            height, width = self.size
        else:
            scale = self.size / min(height, width)
            if self.max_size:
                scale = min(scale, self.max_size / max(height, width))
            height, width = scaled(height, scale), scaled(width, scale)
        return math.ceil(height / self.divisor) * self.divisor, math.ceil(width / self.divisor) * self.divisor


class ElasticDeformation:
    """Smooth random displacements (U-Net, 1505.04597, section 3.1), mirrored at the border.

    The displacement of `grid` x `grid` nodes, the outer ones on the image's border, is Gaussian; between them
    a bicubic spline runs. Segments that vanish are dropped.

    Args:
        grid: nodes along each axis, at least 2.
        sigma: standard deviation of a node's displacement along each axis, in pixels.
    """

    def __init__(self, grid: int = 3, sigma: float = 10.0) -> None:
        if grid < 2 or sigma < 0:
            raise SegfolioError(
                f"ElasticDeformation: grid {grid}, sigma {sigma}; give at least 2 nodes, 0 pixels"
            )
        self.grid, self.sigma = grid, sigma

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        pixels = to_pixels(sample.image)
        height, width = pixels.shape[:2]
        nodes = rng.normal(0.0, self.sigma, (2, self.grid, self.grid))
        dy, dx = _spline(height, self.grid) @ nodes @ _spline(width, self.grid).T
        y = (np.arange(height)[:, None] + dy).astype(np.float32)
        x = (np.arange(width) + dx).astype(np.float32)

        def warp(plane: Array, interpolation: int) -> Array:
            return cv2.remap(plane, x, y, interpolation, borderMode=cv2.BORDER_REFLECT_101)

        return _moved(sample, warp(pixels, cv2.INTER_LINEAR), lambda plane, _: warp(plane, cv2.INTER_NEAREST))


def scaled(length: int, factor: float) -> int:
    """`length * factor`, rounded, at least 1 pixel."""
    return max(1, math.floor(length * factor + 0.5))


def resize(pixels: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """`[H, W, C]` to `[h, w, C]`, bilinear and antialiased: torchvision's `resize` to the bit."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return F.interpolate(tensor, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()


def present(segments: Segments) -> Segments:
    """Without those that have no pixel left."""
    keep = segments.masks.flatten(1).any(1)
    return Segments(Mask(segments.masks[keep]), segments.labels[keep], segments.crowd[keep])


class _Span(NamedTuple):
    """Along one axis, pixels `start` to `stop` of the source become `first` to `last` of `size` pixels."""

    start: int
    stop: int
    first: int
    last: int
    size: int

    @classmethod
    def draw(cls, length: int, size: int, scale: float, rng: np.random.Generator) -> "_Span":
        whole = scaled(length, scale)
        if whole <= size:
            first = int(rng.integers(size - whole + 1))
            return cls(0, length, first, first + whole, size)
        extent = min(length, scaled(size, 1 / scale))
        start = int(rng.integers(length - extent + 1))
        return cls(start, start + extent, 0, size, size)

    @property
    def factor(self) -> float:
        return (self.last - self.first) / (self.stop - self.start)

    @property
    def offset(self) -> float:
        return self.first - self.start * self.factor


@dataclass(frozen=True)
class _Window:
    """One drawn window; the same geometry for the image and for its label maps."""

    rows: _Span
    columns: _Span
    angle: float
    hflip: bool
    vflip: bool

    def image(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if self.angle:
            # warpAffine does not antialias: what shrinks is shrunk first
            height, width = pixels.shape[:2]
            factors = (min(1.0, self.rows.factor), min(1.0, self.columns.factor))
            pixels = resize(pixels, (scaled(height, factors[0]), scaled(width, factors[1])))
            return self._warp(pixels, cv2.INTER_LINEAR, cv2.mean(pixels), (height, width))
        part = resize(
            self._source(pixels), (self.rows.last - self.rows.first, self.columns.last - self.columns.first)
        )
        return self._place(part, cv2.mean(part))

    def labels(self, plane: Array, fill: int) -> Array:
        if self.angle:
            return self._warp(plane, cv2.INTER_NEAREST, fill, plane.shape)
        size = (self.columns.last - self.columns.first, self.rows.last - self.rows.first)
        return self._place(cv2.resize(self._source(plane), size, interpolation=cv2.INTER_NEAREST_EXACT), fill)

    def _source(self, pixels: Array) -> Array:
        return pixels[self.rows.start : self.rows.stop, self.columns.start : self.columns.stop]

    def _place(self, part: Array, fill: Any) -> Array:
        """The resized part into the window."""
        (*_, top, last_row, height), (*_, left, last_column, width) = self.rows, self.columns
        if part.shape[:2] != (height, width):
            margins = (top, height - last_row, left, width - last_column)
            part = cv2.copyMakeBorder(part, *margins, cv2.BORDER_CONSTANT, value=fill)
        return self._flip(part)

    def _warp(self, pixels: Array, interpolation: int, fill: Any, source: Size) -> Array:
        """Rotate a map into the window; `source` is the size of which `pixels` is a reduction."""
        fy, fx = (
            self.rows.factor * source[0] / pixels.shape[0],
            self.columns.factor * source[1] / pixels.shape[1],
        )
        # OpenCV's coordinates have the centre of pixel 0 at 0
        x, y = self.columns.offset + (fx - 1) / 2, self.rows.offset + (fy - 1) / 2
        size = (self.columns.size, self.rows.size)
        rotation = cv2.getRotationMatrix2D(((size[0] - 1) / 2, (size[1] - 1) / 2), self.angle, 1.0)
        matrix = rotation @ np.array([[fx, 0, x], [0, fy, y], [0, 0, 1]])
        return self._flip(
            cv2.warpAffine(
                pixels, matrix, size, flags=interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
            )
        )

    def _flip(self, pixels: Array) -> Array:
        if not (self.hflip or self.vflip):
            return pixels
        return cv2.flip(pixels, -1 if self.hflip and self.vflip else int(self.hflip))


@lru_cache(maxsize=64)
def _spline(length: int, nodes: int) -> npt.NDArray[np.float64]:
    """`[length, nodes]`: values at the nodes to the natural cubic spline through them, at every pixel."""
    return CubicSpline(np.linspace(0, length - 1, nodes), np.eye(nodes), bc_type="natural")(np.arange(length))


def _moved(sample: Sample, image: Array, labels: Callable[[Array, int], Array]) -> Sample:
    """The sample with a new image, and each map of its target sent through `labels(map, fill)`."""

    def plane(mask: Mask, fill: int) -> Mask:
        return Mask(torch.from_numpy(labels(mask.numpy(), fill)))

    target = sample.target
    if target is not None:
        target = Target(
            semantic=None if target.semantic is None else plane(target.semantic, target.ignore_index),
            segments=None
            if target.segments is None
            else _moved_segments(target.segments, labels, image.shape[:2]),
            weight=None if target.weight is None else plane(target.weight, 0),
            ignore_index=target.ignore_index,
        )
    return replace(sample, image=to_image(image), target=target)


def _moved_segments(segments: Segments, labels: Callable[[Array, int], Array], size: Size) -> Segments:
    masks = [labels(mask, 0) for mask in segments.masks.numpy().view(np.uint8)]
    stacked = np.array(masks, np.uint8).reshape(-1, *size).view(np.bool_)
    return present(replace(segments, masks=Mask(torch.from_numpy(stacked))))
