"""Semantic Boundaries Dataset (Hariharan et al., 2011): VOC's 20 classes on 11,355 images, without a border."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import DatasetInfo, RemoteFile, listed
from segfolio.data.datasets.voc import VOC, read_objects
from segfolio.data.formats.matlab import as_ids, read_mat
from segfolio.data.instance_maps import PairedInstances, id_map_segments
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError


class SBD(PairedInstances):
    """The images of SBD and their objects, and the splits that papers make of SBD and VOC.

    `trainaug` is VOC 2012 train and all of SBD without VOC 2012 val; where an image is in both, it is VOC's with
    VOC's maps; `voc12val` is VOC 2012 val, its counterpart. `seg11valid` is VOC 2011 val without SBD train, with VOC's
    maps (Shelhamer et al., 2017, section 5); `seg11train` is VOC 2011 train. All are computed from the lists. VOC 2012
    val overlaps with SBD's own splits.

    Args:
        root: the folder that holds `benchmark_RELEASE/`, or what is in `benchmark_RELEASE/dataset/`.
        split: train, val, trainaug, voc12val, seg11train or seg11valid.
        root_voc: the folder that holds `VOCdevkit/`, for all splits but train and val.
        instances: whether objects are read, or semantic maps alone.

    Raises:
        SegfolioError: an unknown split, another folder, a list that is empty or names missing files, no
            `root_voc` where one is needed, what `VOC` raises.
    """

    info = DatasetInfo(
        title="SBD",
        url="http://home.bharathh.info/pubs/codes/SBD/download.html",
        licence="research use; images of Flickr under their own terms",
        splits={
            **{"train": 8498, "val": 2857, "trainaug": 10582, "voc12val": 1449},
            **{"seg11train": 1112, "seg11valid": 736},
        },
        tasks=VOC.info.tasks,
        layout="benchmark_RELEASE/dataset/{img/*.jpg, cls/*.mat, inst/*.mat, train.txt, val.txt}",
        disk="2 GB",
        files=(
            RemoteFile(  # checksum as in torchvision, datasets/sbd.py
                "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
                "md5:82b4d87ceb2ed10f6038a1cba92111cb",
            ),
        ),
        access="The splits trainaug and voc12val read VOC 2012, seg11train and seg11valid VOC 2011, below root_voc.",
    )
    labels = VOC.labels

    def __init__(
        self, root: str | Path, split: str, root_voc: str | Path | None = None, instances: bool = True
    ) -> None:
        self.expect_split(split, self.info.splits)
        root = self.expect_files(root)
        if (below := root / "benchmark_RELEASE" / "dataset").is_dir():
            root = below
        self.folder = self.expect_files(root, "train.txt", "val.txt", "img", "cls")
        if split in ("train", "val"):
            self.pairs = self._listed(split)
        elif root_voc is None:
            raise SegfolioError(
                f"{split} of SBD is computed from the lists of VOC {2011 if '11' in split else 2012}; set "
                "root_voc to the folder that holds VOCdevkit"
            )
        elif split == "voc12val":
            self.pairs = VOC(root_voc, "val", 2012, instances).pairs
        elif split == "seg11train":
            self.pairs = VOC(root_voc, "train", 2011, instances).pairs
        elif split == "seg11valid":
            train = {pair.image_id for pair in self._listed("train")}
            self.pairs = [pair for pair in VOC(root_voc, "val", 2011, instances).pairs if pair.image_id not in train]
        else:
            known = [*self._listed("train"), *self._listed("val"), *VOC(root_voc, "train", 2012, instances).pairs]
            pairs = {pair.image_id: pair for pair in known}  # of two, VOC's
            validation = {pair.image_id for pair in VOC(root_voc, "val", 2012, instances).pairs}
            self.pairs = [pairs[image_id] for image_id in sorted(pairs.keys() - validation)]
        if not self.pairs:
            raise SegfolioError(f"{self.folder}: {split} has no image; train.txt and val.txt name one per line")
        self.instance_maps = [_instance_map(pair) for pair in self.pairs] if instances else []
        self.expect_pairs(self.folder / f"{split}.txt" if split in ("train", "val") else self.folder)

    def _listed(self, split: str) -> list[FilePair]:
        names = (self.folder / f"{split}.txt").read_text().split()
        return [
            FilePair(name, self.folder / "img" / f"{name}.jpg", self.folder / "cls" / f"{name}.mat") for name in names
        ]

    def read_ids(self, path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """The classes of a file of `cls/`, or of a PNG of VOC."""
        if path.suffix != ".mat":
            return super().read_ids(path)
        return as_ids(_fields(path, "GTcls", "Segmentation")[0], path)

    def segments(self, path: Path) -> Segments:
        """The objects of a file of `inst/`, or of a PNG of VOC."""
        if path.suffix != ".mat":
            return read_objects(path)
        ids, classes = (as_ids(values, path) for values in _fields(path, "GTinst", "Segmentation", "Categories"))
        classes = classes.ravel().astype(np.int64)
        if ids.max() > len(classes) or not np.isin(classes, self.labels.ids[1:]).all():
            raise SegfolioError(
                f"{path} has objects up to {ids.max()} and the classes {classes.tolist()}, expected one of 1 to 20 for "
                "each object; copy it again"
            )
        numbers = np.flatnonzero(np.bincount(ids.ravel())[1:]) + 1
        return id_map_segments(ids, numbers, torch.from_numpy(classes[numbers - 1]))

    def problems(self) -> Iterable[Problem]:
        """Of images and PNGs; MATLAB files have no header to look at."""
        beside = [pair._replace(mask=path) for pair, path in zip(self.pairs, self.instance_maps, strict=False)]
        readable = [p._replace(mask=None) if p.mask and p.mask.suffix == ".mat" else p for p in self.pairs + beside]
        return dict.fromkeys(header_problems(readable, self.image_space))  # an image's are told once


def _instance_map(pair: FilePair) -> Path:
    assert pair.mask is not None
    folder = "inst" if pair.mask.suffix == ".mat" else "SegmentationObject"
    return pair.mask.parents[1] / folder / pair.mask.name


def _fields(path: Path, variable: str, *names: str) -> list[npt.NDArray[Any]]:
    """Fields of a variable that is a struct."""
    struct = read_mat(path, variable)[variable]
    if missing := set(names) - set(struct.dtype.names or ()):
        raise SegfolioError(f"{path}: {variable} has no {listed(missing)}; expected the file as published")
    return [struct[name][0, 0] for name in names]
