"""A simulated user: clicks in the middle of an object, then of the largest error of the mask that is shown.

SAM's protocol of evaluation (2304.02643, appendix D.1) and, for what it leaves open, SAM 2's (2408.00714, released
code, evaluation by centre clicks). The middle is the pixel that is furthest from what is outside, the border of the
image included.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from segfolio.data.prompts import NOT_OBJECT, OBJECT

Bools = npt.NDArray[np.bool_]


class Click(NamedTuple):
    """x and y in pixels, the centre of the first one at (0.5, 0.5), and the kind of point."""

    x: float
    y: float
    kind: int


class Middle(NamedTuple):
    """The pixel of a region that is furthest from its outside, the first in reading order of several, and how far."""

    row: int
    column: int
    distance: float


def middle(region: Bools) -> Middle:
    """That of a region `[H, W]`, with the distance 0 if it is empty; distances are Euclidean and exact."""
    left, top, width, height = cv2.boundingRect(region.view(np.uint8))
    if not width:
        return Middle(0, 0, 0.0)
    inside = region[top : top + height, left : left + width]  # what lies outside of the box is no nearer than its rim
    padded = np.pad(inside, 1).view(np.uint8)
    distances = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    far = np.flatnonzero(distances >= distances.max() * (1 - 1e-5))
    squares = np.rint(distances.flat[far].astype(np.float64) ** 2)  # whole numbers, which the roots are not exact of
    row, column = divmod(int(far[squares.argmax()]), width)
    return Middle(top + row, left + column, math.sqrt(squares.max()))


def first_click(truth: Bools) -> Click | None:
    """On the object `[H, W]`; None where it has no pixel."""
    row, column, distance = middle(truth)
    return Click(column + 0.5, row + 0.5, OBJECT) if distance else None


def next_click(truth: Bools, shown: Bools) -> Click | None:
    """In the middle of what is missing of the object, or of what is too much, whichever is deeper; the latter if they
    are equally deep. None where the mask that is shown, `[H, W]`, is the truth."""
    missing, excess = middle(truth & ~shown), middle(shown & ~truth)
    if not max(missing.distance, excess.distance):
        return None
    found, kind = (missing, OBJECT) if missing.distance > excess.distance else (excess, NOT_OBJECT)
    return Click(found.column + 0.5, found.row + 0.5, kind)
