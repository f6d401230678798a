"""Augmentation in the images' own type, on the CPU, one random stream per sample; they are normalised on the device."""

from segfolio.data.transforms.adapter import TorchvisionV2
from segfolio.data.transforms.base import ClipPreparation, Mixing, Transform
from segfolio.data.transforms.blur import GaussianBlur
from segfolio.data.transforms.color import ColorJitter, PhotometricDistortion
from segfolio.data.transforms.geometry import ElasticDeformation, Resize, ResizeShortest
from segfolio.data.transforms.mixing import CopyPaste, MixUp, Mosaic
from segfolio.data.transforms.weights import BorderWeight
from segfolio.data.transforms.window import RandomWindow

__all__ = [
    "BorderWeight",
    "ClipPreparation",
    "ColorJitter",
    "CopyPaste",
    "ElasticDeformation",
    "GaussianBlur",
    "MixUp",
    "Mixing",
    "Mosaic",
    "PhotometricDistortion",
    "RandomWindow",
    "Resize",
    "ResizeShortest",
    "TorchvisionV2",
    "Transform",
]
