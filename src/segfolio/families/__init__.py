"""Families: one LightningModule per output contract."""

from segfolio.families.encoder_decoder import EncoderDecoder
from segfolio.families.mask_classification import MaskClassification

__all__ = ["EncoderDecoder", "MaskClassification"]
