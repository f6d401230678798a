"""Families: one LightningModule per output contract."""

from segfolio.families.mask_classification import MaskClassification
from segfolio.families.per_pixel import PerPixel
from segfolio.families.region_based import RegionBased

__all__ = ["MaskClassification", "PerPixel", "RegionBased"]
