"""`DetectionTruth`: the objects that a detection network is trained on, as they travel to the device."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample
from segfolio.data.transforms.geometry import present


@dataclass(frozen=True)
class DetectionTruth:
    """A family's `preparation`: of the segments the things that have a pixel and are no crowd, as id maps.

    Masks take as many bytes for each object as a map for all that do not overlap; they and the boxes around them are
    derived from it on the device. The semantic map and weights, which no detection network reads, stay behind. A
    target without segments is left as it is.
    """

    labels: LabelSpace

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        target = sample.target
        if target is None or (segments := target.segments) is None:
            return sample
        wanted = torch.tensor(self.labels.is_thing)[segments.labels] & ~segments.crowd
        found = present(segments[wanted]).compact()
        return replace(sample, target=replace(target, semantic=None, segments=found, weight=None))
