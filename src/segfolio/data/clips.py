"""`ClipFrames`: which frames of a clip are trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segfolio.errors import SegfolioError


@dataclass(frozen=True)
class ClipFrames:
    """A few frames of a clip in a row, every first or every second or ... of them, from a drawn one on.

    A clip that is too short at all strides is taken whole, at stride 1; an image by itself, thus, as it is.

    Args:
        frames: how many (SAM 2, arXiv 2408.00714, section 4: 8).
        strides: of which one is drawn, all with equal probability, among those at which the clip is long enough.
        reverse: probability of the reverse order.

    Raises:
        SegfolioError: no frame, no stride, one below 1, no probability.
    """

    frames: int = 8
    strides: tuple[int, ...] = (1,)
    reverse: float = 0.0

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise SegfolioError(f"frames of ClipFrames is {self.frames}, expected at least the 1 of an image")
        if min(self.strides, default=0) < 1:
            raise SegfolioError(f"strides of ClipFrames are {list(self.strides)}, expected at least one, of 1 or more")
        if not 0 <= self.reverse <= 1:
            raise SegfolioError(f"reverse of ClipFrames is {self.reverse}; a probability lies between 0 and 1")

    def __call__(self, clip: Sequence[int], rng: np.random.Generator) -> list[int]:
        """The places of the frames that were drawn, of those of a clip."""
        long_enough = [stride for stride in self.strides if stride * (self.frames - 1) < len(clip)]
        stride = int(rng.choice(long_enough)) if long_enough else 1
        extent = stride * (self.frames - 1) + 1
        start = int(rng.integers(max(1, len(clip) - extent + 1)))
        chosen = list(clip[start : start + extent : stride])
        return chosen[::-1] if rng.random() < self.reverse else chosen
