"""The window of the image that training sees."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from segfolio.data.formats.rle import Indices
from segfolio.data.sample import Sample, to_pixels
from segfolio.data.transforms.base import check_probability
from segfolio.data.transforms.geometry import (
    Array,
    Grid,
    by_four,
    moved,
    nearest,
    resize,
    resize_labels,
    scaled,
    touching,
)
from segfolio.errors import SegfolioError


class RandomWindow:
    """Random scale, rotation, crop and flips in one warp: only the chosen window is resized.

    The window lies at any position inside the scaled image with equal probability; where the scaled image is
    smaller than `size`, the image lies at any position inside the window instead. Pixels outside of the image
    have its mean colour, `ignore_index` and no segment.

    Args:
        size: height and width of the result; the whole scaled image if not given.
        scale: range of the scale factor, drawn uniformly.
        short_side: scale factors are relative to the image resized to this short side, in pixels.
        long_side: likewise, to this long side; relative to the image as it is if neither is given.
        hflip: probability of a horizontal flip.
        vflip: probability of a vertical flip.
        rotation: the largest angle in degrees, either way, about the window's centre.
        rotation_probability: of a rotation.

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
        long_side: int | None = None,
        rotation_probability: float = 1.0,
    ) -> None:
        if not 0 < scale[0] <= scale[1]:
            raise SegfolioError(f"RandomWindow: scale is {scale}; give the lower and the upper factor, both above 0")
        check_probability(self, hflip=hflip, vflip=vflip, rotation_probability=rotation_probability)
        if short_side and long_side:
            raise SegfolioError(f"RandomWindow: short_side {short_side}, long_side {long_side}; leave one of them out")
        if min((*(size or ()), short_side or 1, long_side or 1)) < 1:
            sides = f"size {size}, short_side {short_side}, long_side {long_side}"
            raise SegfolioError(f"RandomWindow: {sides}; give at least 1 pixel")
        self.size, self.scale, self.short_side, self.long_side = size, scale, short_side, long_side
        self.hflip, self.vflip = hflip, vflip
        self.rotation, self.rotation_probability = rotation, rotation_probability

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        pixels = to_pixels(sample.image)
        height, width = pixels.shape[:2]
        scale = rng.uniform(*self.scale)
        if self.short_side:
            scale *= self.short_side / min(height, width)
        if self.long_side:
            scale *= self.long_side / max(height, width)
        size = self.size or (scaled(height, scale), scaled(width, scale))
        window = _Window(
            rows=_Span.draw(height, size[0], scale, rng),
            columns=_Span.draw(width, size[1], scale, rng),
            angle=rng.uniform(-self.rotation, self.rotation),
            hflip=rng.random() < self.hflip,
            vflip=rng.random() < self.vflip,
        )
        if self.rotation_probability < 1 and rng.random() >= self.rotation_probability:
            window = replace(window, angle=0.0)
        return moved(touching(sample, *window.source()), window.image(pixels), window.labels, window.grid)


class _Span(NamedTuple):
    """Along an axis of `source` pixels, `extent` from `start` become `length` from `first` on, of `size`."""

    source: int
    start: int
    extent: int
    first: int
    length: int
    size: int

    @classmethod
    def draw(cls, source: int, size: int, scale: float, rng: np.random.Generator) -> "_Span":
        length = scaled(source, scale)
        if length <= size:
            return cls(source, 0, source, int(rng.integers(size - length + 1)), length, size)
        extent = min(source, scaled(size, 1 / scale))
        return cls(source, int(rng.integers(source - extent + 1)), extent, 0, size, size)

    @property
    def scale(self) -> float:
        return self.length / self.extent

    def indices(self, flip: bool) -> Indices:
        """`[size]`: the source pixel of each pixel; -1 before and `source` behind the image."""
        inside = self.start + nearest(self.extent, self.length)
        indices = np.pad(inside, (self.first, 0), constant_values=-1)
        indices = np.pad(indices, (0, self.size - len(indices)), constant_values=self.source)
        return indices[::-1] if flip else indices

    def affine(self, pixels: int) -> tuple[float, float]:
        """Factor and offset of pixel indices, for an image that has this axis in so many pixels."""
        factor = self.scale * self.source / pixels
        return factor, self.first - self.start * self.scale + (factor - 1) / 2


@dataclass(frozen=True)
class _Window:
    """One drawn window; the same geometry for the image and for its label maps."""

    rows: _Span
    columns: _Span
    angle: float
    hflip: bool
    vflip: bool

    def image(self, pixels: Array) -> Array:
        if self.angle:  # warpAffine does not antialias: what shrinks is shrunk first
            height, width = (scaled(s.source, min(1.0, s.scale)) for s in (self.rows, self.columns))
            return self._warp(resize(pixels, (height, width)), cv2.INTER_LINEAR)
        return self._place(resize(self._source(pixels), (self.rows.length, self.columns.length)))

    def source(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and last + 1 of the source's rows and columns that the window shows, or some more."""
        if not self.angle:
            (_, y, height, *_), (_, x, width, *_) = self.rows, self.columns
            return (y, y + height), (x, x + width)
        back = cv2.invertAffineTransform(self._matrix(self.rows.source, self.columns.source))
        corners = back @ [[0, 0, self.columns.size, self.columns.size], [0, self.rows.size] * 2, [1] * 4]
        (left, top), (right, bottom) = np.floor(corners.min(1)) - 1, np.ceil(corners.max(1)) + 2
        return (int(top), int(bottom)), (int(left), int(right))

    def grid(self) -> Grid | None:
        """The rows and columns that `labels` takes, if it does not rotate."""
        return None if self.angle else (self.rows.indices(self.vflip), self.columns.indices(self.hflip))

    def labels(self, plane: Array, fill: int) -> Array:
        if self.angle:
            return self._warp(plane, cv2.INTER_NEAREST, fill)
        return self._place(resize_labels(self._source(plane), (self.rows.length, self.columns.length)), fill)

    def _source(self, pixels: Array) -> Array:
        (_, y, height, *_), (_, x, width, *_) = self.rows, self.columns
        return pixels[y : y + height, x : x + width]

    def _place(self, part: Array, fill: int | None = None) -> Array:
        """The resized part into the window; around it `fill`, or its mean colour."""
        top, left = self.rows.first, self.columns.first
        bottom, right = (s.size - s.first - s.length for s in (self.rows, self.columns))
        if top or bottom or left or right:

            def bordered(part: Array) -> Array:
                color = cv2.mean(part) if fill is None else fill
                return cv2.copyMakeBorder(part, top, bottom, left, right, cv2.BORDER_CONSTANT, value=color)

            part = by_four(part, bordered)
        return self._flip(part)

    def _warp(self, pixels: Array, interpolation: int, fill: int | None = None) -> Array:
        """The whole image or map, or a reduction of it, rotated into the window."""
        matrix, size = self._matrix(*pixels.shape[:2]), (self.columns.size, self.rows.size)

        def warped(part: Array) -> Array:
            color = cv2.mean(part) if fill is None else fill
            return cv2.warpAffine(part, matrix, size, None, interpolation, cv2.BORDER_CONSTANT, color)

        return self._flip(by_four(pixels, warped))

    def _matrix(self, height: int, width: int) -> Array:
        """`[2, 3]`: places in an image of this height and width to places in the window, before flips."""
        (fy, y), (fx, x) = self.rows.affine(height), self.columns.affine(width)
        centre = ((self.columns.size - 1) / 2, (self.rows.size - 1) / 2)
        return cv2.getRotationMatrix2D(centre, self.angle, 1.0) @ np.array([[fx, 0, x], [0, fy, y], [0, 0, 1]])

    def _flip(self, pixels: Array) -> Array:
        if not (self.hflip or self.vflip):
            return pixels
        return cv2.flip(pixels, -1 if self.hflip and self.vflip else int(self.hflip))
