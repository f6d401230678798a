"""Losses of per-pixel and of mask classification."""

from segfolio.losses.base import Loss
from segfolio.losses.class_presence import ClassPresence
from segfolio.losses.cross_entropy import CrossEntropy
from segfolio.losses.dice import Dice
from segfolio.losses.focal import Focal
from segfolio.losses.hard_pixels import OHEM, HardestPixels
from segfolio.losses.mask_classification import MaskClassificationLoss
from segfolio.losses.max_deeplab import MaXDeepLabLoss
from segfolio.losses.one_former import OneFormerLoss

__all__ = [
    "OHEM",
    "ClassPresence",
    "CrossEntropy",
    "Dice",
    "Focal",
    "HardestPixels",
    "Loss",
    "MaXDeepLabLoss",
    "MaskClassificationLoss",
    "OneFormerLoss",
]
