"""Metrics: pure functions, and the `torchmetrics.Metric` classes that carry them across processes."""

from segfolio.metrics.boundary import BoundaryF1, BoundaryIoU
from segfolio.metrics.cityscapes import CityscapesMetric
from segfolio.metrics.confusion import ConfusionMatrix
from segfolio.metrics.evaluator import Evaluation, Evaluator
from segfolio.metrics.federated import FederatedMetric, instance_metric
from segfolio.metrics.hausdorff import Hausdorff95
from segfolio.metrics.instance import InstanceMetric
from segfolio.metrics.interactive import BoxMetric, InteractiveMetric
from segfolio.metrics.panoptic import PanopticMetric
from segfolio.metrics.proposals import ProposalMetric
from segfolio.metrics.rand_information import RandInformation
from segfolio.metrics.records import RecordMetric
from segfolio.metrics.semantic import SemanticMetric
from segfolio.metrics.video import VideoMetric
from segfolio.metrics.video_rounds import VideoRoundsMetric

__all__ = [
    "BoundaryF1",
    "BoundaryIoU",
    "BoxMetric",
    "CityscapesMetric",
    "ConfusionMatrix",
    "Evaluation",
    "Evaluator",
    "FederatedMetric",
    "Hausdorff95",
    "InstanceMetric",
    "InteractiveMetric",
    "PanopticMetric",
    "ProposalMetric",
    "RandInformation",
    "RecordMetric",
    "SemanticMetric",
    "VideoMetric",
    "VideoRoundsMetric",
    "instance_metric",
]
