"""Losses of per-pixel and of mask classification."""

from segfolio.losses.base import Loss
from segfolio.losses.cross_entropy import CrossEntropy
from segfolio.losses.dice import Dice
from segfolio.losses.focal import Focal
from segfolio.losses.mask_classification import MaskClassificationLoss

__all__ = ["CrossEntropy", "Dice", "Focal", "Loss", "MaskClassificationLoss"]
