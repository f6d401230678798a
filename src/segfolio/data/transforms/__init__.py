"""Augmentation in the images' own type, on the CPU, one random stream per sample; they are normalised on the device."""

from typing import Protocol

import numpy as np

from segfolio.data.sample import Sample
from segfolio.data.transforms.adapter import TorchvisionV2
from segfolio.data.transforms.color import ColorJitter
from segfolio.data.transforms.geometry import ElasticDeformation, Resize, ResizeShortest
from segfolio.data.transforms.weights import BorderWeight
from segfolio.data.transforms.window import RandomWindow

__all__ = [
    "BorderWeight",
    "ColorJitter",
    "ElasticDeformation",
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
