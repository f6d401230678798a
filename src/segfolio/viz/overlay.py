"""Maps of classes and of regions as colours: on their own, over the image, and against the truth."""

import cv2
import numpy as np
import numpy.typing as npt

from segfolio.data.image_space import RGB, ImageSpace
from segfolio.data.labels import Color, LabelSpace
from segfolio.data.sample import Batch, to_pixels

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

VOID: Color = (150, 150, 150)
HATCH: Color = (215, 215, 215)
WRONG: Color = (230, 25, 45)
IGNORED = -1
"""The number of a region that does not count."""


def rgb(image: Pixels) -> Pixels:
    """`[H, W, C]` to `[H, W, 3]`: the first three channels, or the first as grey where there are fewer."""
    return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)


def at_original_size(batch: Batch, index: int, space: ImageSpace = RGB) -> Pixels:
    """One image of a batch for the eye, `[H, W, 3]` at the size it has on disk, whatever size the network saw."""
    height, width = batch.sizes[index]
    pixels = to_pixels(space.picture(batch.images[index, :, :height, :width]).cpu())
    height, width = batch.original_sizes[index]
    return fit(pixels, (width, height))


def fit(image: Pixels, size: tuple[int, int]) -> Pixels:
    """`[H, W, 3]` resized to (width, height): by area when it shrinks, linearly when it grows."""
    if image.shape[1::-1] == size:
        return image
    shrinks = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def fit_map(indices: Indices | Bools, size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """`[H, W]` indices resized to (width, height), each pixel that of the nearest one."""
    return cv2.resize(indices.astype(np.int32), size, interpolation=cv2.INTER_NEAREST_EXACT)


def overlay(image: Pixels, indices: Indices, labels: LabelSpace, alpha: float = 0.5, contours: bool = True) -> Pixels:
    """Classes drawn over the image.

    Args:
        image: `[H, W, C]` RGB or grey.
        indices: `[H, W]` class indices; ignored pixels are hatched in grey.
        alpha: opacity of the classes, 1 hides the image.
        contours: draw each class's border, one pixel wide and opaque, inside the class.

    Returns:
        `[H, W, 3]`.
    """
    return paint(image, class_regions(indices, labels), np.array(labels.palette, np.uint8), alpha, int(contours))


def class_regions(indices: Indices, labels: LabelSpace) -> npt.NDArray[np.int32]:
    """`[H, W]` class indices as `paint` numbers regions."""
    return np.where(indices == labels.ignore_index, IGNORED, indices.astype(np.int32) + 1)


def paint(image: Pixels, regions: Indices, colors: Pixels, alpha: float = 0.5, contours: int = 1) -> Pixels:
    """Regions filled and outlined over the image.

    Args:
        image: `[H, W, C]` RGB or grey.
        regions: `[H, W]`, 1 to N, 0 where the image is left as it is, `IGNORED` where it is hatched.
        colors: `[N, 3]`.
        alpha: opacity of the fill.
        contours: width of each region's border in pixels, which is opaque and inside the region.

    Returns:
        `[H, W, 3]`.
    """
    shown, none = rgb(image), np.zeros((1, 3), np.uint8)
    filled = np.concatenate([none, colors, none])[regions]  # the last for `IGNORED`
    mixed = np.where((regions > 0)[..., None], blend(shown, filled, alpha), shown)
    if contours:
        wide = cv2.dilate(borders(regions).view(np.uint8), None, iterations=contours - 1) > 0
        border = wide & (regions > 0)
        mixed[border] = filled[border]
    return _hatch(mixed, regions == IGNORED)


def error_map(image: Pixels, wrong: Bools, ignored: Bools) -> Pixels:
    """Where the prediction is wrong: red (`WRONG`) over the faded grey image, ignored pixels hatched.

    One colour for every kind of error: which classes were mixed up is read from truth and prediction,
    and no palette can hide an error.

    Args:
        image: `[H, W, C]` RGB or grey.
        wrong, ignored: `[H, W]`.

    Returns:
        `[H, W, 3]`.
    """
    grey = rgb(image).mean(axis=-1, keepdims=True)
    faded = blend(np.repeat(grey, 3, axis=-1), 255, 0.45)
    faded[wrong] = WRONG
    return _hatch(faded, ignored)


def hatching(height: int, width: int) -> Pixels:
    """`[H, W, 3]`, how ignored pixels look: light diagonal lines on `VOID`."""
    lines = np.add.outer(np.arange(height), np.arange(width)) % 6 < 2
    return np.where(lines[..., None], np.array(HATCH, np.uint8), np.array(VOID, np.uint8))


def _hatch(image: Pixels, where: Bools) -> Pixels:
    if where.any():  # of videos it is every frame's time
        image[where] = hatching(*where.shape)[where]
    return image


def blend(image: npt.NDArray[np.number], colors: npt.NDArray[np.number] | int, alpha: float) -> Pixels:
    """Colours of opacity `alpha` over an image, in any shape that they share."""
    return np.rint(image * np.float32(1 - alpha) + colors * np.float32(alpha)).astype(np.uint8)


def borders(indices: Indices) -> Bools:
    """Pixels that differ from the one above, below, left or right."""
    border = np.zeros(indices.shape, bool)
    down, right = indices[1:] != indices[:-1], indices[:, 1:] != indices[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border
