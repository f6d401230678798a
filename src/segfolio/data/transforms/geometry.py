"""Where pixels go: sizes and deformations. Images are interpolated, label maps take the nearest pixel.

Pixel centres lie at half-integers throughout, so that images and label maps stay aligned at every scale.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.interpolate import CubicSpline
from torchvision.tv_tensors import Mask

from segfolio.data.formats import rle
from segfolio.data.formats.panoptic import runs
from segfolio.data.sample import Sample, Size, Target, to_image, to_pixels
from segfolio.data.segments import Segments, is_id_map
from segfolio.errors import SegfolioError

Array = npt.NDArray[Any]
Grid = tuple[rle.Indices, rle.Indices]


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
            raise SegfolioError(f"Resize: size {size}, max_size {max_size}, divisor {divisor}; give at least 1 pixel")
        if max_size and isinstance(size, tuple):
            raise SegfolioError("Resize: max_size limits the long side of a short side; leave one of the two out")
        self.size, self.max_size, self.divisor = size, max_size, divisor

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        pixels = to_pixels(sample.image)
        size = self.result(pixels.shape[0], pixels.shape[1])

        def grid() -> Grid:
            return nearest(pixels.shape[0], size[0]), nearest(pixels.shape[1], size[1])

        return moved(sample, resize(pixels, size), lambda plane, _: resize_labels(plane, size), grid)

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


class ResizeShortest:
    """Training at several scales: the short side is drawn from a list.

    Args:
        sizes: in pixels, all with equal probability (640 to 800 in steps of 32: detectron2's Mask R-CNN baselines).
        max_size: the long side is no longer than this.

    Raises:
        SegfolioError: no size, a size below 1.
    """

    def __init__(self, sizes: Sequence[int], max_size: int | None = None) -> None:
        if not sizes:
            raise SegfolioError("ResizeShortest: sizes is empty; give at least one short side in pixels")
        self.choices = [Resize(size, max_size) for size in sizes]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return self.choices[rng.integers(len(self.choices))](sample, rng)


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
            raise SegfolioError(f"ElasticDeformation: grid {grid}, sigma {sigma}; give at least 2 nodes, 0 pixels")
        self.grid, self.sigma = grid, sigma

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        pixels = to_pixels(sample.image)
        height, width = pixels.shape[:2]
        nodes = rng.normal(0.0, self.sigma, (2, self.grid, self.grid)).astype(np.float32)
        # not a matrix product: BLAS would start threads of its own in every loader process
        dy, dx = np.einsum("kyj,jx->kyx", _spline(height, self.grid).T @ nodes, _spline(width, self.grid))
        y, x = dy + np.arange(height, dtype=np.float32)[:, None], dx + np.arange(width, dtype=np.float32)

        def warp(plane: Array, interpolation: int) -> Array:
            return by_four(plane, lambda p: cv2.remap(p, x, y, interpolation, borderMode=cv2.BORDER_REFLECT_101))

        return moved(sample, warp(pixels, cv2.INTER_LINEAR), lambda plane, _: warp(plane, cv2.INTER_NEAREST))


def scaled(length: int, factor: float) -> int:
    """`length * factor`, rounded, at least 1 pixel."""
    return max(1, math.floor(length * factor + 0.5))


def resize(pixels: Array, size: Size) -> Array:
    """`[H, W, C]` to `[h, w, C]`, bilinear and antialiased: torchvision's `resize` to the bit."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    tensor = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # in this order torch sees channels_last
    if wide := tensor.dtype == torch.uint16:  # which torch does not interpolate
        tensor = tensor.float()
    resized = F.interpolate(tensor, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    return (resized.round().to(torch.uint16) if wide else resized).numpy()


def by_four(pixels: Array, change: Callable[[Array], Array]) -> Array:
    """`change` of `[H, W, C]`, four, three or one channels at a time.

    Of more OpenCV has neither means nor border colours, and two it interpolates more coarsely.
    """
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels in (1, 3, 4):
        return change(pixels)
    ends = [*range(4, channels, 4), *([channels - 1] if channels % 4 == 2 else [])]
    return np.dstack([change(part) for part in map(np.ascontiguousarray, np.split(pixels, ends, 2))])


def resize_labels(plane: Array, size: Size) -> Array:
    """`[H, W]` to `[h, w]`, the pixel whose centre is nearest."""
    return plane if plane.shape == size else cv2.resize(plane, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def nearest(length: int, result: int) -> rle.Indices:
    """`[result]`: which of `length` pixels `resize_labels` takes along an axis."""
    return resize_labels(np.arange(length, dtype=np.int32)[None], (1, result))[0]


def present(segments: Segments) -> Segments:
    """Without those that have no pixel left."""
    if is_id_map(segments.form):
        ids = segments.form.numpy()
        keep = torch.from_numpy(np.bincount(ids.reshape(-1)[runs(ids)[0]], minlength=len(segments) + 1)[1:] > 0)
    else:
        masks = segments.masks
        segments, keep = replace(segments, form=masks), torch.from_numpy(masks.numpy().any((1, 2)))
    return segments if keep.all() else segments[keep]


def touching(sample: Sample, rows: tuple[int, int], columns: tuple[int, int]) -> Sample:
    """The sample without the segments whose boxes lie outside `rows` and `columns` (first, last + 1).

    Only of run lengths boxes are known; others stay.
    """
    target = sample.target
    if target is None or target.segments is None or not isinstance(target.segments.form, list):
        return sample
    x, y, width, height = rle.boxes(target.segments.form).T
    keep = (x < columns[1]) & (x + width > columns[0]) & (y < rows[1]) & (y + height > rows[0])
    segments = target.segments if keep.all() else target.segments[torch.from_numpy(keep)]
    return replace(sample, target=replace(target, segments=segments))


def moved(
    sample: Sample, image: Array, labels: Callable[[Array, int], Array], grid: Callable[[], Grid | None] = lambda: None
) -> Sample:
    """The sample with a new image, and each `[H, W]` map of its target sent through `labels(map, fill)`.

    Args:
        grid: says which rows and columns `labels` takes, where it does no more than that (see `rle.decode_window`):
            run lengths are then decoded there alone.

    Raises:
        SegfolioError: a sample with prompts.
    """
    height, width = image.shape[:2]
    return replace(sample, image=to_image(image), target=moved_target(sample, (height, width), labels, grid))


def moved_target(
    sample: Sample, size: Size, labels: Callable[[Array, int], Array], grid: Callable[[], Grid | None] = lambda: None
) -> Target | None:
    """What `moved` makes of the target of a sample whose image gets this `size`."""
    expect_no_prompts(sample)
    target = sample.target
    if target is None:
        return None

    def plane(mask: Mask | None, fill: int) -> Mask | None:
        return None if mask is None else Mask(torch.from_numpy(labels(mask.numpy(), fill)))

    segments = target.segments
    if segments is not None:
        if isinstance(segments.form, list) and (taken := grid()):
            form = rle.decode_window(segments.form, segments.size, *taken)
        elif is_id_map(segments.form) and segments.form.ndim == 2 and len(segments) <= 0xFFFF:
            ids = segments.form.numpy()
            small = ids.dtype == np.uint8  # int32 is rotated with another rounding than 8 and 16 bits
            form = labels(ids, 0) if small else labels(ids.astype(np.uint16), 0).astype(np.int32)
        else:
            planes = [labels(mask, 0) for mask in segments.masks.numpy().view(np.uint8)]
            form = np.array(planes, np.uint8).reshape(-1, *size).view(np.bool_)
        segments = present(segments.with_masks(Mask(torch.from_numpy(form))))
    semantic = plane(target.semantic, target.ignore_index)
    return replace(target, semantic=semantic, segments=segments, weight=plane(target.weight, 0))


def expect_no_prompts(sample: Sample) -> None:
    """Raise a `SegfolioError` of a sample whose prompts a transform would leave behind."""
    if sample.prompts is not None:
        raise SegfolioError(
            f"{sample.image_id} has prompts, which transforms do not move; make them in the family's `preparation`, "
            "which comes after the transforms"
        )


@lru_cache(maxsize=64)
def _spline(length: int, nodes: int) -> npt.NDArray[np.float32]:
    """`[nodes, length]`: values at the nodes to the natural cubic spline through them, at every pixel."""
    spline = CubicSpline(np.linspace(0, length - 1, nodes), np.eye(nodes), axis=1, bc_type="natural")
    return spline(np.arange(length)).astype(np.float32)
