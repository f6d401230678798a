"""segfolio: a folio of segmentation papers that run."""

__version__ = "0.2.0"
