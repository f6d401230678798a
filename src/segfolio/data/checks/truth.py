"""`expect_truth`: whether a split has anything to learn or to measure."""

import math

from segfolio.data.dataset import SegmentationDataset
from segfolio.data.sample import Target
from segfolio.errors import SegfolioError


def expect_truth(dataset: SegmentationDataset, name: str, masks: bool = False) -> None:
    """Before training and evaluation, whose figures would all be NaN: images are read until one has a truth.

    Args:
        name: of the split.
        masks: whether masks are learned or measured.

    Raises:
        SegfolioError: a split without any, an image that cannot be read, objects that have a box alone where masks are
            needed.
    """
    if masks and (said := dataset.without_masks()):
        raise SegfolioError(
            f"{said}, but this network learns masks; draw them, leave these objects out, or take a network of boxes "
            "alone, as FasterRCNN with kinds: [bbox]"
        )
    step = math.isqrt(len(dataset)) or 1  # images without an object often come in a row
    if not any(has_truth(dataset[i].target) for first in range(step) for i in range(first, len(dataset), step)):
        raise SegfolioError(
            f"{name} has {len(dataset)} images, but nothing to learn or to measure: no object that is not a crowd, no "
            "pixel of a class; see the annotation, or `segfolio inspect`"
        )


def has_truth(target: Target | None) -> bool:
    """Whether there is an object that is no crowd; where objects are not annotated, a pixel that is not void."""
    if target is None:
        return False
    if target.segments is not None:
        return not bool(target.segments.crowd.all())
    return target.semantic is not None and bool((target.semantic != target.ignore_index).any())
