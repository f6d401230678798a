"""Losses of per-pixel classification."""

from segfolio.losses.base import Loss
from segfolio.losses.cross_entropy import CrossEntropy
from segfolio.losses.dice import Dice
from segfolio.losses.focal import Focal

__all__ = ["CrossEntropy", "Dice", "Focal", "Loss"]
