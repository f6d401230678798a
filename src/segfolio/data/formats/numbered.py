"""Segments from two maps: the class of each pixel, and the number of the object that it belongs to."""

import numpy as np
import numpy.typing as npt
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.formats.panoptic import runs
from segfolio.data.labels import LabelSpace
from segfolio.data.segments import Segments


def numbered_segments(
    classes: npt.NDArray[np.integer], numbers: npt.NDArray[np.integer], labels: LabelSpace
) -> Segments:
    """One segment per object of a thing class and one per stuff class, by class and number; none is a crowd.

    Args:
        classes: `[H, W]` class indices or `ignore_index`.
        numbers: `[H, W]`, 0 where there is no object; what has one number but two classes is two objects.
    """
    is_thing = np.append(labels.is_thing, False)
    thing = is_thing[np.minimum(classes, labels.num_classes)]
    segment = np.where(thing, numbers > 0, classes != labels.ignore_index)
    keys = np.where(segment, (numbers.astype(np.int64) * thing << 16) + classes, -1)
    starts, lengths = runs(keys)
    found, places = np.unique(np.append(-1, keys.reshape(-1)[starts]), return_inverse=True)
    ids = np.repeat(places[1:].astype(np.int32), lengths).reshape(keys.shape)
    kinds = torch.from_numpy(found[1:] & 0xFFFF)
    return Segments(Mask(torch.from_numpy(ids)), kinds, torch.zeros(len(kinds), dtype=torch.bool))
