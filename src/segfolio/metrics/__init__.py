"""Metrics: pure functions, and the `torchmetrics.Metric` classes that carry them across processes."""

from segfolio.metrics.confusion import ConfusionMatrix, MIoUPerImage

__all__ = ["ConfusionMatrix", "MIoUPerImage"]
