"""Augmentation in the images' own type, on the CPU, one random stream per sample; they are normalised on the device."""

from collections.abc import Sequence
from typing import Protocol

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

    All randomness comes from `rng`, and the sample that came in stays as it was.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample: ...


class Mixing:
    """A transform that makes one `Sample` of several, to be subclassed: a mosaic, objects pasted in.

    The first is the one that was drawn; the others are drawn from the whole split by the same random stream, and have
    come through the transforms before this one. They stay as they were, and all randomness comes from `rng`.

    Attributes:
        samples: how many, at least 1.
    """

    samples: int

    def __call__(self, samples: Sequence[Sample], rng: np.random.Generator) -> Sample:
        raise NotImplementedError
