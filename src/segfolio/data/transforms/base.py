"""What a transform is, and what mixes several samples."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from segfolio.data.sample import Sample
from segfolio.errors import SegfolioError


class Transform(Protocol):
    """Anything that makes a new `Sample` of one.

    All randomness comes from `rng`, and the sample that came in stays as it was. One that does not take every image
    has a `check(space: ImageSpace)`, too, which raises a `SegfolioError` before training.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample: ...


@runtime_checkable
class ClipPreparation(Protocol):
    """A preparation that sees a clip whole: of a dataset of images one frame."""

    def of_clip(self, samples: Sequence[Sample], rng: np.random.Generator) -> list[Sample]:
        """All frames that were drawn, in their order, prepared."""


class Mixing:
    """A transform that makes one `Sample` of several, to be subclassed: a mosaic, objects pasted in.

    The first is the one that was drawn; the others are drawn from the whole split, and have come through the transforms
    before this one. They stay as they were, and all randomness comes from `rng`, a stream of the mixing's own.

    Attributes:
        samples: how many, at least 1.
        until_epoch: from this epoch on, counted from 0, it is left out; None never (YOLOX, 2107.08430, section 2.1,
            closes its mosaic for the last 15).
    """

    samples: int
    until_epoch: int | None = None

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
        raise NotImplementedError


def check_probability(of: object, **chances: float) -> None:
    """Raise a `SegfolioError` of a transform with a probability outside 0 to 1."""
    if wrong := [f"{name} is {chance}" for name, chance in chances.items() if not 0 <= chance <= 1]:
        raise SegfolioError(f"{type(of).__name__}: {wrong[0]}; a probability lies between 0 and 1")
