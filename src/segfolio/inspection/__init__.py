"""`segfolio inspect`: what a dataset holds, and what is wrong with it, before a network sees it."""

from segfolio.inspection.report import Report, Split
from segfolio.inspection.scan import inspect_dataset

__all__ = ["Report", "Split", "inspect_dataset"]
