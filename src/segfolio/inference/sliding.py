"""Sliding windows whose sums are held no longer than windows still touch them."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from segfolio.data.sample import Size
from segfolio.errors import SegfolioError
from segfolio.inference.tiles import (
    DenseProtocol,
    Network,
    Scores,
    Store,
    Tiles,
    collect,
    probabilities,
    resized,
    zeros,
)


class Slide(DenseProtocol):
    """Windows over the image, their scores averaged where they overlap.

    Windows are as far apart as `stride`; the last of a row or column is moved back inside the image (mmsegmentation).
    An image smaller than the window is padded with the mean, on the right and below.

    In reading order, a window leaves a part of the image that no later one touches: that part is a tile, and the next
    protocol gets it at once. What is held is the windows at hand, and, over the image's whole width, the rows that the
    next row of windows overlaps. The last row overlaps most, so it is walked together with the one before. At
    8192 x 8192 pixels and 150 classes, windows of 512 and a stride of 341 take 1.2 GB in float32, those of 768 and a
    stride of 512 1.9 GB (`[C, H, W]`: 40 GB). `store` says where the rows lie.

    An image that was resized, by the data module or by another protocol, is the exception: all its scores `[C, h, w]`
    are held, and then read at the original size. Of a large one, `store` them elsewhere.

    Args:
        window: height and width, or both.
        stride: likewise; by default two thirds of the window, rounded up.
        weighting: of the pixels of a window: `uniform`, or `gaussian`, which trusts its middle (nnU-Net, Isensee et
            al. 2021; as in MONAI: a standard deviation of an eighth of the window, at least 1e-3).
        average: `logits`, or `probabilities` (PSPNet's released code).
        batch: windows of one forward pass.
        store: where overlapping rows wait for the next row of windows, or all scores of a resized image.

    Raises:
        SegfolioError: a window or batch below 1, a stride that is below 1 or leaves gaps, more than two lengths.
    """

    def __init__(
        self,
        window: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        weighting: Literal["uniform", "gaussian"] = "uniform",
        average: Literal["logits", "probabilities"] = "logits",
        batch: int = 1,
        store: Store = "device",
    ) -> None:
        self.window = _pair("window", window)
        self.stride = _pair("stride", [_two_thirds(side) for side in self.window] if stride is None else stride)
        self.weighting, self.average, self.batch, self.store = weighting, average, batch, store
        if not all(1 <= step <= length for step, length in zip(self.stride, self.window, strict=True)) or batch < 1:
            raise SegfolioError(
                f"Slide: window {self.window}, stride {self.stride}, batch {batch}; give at least 1 of each, "
                "and a stride no longer than the window"
            )

    @property
    def words(self) -> str:
        (height, width), (down, right) = self.window, self.stride
        how = "" if self.weighting == "uniform" else ", Gaussian weights"
        return f"windows of {height}x{width}, stride {down}x{right}, {self.average} averaged{how}"

    def gives_logits(self, network: Network) -> bool:
        return network.logits and self.average == "logits"

    def tiles(self, network: Network, image: Tensor, size: Size) -> Tiles:
        own = (image.shape[-2], image.shape[-1])
        return self._stream(network, image) if own == size else self._resized(network, image, own, size)

    def _resized(self, network: Network, image: Tensor, own: Size, size: Size) -> Tiles:
        yield from resized(collect(self._stream(network, image), own, self.store), size)

    def _stream(self, network: Network, image: Tensor) -> Tiles:
        """Tiles at the image's own size. Sums have a channel more than there are classes: that of the weights."""
        (_, height, width), (tall, wide) = image.shape, self.window
        tops, lefts = starts(height, tall, self.stride[0]), starts(width, wide, self.stride[1])
        bands = [*([top] for top in tops[:-2]), tops[-2:]]  # rows of windows; the last two, which overlap most, as one
        overlap, deep = tall - self.stride[0] if len(bands) > 1 else 0, tall + tops[-1] - bands[-1][0]
        soften = network.logits and self.average == "probabilities"
        weight = gaussian(self.window) if self.weighting == "gaussian" else torch.ones(self.window)
        windows = self._windows(network, image, [(top, left) for band in bands for left in lefts for top in band])
        sums = below = torch.empty(0)  # of the windows at hand, and of the rows that wait for the next band
        for band, end in zip(bands, [*(band[0] for band in bands[1:]), height], strict=True):
            known = 0  # columns of `sums` that the windows before have left there
            for left, stop in pairwise([*lefts, width]):
                if sums.numel():
                    sums[:, :overlap, known:] = below[..., left + known : left + wide]
                    sums[:, overlap:, known:] = 0
                for top in band:
                    for rows, columns, part in probabilities(next(windows)(self.window), soften):
                        if not sums.numel():
                            channels, weight = len(part) + 1, weight.to(part.device)
                            sums = zeros((channels, deep, wide), part.device)
                            below = zeros((channels, overlap, max(width, wide)), part.device, self.store)
                        touched = sums[:, top - band[0] :][:, rows, columns]
                        touched[-1] += weight[rows, columns]
                        if self.weighting == "uniform":
                            touched[:-1] += part
                        else:
                            touched[:-1].addcmul_(part, weight[rows, columns])
                ready, done = end - band[0], stop - left
                yield slice(band[0], end), slice(left, stop), sums[:-1, :ready, :done].div_(sums[-1, :ready, :done])
                if end < height:
                    below[..., left:stop] = sums[:, ready:tall, :done]
                known = wide - done
                if stop < width:
                    for some in sums.split(16):  # of the channels, so that their copy is small
                        some[..., :known] = some[..., done:].clone()

    def _windows(self, network: Network, image: Tensor, corners: list[tuple[int, int]]) -> Iterator[Scores]:
        """Of each window, given its upper left corner."""
        tall, wide = self.window
        for start in range(0, len(corners), self.batch):
            cut = [image[:, top : top + tall, left : left + wide] for top, left in corners[start : start + self.batch]]
            yield from network.scores(torch.stack([padded(window, self.window, network.padding) for window in cut]))


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along an axis; the last one ends with it, if it is as long as a window."""
    last = max(length - window, 0)
    return [min(i * stride, last) for i in range(math.ceil(last / stride) + 1)]


def gaussian(window: Size) -> Tensor:
    """`[h, w]` in 1e-3 to 1, highest in the middle."""
    sides = []
    for length in window:
        place = torch.arange(length) - (length - 1) / 2
        sides.append(torch.exp(-(place**2) / (2 * (length / 8) ** 2)))
    return (sides[0][:, None] * sides[1]).clamp_min(1e-3)


def padded(image: Tensor, size: Size, pixel: Tensor) -> Tensor:
    """`[C, h, w]` at the upper left of an image of that size, of which the rest is `pixel` `[C, 1, 1]`."""
    if image.shape[-2:] == size:
        return image
    whole = pixel.expand(-1, *size).clone()
    whole[:, : image.shape[-2], : image.shape[-1]] = image
    return whole


def _pair(name: str, length: int | Sequence[int]) -> tuple[int, int]:
    sides = (length, length) if isinstance(length, int) else length
    if len(sides) != 2:
        raise SegfolioError(f"Slide: {name} is {length}; give a height and a width, or one number for both")
    return sides[0], sides[1]


def _two_thirds(length: int) -> int:
    return math.ceil(2 * length / 3)
