"""`PairedInstances`: images with a map of classes and, beside it, a map of objects."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.tv_tensors import Mask

from segfolio.data.checks.headers import header_problems
from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import PairedFiles, listed
from segfolio.data.formats.images import read_id_map
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError
from segfolio.words import counted


class PairedInstances(PairedFiles):
    """`PairedFiles` with an instance map beside each mask.

    A subclass fills `pairs`, and `instance_maps` in the same order; where these are empty, samples have a semantic
    map alone.
    """

    instance_maps: list[Path]

    def segments(self, path: Path) -> Segments:
        """Read an instance map."""
        raise NotImplementedError

    def expect_pairs(self, source: Path) -> None:
        super().expect_pairs(source)
        if missing := [str(path) for path in self.instance_maps if not os.path.isfile(path)]:
            raise SegfolioError(
                f"{source}: {counted(len(missing), 'instance map')} missing: {listed(missing, 3)}; copy the data "
                "again, or set instances: false to read semantic maps alone"
            )

    def files(self) -> Iterable[Path]:
        return [*super().files(), *self.instance_maps]

    def problems(self) -> Iterable[Problem]:
        beside = [pair._replace(mask=path) for pair, path in zip(self.pairs, self.instance_maps, strict=False)]
        return dict.fromkeys(
            [*super().problems(), *header_problems(beside, self.image_space)]
        )  # an image's are told once

    def read(self, index: int) -> Sample:
        """As `PairedFiles`, and the segments of the instance map, stuff among them."""
        sample = super().read(index)
        if sample.target is not None and self.instance_maps:
            path, size = self.instance_maps[index], sample.original_size
            segments = self.segments(path)
            if segments.size != size:
                raise SegfolioError(
                    f"{path} is {segments.size[1]}x{segments.size[0]} pixels but its image is {size[1]}x{size[0]}; an "
                    "instance map has the size of its image"
                )
            sample.target.segments = segments
        return sample


def id_map_segments(ids: npt.NDArray[np.integer], numbers: npt.NDArray[np.integer], labels: Tensor) -> Segments:
    """The objects of a map `[H, W]`, none of them a crowd.

    Args:
        numbers: `[N]`, the value of each object; all others are no object.
        labels: `[N]` int64, class indices.
    """
    places = np.zeros(int(ids.max()) + 1, np.int32)
    places[numbers] = np.arange(1, len(numbers) + 1)
    return Segments(torch.from_numpy(places[ids]), labels, torch.zeros(len(numbers), dtype=torch.bool))


def read_packed(path: Path, labels: LabelSpace, zero_is_group: bool) -> Segments:
    """Read a PNG whose pixels hold `class id x 256 + number`, the number of an object within its class.

    A class of stuff is one segment whatever the numbers; void is none.

    Args:
        zero_is_group: the number 0 stands for objects that nobody told apart, a crowd; else it is an object.

    Raises:
        SegfolioError: a file that cannot be read, an id that is neither class nor void.
    """
    pixels = read_id_map(path)
    values = np.flatnonzero(np.bincount(pixels.ravel()))
    classes = labels.encode((values >> 8).astype(np.uint16)[None], path)[0].astype(np.int64)
    kept = classes != labels.ignore_index
    values, classes = values[kept], classes[kept]
    is_thing = np.array(labels.is_thing)
    keys, places = np.unique(classes << 8 | np.where(is_thing[classes], values & 0xFF, 0), return_inverse=True)
    table = np.zeros(0x10000, np.int32)
    table[values] = places + 1
    crowd = is_thing[keys >> 8] & (keys & 0xFF == 0) & zero_is_group
    return Segments(
        Mask(torch.from_numpy(np.take(table, pixels))), torch.from_numpy(keys >> 8), torch.from_numpy(crowd)
    )
