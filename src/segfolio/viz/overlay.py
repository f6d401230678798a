"""Label maps as colours: on their own, over the image, and against the truth."""

import cv2
import numpy as np
import numpy.typing as npt

from segfolio.data.labels import Color, LabelSpace
from segfolio.data.sample import Batch, to_pixels

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.integer]

VOID: Color = (150, 150, 150)
HATCH: Color = (215, 215, 215)
WRONG: Color = (230, 25, 45)


def rgb(image: Pixels) -> Pixels:
    """`[H, W, C]` to `[H, W, 3]`: the first three channels, or the first as grey where there are fewer."""
    return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)


def at_original_size(batch: Batch, index: int) -> Pixels:
    """One image of a batch `[H, W, 3]` at the size it has on disk, whatever size the network saw."""
    pixels = rgb(to_pixels(batch.images[index].cpu()))
    height, width = batch.original_sizes[index]
    return fit(pixels, (width, height))


def fit(image: Pixels, size: tuple[int, int]) -> Pixels:
    """`[H, W, 3]` resized to (width, height): by area when it shrinks, linearly when it grows."""
    if image.shape[1::-1] == size:
        return image
    shrinks = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def fit_map(indices: Indices, size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """`[H, W]` class indices resized to (width, height), each pixel the nearest one's class."""
    return cv2.resize(indices.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST_EXACT)


def colorize(indices: Indices, labels: LabelSpace) -> Pixels:
    """`[H, W]` class indices to their palette colours `[H, W, 3]`; ignored pixels are grey (`VOID`)."""
    return labels.colors(VOID)[indices]


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
    colors = colorize(indices, labels)
    mixed = blend(rgb(image), colors, alpha)
    if contours:
        border = borders(indices)
        mixed[border] = colors[border]
    return _hatch(mixed, indices == labels.ignore_index)


def error_map(image: Pixels, prediction: Indices, truth: Indices, labels: LabelSpace) -> Pixels:
    """Where the prediction is wrong: red (`WRONG`) over the faded grey image, ignored pixels hatched.

    One colour for every kind of error: which classes were mixed up is read from truth and prediction,
    and no palette can hide an error.

    Args:
        image: `[H, W, C]` RGB or grey.
        prediction: `[H, W]` class indices.
        truth: `[H, W]` class indices or `ignore_index`.

    Returns:
        `[H, W, 3]`.
    """
    grey = rgb(image).mean(axis=-1, keepdims=True)
    faded = blend(np.repeat(grey, 3, axis=-1), 255, 0.45)
    faded[prediction != truth] = WRONG
    return _hatch(faded, truth == labels.ignore_index)


def hatching(height: int, width: int) -> Pixels:
    """`[H, W, 3]`, how ignored pixels look: light diagonal lines on `VOID`."""
    lines = np.add.outer(np.arange(height), np.arange(width)) % 6 < 2
    return np.where(lines[..., None], np.array(HATCH, np.uint8), np.array(VOID, np.uint8))


def _hatch(image: Pixels, where: npt.NDArray[np.bool_]) -> Pixels:
    image[where] = hatching(*where.shape)[where]
    return image


def blend(image: npt.NDArray[np.number], colors: npt.NDArray[np.number] | int, alpha: float) -> Pixels:
    """Colours of opacity `alpha` over an image, in any shape that they share."""
    return np.rint(image * np.float32(1 - alpha) + colors * np.float32(alpha)).astype(np.uint8)


def borders(indices: Indices) -> npt.NDArray[np.bool_]:
    """Pixels that differ from the one above, below, left or right."""
    border = np.zeros(indices.shape, bool)
    down, right = indices[1:] != indices[:-1], indices[:, 1:] != indices[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border
