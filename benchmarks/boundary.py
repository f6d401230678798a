"""Boundary F1 and boundary IoU of an image of 20 classes, ours against one class after another on the whole image.

    python benchmarks/boundary.py

The plain way is exact too: distance transforms for F1, and for IoU an erosion of each mask as in the reference of
boundary IoU. One thread; truth is of smooth regions, a half of the prediction is shifted by 5 pixels.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import cv2
import numpy as np

from segfolio.metrics.boundary import Map, boundary_f1, boundary_overlap

AIMS = {
    "F1 time, 480 x 640": "> 5",
    "IoU time, 480 x 640": "> 2",
    "F1 time, 1024 x 2048": "> 10",
    "IoU time, 1024 x 2048": "> 3",
}
SIZES, CLASSES, REGION = ((480, 640), (1024, 2048)), 20, 64
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def maps(height: int, width: int) -> tuple[Map, Map]:
    """Prediction and truth, classes from 1."""
    rng = np.random.default_rng(0)

    def regions(n: int) -> Map:
        fields = rng.standard_normal((n, height // REGION, width // REGION)).astype(np.float32)
        return np.argmax([cv2.resize(f, (width, height), interpolation=cv2.INTER_CUBIC) for f in fields], 0)

    truth = regions(CLASSES).astype(np.uint8) + np.uint8(1)
    return np.where(regions(2) == 0, np.roll(truth, 5, 1), truth), truth


def plain_f1(prediction: Map, target: Map, tolerance: float) -> list[float]:
    figures = []
    for c in range(1, CLASSES + 1):
        masks = [(m == c).astype(np.uint8) for m in (prediction, target)]
        p, t = (m - cv2.erode(m, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=1) for m in masks)
        to_p, to_t = (cv2.distanceTransform(1 - m, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for m in (p, t))
        precision, recall = (to_t[p > 0] < tolerance).mean(), (to_p[t > 0] < tolerance).mean()
        figures.append(2 * precision * recall / (precision + recall))
    return figures


def plain_overlap(prediction: Map, target: Map, width: int) -> Any:
    kernel, counts = np.ones((3, 3), np.uint8), []
    for c in range(1, CLASSES + 1):
        p, t = (
            mask - cv2.erode(cv2.copyMakeBorder(mask, 1, 1, 1, 1, 0), kernel, iterations=width)[1:-1, 1:-1]
            for mask in ((m == c).astype(np.uint8) for m in (prediction, target))
        )
        counts.append((np.count_nonzero(p & t), np.count_nonzero(p | t)))
    return np.transpose(counts)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def main() -> dict[str, float]:
    """How many times longer the plain way takes.

    Raises:
        AssertionError: results that differ.
    """
    cv2.setNumThreads(0)
    ratios = {}
    for height, width in SIZES:
        pair, diagonal = maps(height, width), math.hypot(height, width)
        tolerance, band = 0.0075 * diagonal, round(0.02 * diagonal)
        ways = {
            "F1": (partial(boundary_f1, *pair, CLASSES, tolerance), partial(plain_f1, *pair, tolerance)),
            "IoU": (partial(boundary_overlap, *pair, CLASSES, band), partial(plain_overlap, *pair, band)),
        }
        for figure, (ours, plain) in ways.items():
            rounds = [(timed(ours), timed(plain)) for _ in range(3)]
            np.testing.assert_allclose(rounds[0][0][1], rounds[0][1][1], rtol=0, atol=1e-12)
            seconds = [median(r[way][0] for r in rounds) for way in (0, 1)]
            print(f"{figure:4}{height:5} x {width:<5}" + "".join(f"{1e3 * s:9.1f} ms" for s in seconds))
            ratios[f"{figure} time, {height} x {width}"] = seconds[1] / seconds[0]
    return ratios


if __name__ == "__main__":
    print(main())
