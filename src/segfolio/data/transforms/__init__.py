"""Augmentation in the images' own type, on the CPU, one random stream per sample; they are normalised on the device."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from segfolio.data.sample import Sample
from segfolio.data.transforms.adapter import TorchvisionV2
from segfolio.data.transforms.blur import GaussianBlur
from segfolio.data.transforms.color import ColorJitter, PhotometricDistortion
from segfolio.data.transforms.geometry import ElasticDeformation, Resize, ResizeShortest
from segfolio.data.transforms.weights import BorderWeight
from segfolio.data.transforms.window import RandomWindow

__all__ = [
    "BorderWeight",
    "ClipPreparation",
    "ColorJitter",
    "ElasticDeformation",
    "GaussianBlur",
    "Mixing",
    "PhotometricDistortion",
    "RandomWindow",
    "Resize",
    "ResizeShortest",
    "TorchvisionV2",
    "Transform",
]


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
