"""NYU Depth v2 (Silberman et al., 2012): indoor scenes with the 40 classes of Gupta et al. (2013)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.dataset import DatasetInfo, RemoteFile, SegmentationDataset
from segfolio.data.formats.matlab import open_hdf5, read_mat
from segfolio.data.formats.numbered import numbered_segments
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Target, to_image
from segfolio.errors import SegfolioError

_DATA, _SPLITS, _MAPPING = "nyu_depth_v2_labeled.mat", "splits.mat", "classMapping40.mat"
_META = "https://github.com/ankurhanda/nyuv2-meta-data/raw/b92d15c506876dada1ac4086938e30ebc4deb49b"

_NAMES = (  # className of classMapping40.mat
    "wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk, shelves, "
    "curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, refridgerator, television, paper, towel, "
    "shower curtain, box, whiteboard, person, night stand, toilet, sink, lamp, bathtub, bag, otherstructure, "
    "otherfurniture, otherprop"
)
_CLASSES = tuple(_NAMES.split(", "))
_STUFF = ("wall", "floor", "door", "ceiling", "otherstructure")  # no objects in the benchmark nyud40Obj


class NYUD(SegmentationDataset):
    """The 1,449 labelled frames, 640x480; colour alone, without depth.

    Of the file's 894 classes 40 are made, as the mapping says; unlabelled pixels are void. Objects of things
    are those of the file, one by class and number; `number` is the frame's in the file, from 1.

    Args:
        root: the folder of the three files.
        split: train or test.

    Raises:
        SegfolioError: an unknown split, another folder, files that are not those of the dataset.
    """

    info = DatasetInfo(
        title="NYU Depth v2",
        url="https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html",
        licence="research use",
        splits={"train": 795, "test": 654},
        tasks=("semantic", "instance", "panoptic"),
        layout=f"{_DATA}, {_SPLITS} and {_MAPPING}",
        disk="3 GB",
        files=(
            RemoteFile(
                f"http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/{_DATA}",
                "md5:520609c519fba3ba5ac58c8fefcc3530",
                None,
            ),
            RemoteFile(
                f"{_META}/{_SPLITS}", "sha256:6e081404491a8bfba2f066beaa9713ef6046f9007aa5f799f2a350506a580cee", None
            ),
            RemoteFile(
                f"{_META}/{_MAPPING}", "sha256:ff177194cce9a2163517f1e1e6f1c64c50987162f542dedddc04bbf6ebe6d851", None
            ),
        ),
    )
    labels = LabelSpace(
        names=_CLASSES,
        ids=tuple(range(1, 41)),
        void_ids=(0,),
        things=tuple(name for name in _CLASSES if name not in _STUFF),
    )

    def __init__(self, root: str | Path, split: str) -> None:
        self.expect_split(split, self.info.splits)
        self.root = self.expect_files(root, _DATA, _SPLITS, _MAPPING)
        variable = f"{split}Ndxs"
        self.numbers = [int(n) for n in read_mat(self.root / _SPLITS, variable)[variable].flat]
        classes = read_mat(self.root / _MAPPING, "mapClass")["mapClass"].ravel()
        if classes.max() > self.labels.num_classes:
            raise SegfolioError(f"{self.root / _MAPPING} holds class {classes.max()}, expected classes 1 to 40")
        self.classes = np.append(0, classes).astype(np.uint16)  # of each of the file's labels
        with open_hdf5(self.root / _DATA, "images", "labels", "instances") as file:
            self.frames = len(file["images"])
        if strangers := [n for n in self.numbers if not 1 <= n <= self.frames]:
            raise SegfolioError(
                f"{self.root / _SPLITS} names frame {strangers[0]}, but {_DATA} has 1 to {self.frames}; copy both again"
            )

    def __len__(self) -> int:
        return len(self.numbers)

    def image_id(self, index: int) -> str:
        return f"{self.numbers[index]:04d}"

    def files(self) -> Iterable[Path]:
        return [self.root / name for name in (_DATA, _SPLITS, _MAPPING)]

    def read(self, index: int) -> Sample:
        """One frame of the file.

        Raises:
            SegfolioError: a file that cannot be read, a label without a class.
        """
        place = self.numbers[index] - 1
        source = f"{self.root / _DATA} (frame {place + 1})"
        with open_hdf5(self.root / _DATA) as file:  # columns come before rows in the file
            pixels, labels, numbers = (file[name][place] for name in ("images", "labels", "instances"))
        if (largest := int(labels.max())) >= len(self.classes):
            raise SegfolioError(
                f"{source} holds label {largest}, but {_MAPPING} ends at {len(self.classes) - 1}; copy both again"
            )
        classes = self.labels.encode(self.classes[labels.T], source)
        objects = np.where(numbers > 0, labels.astype(np.int64) << 8 | numbers, 0).T
        segments = numbered_segments(classes, objects, self.labels)
        image = to_image(pixels.transpose(2, 1, 0))
        target = Target(Mask(torch.from_numpy(classes)), segments, number=place + 1)
        return Sample(image, self.image_id(index), classes.shape, target)
