"""SUN RGB-D (Song et al., 2015): indoor scenes of four depth cameras, 37 classes."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torchvision.tv_tensors import Mask

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import DatasetInfo, SegmentationDataset, listed
from segfolio.data.formats.images import read_image
from segfolio.data.formats.matlab import as_ids, open_hdf5, read_mat
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Target, to_image
from segfolio.errors import SegfolioError
from segfolio.words import counted

_TOOLBOX = "SUNRGBDtoolbox"
_META, _SEG = f"{_TOOLBOX}/Metadata/SUNRGBDMeta.mat", f"{_TOOLBOX}/Metadata/SUNRGBD2Dseg.mat"
_SPLIT = f"{_TOOLBOX}/traintestSUNRGBD/allsplit.mat"

_NAMES = (  # seg37list.mat of the toolbox, in the order of the ids
    "wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk, shelves, "
    "curtain, dresser, pillow, mirror, floor_mat, clothes, ceiling, books, fridge, tv, paper, towel, shower_curtain, "
    "box, whiteboard, person, night_stand, toilet, sink, lamp, bathtub, bag"
)


class SUNRGBD(SegmentationDataset):
    """The colour images with the 37 classes of the toolbox; what has none of these is void.

    Label maps stay in the toolbox's file and are read one at a time.

    Args:
        root: the folder that holds `SUNRGBD/` and `SUNRGBDtoolbox/`.
        split: train or test, `alltrain` and `alltest` of the toolbox.

    Raises:
        SegfolioError: an unknown split, another folder, files of the toolbox that do not belong together, missing
            images.
    """

    info = DatasetInfo(
        title="SUN RGB-D",
        url="https://rgbd.cs.princeton.edu",
        licence="research use",
        splits={"train": 5285, "test": 5050},
        layout=f"SUNRGBD/<camera>/.../image/*.jpg, {_META}, {_SEG}, {_SPLIT}",
        disk="8 GB",
        access="SUNRGBD.zip and SUNRGBDtoolbox.zip of https://rgbd.cs.princeton.edu, unpacked into root",
    )
    labels = LabelSpace(names=tuple(_NAMES.split(", ")), ids=tuple(range(1, 38)), void_ids=(0,))

    def __init__(self, root: str | Path, split: str) -> None:
        self.expect_split(split, self.info.splits)
        self.root = self.expect_files(root, "SUNRGBD", _META, _SEG, _SPLIT)
        known = _images(self.root / _META)
        wanted = [_scene(cell.item()) for cell in read_mat(self.root / _SPLIT, f"all{split}")[f"all{split}"].flat]
        if strangers := set(wanted) - known.keys():
            raise SegfolioError(f"{self.root / _SPLIT} names scenes that {_META} lacks: {listed(strangers, 3)}")
        with open_hdf5(self.root / _SEG, "SUNRGBD2Dseg/seglabel") as file:
            if (maps := len(file["SUNRGBD2Dseg/seglabel"])) != len(known):
                raise SegfolioError(
                    f"{self.root / _SEG} has {maps} label maps, but {_META} has {len(known)} images; copy both again"
                )
        self.places = [known[scene][0] for scene in wanted]
        self.pairs = [FilePair(scene, self.root / "SUNRGBD" / known[scene][1], None) for scene in wanted]
        if missing := [str(pair.image) for pair in self.pairs if not pair.image.is_file()]:
            raise SegfolioError(f"{self.root / _SPLIT}: {counted(len(missing), 'image')} missing: {listed(missing, 3)}")

    def __len__(self) -> int:
        return len(self.pairs)

    def image_id(self, index: int) -> str:
        return self.pairs[index].image_id

    def image_file(self, index: int) -> Path:
        return self.pairs[index].image

    def files(self) -> Iterable[Path]:
        return [self.root / _META, self.root / _SEG, *(pair.image for pair in self.pairs)]

    def problems(self) -> Iterable[Problem]:
        return header_problems(self.pairs, self.image_space)

    def read(self, index: int) -> Sample:
        """Decode an image, and read its label map.

        Raises:
            SegfolioError: a file that cannot be read, sizes that differ, an id outside the label space.
        """
        pair = self.pairs[index]
        image = to_image(read_image(pair.image))
        size = (image.shape[-2], image.shape[-1])
        source = f"{self.root / _SEG} (map {self.places[index] + 1}, {pair.image_id})"
        with open_hdf5(self.root / _SEG) as file:
            ids = as_ids(file[file["SUNRGBD2Dseg/seglabel"][self.places[index], 0]][()].T, source)
        if ids.shape != size:
            raise SegfolioError(f"{source} is {ids.shape[1]}x{ids.shape[0]} pixels, its image {size[1]}x{size[0]}")
        return Sample(image, pair.image_id, size, Target(Mask(torch.from_numpy(self.labels.encode(ids, source)))))


def _images(meta: Path) -> dict[str, tuple[int, str]]:
    """Of each scene, its place in the toolbox's files and its image, below `SUNRGBD/`."""
    paths = read_mat(meta, "SUNRGBDMeta")["SUNRGBDMeta"]
    if "rgbpath" not in (paths.dtype.names or ()):
        raise SegfolioError(f"{meta}: SUNRGBDMeta has no field rgbpath; expected the file of {_TOOLBOX}")
    images = [_below(np.asarray(cell).item()) for cell in paths["rgbpath"].flat]
    return {image.parents[1].as_posix(): (place, image.as_posix()) for place, image in enumerate(images)}


def _scene(path: str) -> str:
    return _below(path).as_posix()


def _below(path: str) -> PurePosixPath:
    """A path of the authors' machine, from below its folder SUNRGBD."""
    parts = PurePosixPath(path).parts
    return PurePosixPath(*parts[parts.index("SUNRGBD") + 1 :] if "SUNRGBD" in parts else parts)
