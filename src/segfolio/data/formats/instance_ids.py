"""Instance-id PNGs as Cityscapes has them (cityscapesscripts, `json2instanceImg.py`).

A pixel of 16 bits holds `class id x 1000 + number` for one object, and the class id alone for stuff and for
groups of objects. Class ids are those of the files (`LabelSpace.ids`). Where there is no segment, the id of
the background is written, or of void where the label space has none.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.formats.images import read_id_map
from segfolio.data.labels import LabelSpace
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

_PER_CLASS = 1000


def read(path: Path, labels: LabelSpace) -> Segments:
    """Read an instance-id PNG; a group of things is a crowd, void is no segment.

    Raises:
        SegfolioError: a file that cannot be read, an id that is neither class nor void.
    """
    pixels = read_id_map(path)
    ids = np.flatnonzero(np.bincount(pixels.ravel()))
    alone = ids < _PER_CLASS
    classes = labels.encode(np.where(alone, ids, ids // _PER_CLASS).astype(np.uint16)[None], path)[0].astype(np.int64)
    kept = classes != labels.ignore_index
    classes = classes[kept]
    places = np.zeros(ids[-1] + 1, np.int32)
    places[ids[kept]] = np.arange(1, len(classes) + 1)
    crowd = alone[kept] & np.array(labels.is_thing)[classes]
    return Segments(Mask(torch.from_numpy(places[pixels])), torch.from_numpy(classes), torch.from_numpy(crowd))


def instance_ids(segments: Segments, labels: LabelSpace) -> npt.NDArray[np.uint16]:
    """`[H, W]`, to be written by `write_id_map`.

    Raises:
        SegfolioError: a class of things whose id is 0 or above 65, any id above 999, or more objects of one
            class than 16 bits have place for.
    """
    values = _class_ids(segments, labels).astype(np.int64)
    if (largest := values.max()) >= _PER_CLASS:
        raise SegfolioError(
            f"class id {largest} does not fit an instance-id PNG, which holds ids up to 999; export COCO"
        )
    classes = segments.labels.numpy()
    objects = ~segments.crowd.numpy() & np.array(labels.is_thing)[classes]
    for index in np.unique(classes[objects]):
        chosen = np.flatnonzero(objects & (classes == index))
        class_id, name = labels.ids[index], labels.names[index]
        most = min(_PER_CLASS, max(0, 0x10000 - class_id * _PER_CLASS)) if class_id else 0
        if len(chosen) > most:
            raise SegfolioError(
                f"{len(chosen)} objects of {name} (class id {class_id}) do not fit an instance-id PNG, which holds "
                f"{most} of that id in 16 bits; give things ids of 1 to 65, or export COCO"
            )
        values[1 + chosen] = class_id * _PER_CLASS + np.arange(len(chosen))
    return values.astype(np.uint16)[segments.id_map.numpy()]


def label_ids(segments: Segments, labels: LabelSpace) -> npt.NDArray[np.integer]:
    """The class id of each pixel, `[H, W]` uint8 or uint16, to be written by `write_id_map`."""
    return _class_ids(segments, labels)[segments.id_map.numpy()]


def _class_ids(segments: Segments, labels: LabelSpace) -> npt.NDArray[np.integer]:
    """Of nothing and of each segment, `[1 + N]`."""
    nothing = labels.names.index(labels.background) if labels.background else labels.ignore_index
    return labels.decode(np.append(nothing, segments.labels.numpy()))
