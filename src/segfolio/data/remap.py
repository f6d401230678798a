"""`Remapped`: any dataset under other classes, merged, renamed or left out by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import SegmentationDataset, listed
from segfolio.data.labels import FREQUENCIES, LabelSpace
from segfolio.data.sample import Federated, Sample
from segfolio.data.segments import Segments, is_id_map
from segfolio.errors import SegfolioError, did_you_mean
from segfolio.yaml_file import read_yaml

Remap = Mapping[str, str | None]
"""The new name of every class, None for one that is no class any more."""


class Remapped(SegmentationDataset):
    """A dataset whose truth is told in other classes.

    The new classes come in the order in which `remap` first names them, with the colour of their first source; things
    are those of things alone. The dataset's background, where `remap` does not name it, stays and comes first. Pixels
    of classes that are left out become `ignore_index` and segments of them are dropped. Segments keep their form; in
    an id map, those of a stuff class become one. Of a federated dataset, an image lacks a class if it lacks all of its
    sources, and a class that it has is exhaustive if all of them are or are lacking; the most frequent source tells how
    frequent it is.

    Args:
        dataset: what is read.
        remap: of class names, or the name of a preset (`remap_presets.yaml`).

    Raises:
        SegfolioError: a class that the dataset lacks, one that `remap` leaves out, no class at all, an unknown
            preset.
    """

    def __init__(self, dataset: SegmentationDataset, remap: Remap | str) -> None:
        self.dataset, self.image_space, self.clips = dataset, dataset.image_space, dataset.clips
        if hasattr(dataset, "info"):
            self.info = dataset.info
        of, old = type(dataset).__name__, dataset.labels
        self.remap = _complete(preset(remap) if isinstance(remap, str) else remap, old, of)
        self.labels = _label_space(self.remap, old, of)
        self._things = {place for place, is_thing in enumerate(self.labels.is_thing) if is_thing}
        self._table = np.full(max(old.ignore_index, 0xFF) + 1, old.ignore_index, self.labels.dtype)
        self._sources: list[set[int]] = [set() for _ in self.labels.names]
        for place, name in enumerate(old.names):
            if (to := self.remap[name]) is not None:
                self._table[place] = self.labels.names.index(to)
                self._sources[self._table[place]].add(place)

    def __len__(self) -> int:
        return len(self.dataset)

    def frames_of(self, clip: int, rng: np.random.Generator | None = None) -> Sequence[int]:
        return self.dataset.frames_of(clip, rng)

    def image_id(self, index: int) -> str | None:
        return self.dataset.image_id(index)

    def image_number(self, index: int) -> int | None:
        return self.dataset.image_number(index)

    def image_file(self, index: int) -> Path | None:
        return self.dataset.image_file(index)

    def without_masks(self) -> str | None:
        return self.dataset.without_masks()

    def files(self) -> Iterable[Path]:
        return self.dataset.files()

    def problems(self) -> Iterable[Problem]:
        return self.dataset.problems()

    def check(self) -> None:
        self.dataset.check()

    def unlike_published(self, split: str) -> str | None:
        return self.dataset.unlike_published(split)

    def read(self, index: int) -> Sample:
        sample = self.dataset[index]
        if (target := sample.target) is None:
            return sample
        semantic = None if target.semantic is None else self._semantic(target.semantic.numpy())
        segments = None if target.segments is None else self._segments(target.segments)
        searched = None if target.federated is None else self._federated(target.federated, target.segments)
        return replace(sample, target=replace(target, semantic=semantic, segments=segments, federated=searched))

    def _semantic(self, old: npt.NDArray[np.integer]) -> Mask:
        new = cv2.LUT(old, self._table[:0x100]) if old.dtype == np.uint8 else np.take(self._table, old)
        return Mask(torch.from_numpy(new))

    def _federated(self, old: Federated, segments: Segments | None) -> Federated:
        present = set(() if segments is None else segments.labels.tolist())
        absent = set(old.absent) - present
        whole = absent | present - set(old.not_exhaustive)
        new = Federated()
        for label, sources in enumerate(self._sources):
            if sources <= absent:
                new.absent += (label,)
            elif sources & present and not sources <= whole:
                new.not_exhaustive += (label,)
        return new

    def _segments(self, old: Segments) -> Segments:
        labels = torch.from_numpy(self._table[old.labels.numpy()].astype(np.int64))
        segments, keep = replace(old, labels=labels), labels != self.labels.ignore_index
        if not is_id_map(old.form):
            return segments if keep.all() else segments[keep]
        places = [0]  # of each id among the new ones
        owners: dict[object, int] = {}
        for index, label in enumerate(labels.tolist()):
            owner = index if label in self._things else (label, bool(old.crowd[index]))
            places.append(owners.setdefault(owner, len(owners) + 1) if keep[index] else 0)
        if len(owners) == len(old):
            return segments
        first = torch.tensor([places.index(place) - 1 for place in owners.values()], dtype=torch.int64)
        ids = np.array(places, np.int32)[old.form.numpy()]
        tracks = None if old.tracks is None else old.tracks[first]
        return Segments(torch.from_numpy(ids), labels[first], old.crowd[first], tracks=tracks)


def preset(name: str) -> Remap:
    """The mapping that `remap_presets.yaml` has under a name."""
    presets = _presets()
    if name not in presets:
        raise SegfolioError(
            f"there is no remap preset {name!r}{did_you_mean(name, presets)}; there are {listed(presets)}"
        )
    return {source: to for to, sources in presets[name].items() for source in sources}


@cache
def _presets() -> dict[str, dict[str | None, list[str]]]:
    return read_yaml(Path(__file__).with_name("remap_presets.yaml"), "names of presets")


def _complete(remap: Remap, old: LabelSpace, of: str) -> Remap:
    """With the background, if need be; every class is in it, and nothing else."""
    if unknown := [name for name in remap if name not in old.names]:
        raise SegfolioError(
            f"data.remap names {unknown[0]!r}, which is no class of {of}{did_you_mean(unknown[0], old.names)}; "
            f"its classes are {listed(old.names)}"
        )
    if old.background is not None and old.background not in remap:
        remap = {old.background: old.background, **remap}
    if missing := [name for name in old.names if name not in remap]:
        raise SegfolioError(
            f"data.remap leaves out {listed(missing)} of {of}; give each its new class, or null to ignore it"
        )
    return remap


def _label_space(remap: Remap, old: LabelSpace, of: str) -> LabelSpace:
    sources: dict[str, list[int]] = {}
    for name, to in remap.items():
        if to is not None:
            sources.setdefault(to, []).append(old.names.index(name))
    if not sources:
        raise SegfolioError(f"data.remap maps every class of {of} to null; at least one has to stay a class")
    first = {name: places[0] for name, places in sources.items()}
    return LabelSpace(
        names=tuple(first),
        things=tuple(name for name, places in sources.items() if all(old.is_thing[place] for place in places)),
        background=None if old.background is None else remap[old.background],
        palette=tuple(old.palette[place] for place in first.values()),
        ignore_index=old.ignore_index,
        frequencies=tuple(
            max((old.frequencies[place] for place in places), key=FREQUENCIES.index) for places in sources.values()
        )
        if old.frequencies
        else (),
    )
