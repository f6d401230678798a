"""segfolio: a folio of segmentation papers that run."""

__version__ = "0.1.0"
