"""Metrics: pure functions, and the `torchmetrics.Metric` classes that carry them across processes."""

from segfolio.metrics.confusion import ConfusionMatrix, MIoUPerImage
from segfolio.metrics.evaluator import Evaluator

__all__ = ["ConfusionMatrix", "Evaluator", "MIoUPerImage"]
