"""Families: one LightningModule per output contract."""

from segfolio.families.detection import Detection
from segfolio.families.distillation import Distillation
from segfolio.families.mask_classification import MaskClassification
from segfolio.families.per_pixel import PerPixel
from segfolio.families.promptable import Promptable
from segfolio.families.promptable_detection import PromptableDetection
from segfolio.families.video import Video

__all__ = ["Detection", "Distillation", "MaskClassification", "PerPixel", "Promptable", "PromptableDetection", "Video"]
