"""PASCAL VOC (Everingham et al., 2010): 20 classes of objects, each object outlined, 2007 to 2012."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import DatasetInfo, RemoteFile, SegmentationDataset, listed
from segfolio.data.formats.images import read_id_map
from segfolio.data.instance_maps import PairedInstances, id_map_segments
from segfolio.data.labels import Color, LabelSpace
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

_BORDER = 255  # a band around the objects and what was too difficult, in both maps
_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_SPLITS = {  # images with a segmentation, of each year's development kit
    2007: {"train": 209, "val": 213, "trainval": 422, "test": 210},
    2008: {"train": 511, "val": 512, "trainval": 1023},
    2009: {"train": 749, "val": 750, "trainval": 1499},
    2010: {"train": 964, "val": 964, "trainval": 1928},
    2011: {"train": 1112, "val": 1111, "trainval": 2223},
    2012: {"train": 1464, "val": 1449, "trainval": 2913},
}


def _archive(path: str, md5: str) -> RemoteFile:
    return RemoteFile(f"https://thor.robots.ox.ac.uk/pascal/VOC/{path}", f"md5:{md5}")


ARCHIVES = {  # checksums as in torchvision, datasets/voc.py
    2007: (
        _archive("voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64"),
        _archive("voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f"),
    ),
    2008: (_archive("voc2008/VOCtrainval_14-Jul-2008.tar", "2629fa636546599198acfcfbfcf1904a"),),
    2009: (_archive("voc2009/VOCtrainval_11-May-2009.tar", "a3e00b113cfcfebf17e343f59da3caa1"),),
    2010: (_archive("voc2010/VOCtrainval_03-May-2010.tar", "da459979d0c395079b5c75ee67908abb"),),
    2011: (_archive("voc2011/VOCtrainval_25-May-2011.tar", "6c3384ef61512963050cb5d687e5bf1e"),),
    2012: (_archive("voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd"),),
}


def voc_palette(count: int) -> tuple[Color, ...]:
    """The colours of the ids 0 to `count` - 1: an id's bits go in turn to red, green and blue, the highest first.

    Source: VOC development kit, `VOClabelcolormap.m`.
    """

    def channel(i: int, first: int) -> int:
        return sum((i >> (3 * bit + first) & 1) << (7 - bit) for bit in range(8))

    return tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(count))


class VOC(PairedInstances):
    """The images of one year that have a segmentation, and the objects in them.

    The border around objects, 255 in the files, is void in the semantic map and belongs to no object.

    Args:
        root: the folder that holds `VOCdevkit/`; archives are unpacked into it as they are.
        split: train, val or trainval; of 2007 test as well.
        year: 2007 to 2012.
        instances: whether objects are read, or semantic maps alone.

    Raises:
        SegfolioError: an unknown split or year, another folder, a list that is empty, names missing files or is
            another year's.
    """

    info = DatasetInfo(
        title="PASCAL VOC 2012",
        url="http://host.robots.ox.ac.uk/pascal/VOC",
        licence="research use; images of Flickr under their own terms",
        splits=_SPLITS[2012],
        tasks=("semantic", "instance", "panoptic"),
        layout=(
            "VOCdevkit/VOC<year>/{JPEGImages/*.jpg, SegmentationClass/*.png, SegmentationObject/*.png, "
            "ImageSets/Segmentation/<split>.txt}"
        ),
        disk="2 GB",
        files=ARCHIVES[2012],
        access="Of other years, unpack VOCtrainval_*.tar (of 2007 VOCtest_*.tar too) from the year's page into root.",
    )
    labels = LabelSpace(
        names=_NAMES,
        void_ids=(_BORDER,),
        things=_NAMES[1:],
        background=_NAMES[0],
        palette=voc_palette(len(_NAMES)),
    )

    def __init__(self, root: str | Path, split: str, year: int = 2012, instances: bool = True) -> None:
        if year not in _SPLITS:
            raise SegfolioError(f"PASCAL VOC has no segmentation of {year}; it has {listed(map(str, _SPLITS))}")
        self.info = replace(VOC.info, title=f"PASCAL VOC {year}", splits=_SPLITS[year], files=ARCHIVES[year])
        self.expect_split(split, self.info.splits)
        listing = f"ImageSets/Segmentation/{split}.txt"
        folder = self.expect_files(voc_folder(self, root, year), listing, "JPEGImages", "SegmentationClass")
        ids = (folder / listing).read_text().split()
        if not ids:
            raise SegfolioError(f"{folder / listing} is empty, expected the name of an image per line")
        if other := _other_year(ids, split, year):
            raise SegfolioError(
                f"{folder / listing} is of {other}: {len(ids)} images, among them {max(ids)}, expected the list of "
                f"{year}; unpack the archive of {year} again, or set year to {other}"
            )
        self.pairs = [
            FilePair(name, folder / "JPEGImages" / f"{name}.jpg", folder / "SegmentationClass" / f"{name}.png")
            for name in ids
        ]
        self.instance_maps = [folder / "SegmentationObject" / f"{name}.png" for name in ids] if instances else []
        self.expect_pairs(folder / listing)

    def segments(self, path: Path) -> Segments:
        return read_objects(path)


def read_objects(path: Path) -> Segments:
    """Read a map of `SegmentationObject`; an object is of the class that most of its pixels have.

    Raises:
        SegfolioError: a map that cannot be decoded, is not of the size of the one in `SegmentationClass`, or has an
            object of no class.
    """
    ids, classes = read_id_map(path), read_id_map(other := path.parents[1] / "SegmentationClass" / path.name)
    if ids.shape != classes.shape:
        raise SegfolioError(
            f"{path} is {ids.shape[1]}x{ids.shape[0]} pixels but {other} is {classes.shape[1]}x{classes.shape[0]}"
        )
    pairs = ids.astype(np.int64) * 256 + classes
    pixels = np.bincount(pairs.ravel(), minlength=256 * (int(ids.max()) + 1)).reshape(-1, 256)  # [id, class]
    numbers = np.setdiff1d(np.flatnonzero(pixels.any(1)), (0, _BORDER))
    of_things = pixels[numbers, 1 : len(_NAMES)]
    if (stray := ~of_things.any(1)).any():
        raise SegfolioError(
            f"{path}: object {listed(map(str, numbers[stray]))} has no pixel of a class in {other}; the two maps "
            "belong together, copy both again"
        )
    return id_map_segments(ids, numbers, torch.from_numpy(1 + of_things.argmax(1)))


def voc_folder(dataset: SegmentationDataset, root: str | Path, year: int) -> Path:
    """The folder `VOC<year>` below `root`, where the archives put it or one has moved it.

    Raises:
        SegfolioError: there is none; what `root` and its `VOCdevkit` hold.
    """
    root = dataset.expect_files(root)
    for below in ("VOCdevkit", "TrainVal/VOCdevkit", "."):  # the second is the archive of 2011
        if (folder := root / below / f"VOC{year}").is_dir():
            return folder
    if (root / "VOCdevkit").is_dir():
        return dataset.expect_files(root / "VOCdevkit", f"VOC{year}")
    return dataset.expect_files(root, f"VOCdevkit/VOC{year}")


def _other_year(ids: Sequence[str], split: str, year: int) -> int | None:
    """The year whose list this is, if not `year`: by its length, or by images that came later (2011_003276)."""
    for other, splits in _SPLITS.items():
        if other != year and len(ids) == splits.get(split):
            return other
    years = (int(name[:4]) for name in ids if name[4:5] == "_" and name[:4].isdecimal())
    return latest if (latest := max(years, default=0)) > year else None
