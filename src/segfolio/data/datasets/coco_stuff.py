"""COCO-Stuff (Caesar et al., 2018, arXiv 1612.03716): COCO with 91 classes of stuff, in two sizes."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import DatasetInfo, PairedFiles
from segfolio.data.datasets.coco_instances import IMAGES
from segfolio.data.formats.matlab import as_ids, is_hdf5, open_hdf5, read_mat
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError

# labels.txt of nightrome/cocostuff, ids 1 to 91 and 92 to 182
_THINGS = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street sign, "
    "stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, hat, "
    "backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, "
    "baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife, "
    "spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, "
    "potted plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard, cell "
    "phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase, scissors, teddy bear, hair "
    "drier, toothbrush, hair brush"
)
_STUFF = (
    "banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, "
    "ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, "
    "floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, "
    "grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, "
    "net, paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, "
    "roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, "
    "structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other, "
    "wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood"
)
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)  # things that COCO names but does not annotate
_LAST_THING = 91
_NAMES = {i: name for i, name in enumerate(f"{_THINGS}, {_STUFF}".split(", "), 1) if i not in _UNUSED}


def _labels(ids: Iterable[int], void: int) -> LabelSpace:
    """The 171 classes, under the ids of one release."""
    things = tuple(name for i, name in _NAMES.items() if i <= _LAST_THING)
    return LabelSpace(names=tuple(_NAMES.values()), ids=tuple(ids), void_ids=(void,), things=things)


class COCOStuff164k(PairedFiles):
    """The images of COCO 2017 with the maps of things and stuff in one; pixels without label are void.

    Args:
        root: the folder that the other two are in.
        split: train or val; takes the place of `{split}`.
        images: the folder of the images.
        annotations: the folder of the PNGs.

    Raises:
        SegfolioError: an unknown split, another folder, images without PNG or PNGs without image.
    """

    info = DatasetInfo(
        title="COCO-Stuff 164k",
        url="https://github.com/nightrome/cocostuff",
        licence="annotations CC BY 4.0, images of Flickr under their own terms",
        splits={"train": 118287, "val": 5000},
        layout="{split}2017/*.jpg and stuffthingmaps/{split}2017/*.png, or the folders that the arguments give",
        disk="20 GB",
        files=IMAGES,
        access="Unpack stuffthingmaps_trainval2017.zip, under Downloads of https://github.com/nightrome/cocostuff, "
        "into stuffthingmaps/ below the root.",
    )
    labels = _labels((i - 1 for i in _NAMES), void=255)

    def __init__(
        self,
        root: str | Path,
        split: str,
        images: str = "{split}2017",
        annotations: str = "stuffthingmaps/{split}2017",
    ) -> None:
        self.expect_split(split, self.info.splits)
        images, annotations = (path.replace("{split}", split) for path in (images, annotations))
        root = self.expect_files(root, images, annotations)
        self.pair_folders(root / images, root / annotations)
        self.expect_pairs(root)


class COCOStuff10k(PairedFiles):
    """The 10,000 images of the first release, with one MATLAB file each; pixels without label are void.

    Args:
        root: the folder that holds `images/`, `annotations/` and `imageLists/`.
        split: train or test.
        version: of the annotations, 1.0 (MaskFormer's figures) or 1.1 (mmsegmentation's). They differ in
            pixels, ids and file format.

    Raises:
        SegfolioError: an unknown split or version, another folder, a list that is empty or names missing files.
    """

    info = DatasetInfo(
        title="COCO-Stuff 10k",
        url="https://github.com/nightrome/cocostuff10k",
        licence="annotations CC BY 4.0, images of Flickr under their own terms",
        splits={"train": 9000, "test": 1000},
        layout="images/*.jpg, annotations/*.mat and imageLists/{train,test}.txt",
        disk="2 GB",
        access="cocostuff-10k-v1.1.zip, linked from https://github.com/nightrome/cocostuff10k, unpacked into root",
    )
    versions = {"1.0": _labels(range(2, 2 + len(_NAMES)), void=1), "1.1": _labels(_NAMES, void=0)}

    def __init__(self, root: str | Path, split: str, version: str = "1.1") -> None:
        self.expect_split(split, self.info.splits)
        if version not in self.versions:
            raise SegfolioError(f"version is {version!r}, expected {' or '.join(self.versions)}")
        self.version, self.labels = version, self.versions[version]
        root = self.expect_files(root, "images", "annotations", f"imageLists/{split}.txt")
        listing = root / "imageLists" / f"{split}.txt"
        names = listing.read_text().split()
        if not names:
            raise SegfolioError(f"{listing} is empty, expected the name of an image per line")
        self.pairs = [FilePair(n, root / "images" / f"{n}.jpg", root / "annotations" / f"{n}.mat") for n in names]
        self.expect_pairs(listing)

    def problems(self) -> Iterable[Problem]:
        """Of the images; annotations are looked at when they are read."""
        return header_problems([pair._replace(mask=None) for pair in self.pairs], self.image_space)

    def read_ids(self, path: Path) -> npt.NDArray[np.uint16]:
        found = "1.0" if is_hdf5(path) else "1.1"
        if found != self.version:
            raise SegfolioError(f"{path} is of version {found} of {self.info.title}, but version is {self.version!r}")
        if found == "1.1":
            return as_ids(read_mat(path, "S")["S"], path)
        with open_hdf5(path, "S") as file:
            return as_ids(file["S"][()].T, path)
