"""How much each pixel counts in the loss."""

import math
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.sample import Sample, Target
from segfolio.errors import SegfolioError


class BorderWeight:
    """Weight of the gaps between neighbouring cells (U-Net, 1505.04597, equation 2), as `target.weight`.

    `1 + w0 * exp(-(d1 + d2)^2 / (2 sigma^2))` on every pixel outside the cells, where d1 and d2 are the
    distances to the nearest and the second-nearest cell, and 1 inside them: it is the background of narrow
    gaps that the network has to learn. The paper's class balance is the loss's class weights. Terms below
    `w0 / 10,000` are left out.

    Cells are the segments, crowds apart, or else the 4-connected components of the class `foreground`.
    It follows the transforms that move pixels.

    Args:
        foreground: class index of the cells in the semantic map.
        w0: the weight where two cells touch.
        sigma: in pixels.

    Raises:
        SegfolioError: `sigma` not above 0, a target without segments and semantic map.
    """

    def __init__(self, foreground: int = 1, w0: float = 10.0, sigma: float = 5.0) -> None:
        if sigma <= 0:
            raise SegfolioError(f"BorderWeight: sigma is {sigma}; it is a width in pixels, above 0")
        self.foreground, self.w0, self.sigma = foreground, w0, sigma

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if sample.target is None:
            return sample
        reach = math.ceil(self.sigma * math.sqrt(2 * math.log(10_000)))
        first = np.full(sample.image.shape[-2:], np.inf, np.float32)
        second = first.copy()
        for plane, value, (x, y, width, height) in _cells(sample, sample.target, self.foreground):
            box = np.s_[max(0, y - reach) : y + height + reach, max(0, x - reach) : x + width + reach]
            outside = (plane[box] != value).view(np.uint8)
            distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            second[box] = np.minimum(second[box], np.maximum(first[box], distance))
            first[box] = np.minimum(first[box], distance)
        term = self.w0 * np.exp((first + second) ** 2 / (-2 * self.sigma**2))
        weight = Mask(torch.from_numpy(1 + term * (first > 0)))
        return replace(sample, target=replace(sample.target, weight=weight))


def _cells(
    sample: Sample, target: Target, foreground: int
) -> Iterator[tuple[npt.NDArray[np.integer], int, tuple[int, int, int, int]]]:
    """Each cell as a map, its value in the map, and its box (x, y, width, height)."""
    if target.segments is not None:
        for mask in target.segments.masks[~target.segments.crowd].numpy().view(np.uint8):
            yield mask, 1, cv2.boundingRect(mask)
    elif target.semantic is not None:
        inside = (target.semantic.numpy() == foreground).view(np.uint8)
        count, components, boxes, _ = cv2.connectedComponentsWithStats(inside, connectivity=4)
        for i in range(1, count):
            yield components, i, tuple(boxes[i, :4].tolist())
    else:
        raise SegfolioError(f"BorderWeight: {sample.image_id} has neither segments nor a semantic map to find cells in")
