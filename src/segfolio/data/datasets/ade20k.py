"""ADE20K as the scene parsing benchmark has it (Zhou et al., 2017): 150 classes of indoor and outdoor scenes."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import DatasetInfo, PairedFiles, RemoteFile, listed
from segfolio.data.formats.images import read_image
from segfolio.data.formats.numbered import numbered_segments
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

_NAMES = (  # objectInfo150.txt of CSAILVision/sceneparsing, the first of the synonyms
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, "
    "table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, "
    "armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, "
    "chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, "
    "case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, "
    "book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, "
    "hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television, airplane, dirt "
    "track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, "
    "conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, "
    "cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, "
    "blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, "
    "bulletin board, shower, radiator, glass, clock, flag"
)
_STUFF = (  # ids that categoryMapping.txt of CSAILVision/placeschallenge gives no objects
    "1 2 3 4 5 6 7 10 12 14 17 18 22 26 27 29 30 35 41 47 49 52 53 55 60 61 62 64 69 78 80 85 92 95 97 100 101 102 106 "
    "107 110 114 115 118 123 129 132 141 142 146"
)
_COLORS = bytes.fromhex(  # color150.mat of CSAILVision/sceneparsing
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33ff06528fff8cccff04"
    "ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff08ffd607ffe0ffb8060aff47ff290a07ffff"
    "e0ff086608ffff3d06ffc207ff7a0800ff14ff0829ff05990633ffeb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe000"
    "99ff000000ffff470000ebff00adff1f00ff0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff00"
    "0052ff00ff2900ffad0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc2"
    "00ff52000aff0070ff3300ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa8500ff00ff5cb800ff"
    "ff001f00b8ff00d6ffff00705cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3ffcc00ff008f00ffeb85ff00ff00ebf500ff"
    "ff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cff"
    "b8ff000085ffffd60019c2c266ff005c00ff"
)
_THINGS = np.setdiff1d(np.arange(1, 151), np.array(_STUFF.split(), int))  # ids, in the order of the instance benchmark
_CLASSES = tuple(_NAMES.split(", "))
_FOLDERS = {"train": "training", "val": "validation"}
_FOLDER = "ADEChallengeData2016"


class ADE20K(PairedFiles):
    """SceneParse150: what is none of its classes (0 in the files) is void. Evaluated at the images' own sizes.

    With `annotations_instance/` of the Places challenge 2017 beside `annotations/` there are segments: its
    objects, and the stuff of the semantic map. Where the two annotations disagree, objects lie above stuff.

    Args:
        root: the folder that holds `ADEChallengeData2016/`.
        split: train or val.

    Raises:
        SegfolioError: an unknown split, another folder, images without annotation or annotations without image.
    """

    info = DatasetInfo(
        title="ADE20K (SceneParse150)",
        url="http://sceneparsing.csail.mit.edu",
        licence="images for non-commercial research, annotations BSD 3-clause",
        splits={"train": 20210, "val": 2000},
        tasks=("semantic", "instance", "panoptic"),
        layout=f"{_FOLDER}/images/{{training,validation}}/*.jpg, {_FOLDER}/annotations/{{training,validation}}/*.png "
        f"and, for objects, {_FOLDER}/annotations_instance/{{training,validation}}/*.png",
        disk="1 GB",
        files=(
            RemoteFile(
                f"http://data.csail.mit.edu/places/ADEchallenge/{_FOLDER}.zip", "md5:7328b3957e407ddae1d3cbf487f149ef"
            ),
            RemoteFile(
                "http://sceneparsing.csail.mit.edu/data/ChallengeData2017/annotations_instance.tar",
                "sha256:5eb0db23c64779bc646ca535a3d495db0a75700b9467f8a79eecaf728b266acd",
                _FOLDER,
            ),
        ),
    )
    labels = LabelSpace(
        names=_CLASSES,
        ids=tuple(range(1, 151)),
        void_ids=(0,),
        things=tuple(_CLASSES[i - 1] for i in _THINGS),
        palette=tuple((r, g, b) for r, g, b in zip(_COLORS[::3], _COLORS[1::3], _COLORS[2::3], strict=True)),
    )

    def __init__(self, root: str | Path, split: str) -> None:
        self.expect_split(split, _FOLDERS)
        images, masks = (f"{_FOLDER}/{kind}/{_FOLDERS[split]}" for kind in ("images", "annotations"))
        root = self.expect_files(root, images, masks)
        self.pair_folders(root / images, root / masks)
        self.expect_pairs(root)
        names = [pair.image_id for pair in self.pairs]
        folder = root / _FOLDER / "annotations_instance"
        self.objects = [folder / _FOLDERS[split] / f"{name}.png" for name in names] if folder.exists() else []
        if missing := [path.name for path in self.objects if not path.is_file()]:
            raise SegfolioError(
                f"{folder} lacks the objects of {len(missing)} of {len(names)} images: {listed(missing, 3)}; copy it "
                "again, or remove it to go without objects"
            )

    def files(self) -> Iterable[Path]:
        return [*super().files(), *self.objects]

    def problems(self) -> Iterable[Problem]:
        yield from super().problems()
        yield from header_problems([FilePair(path.stem, path, None) for path in self.objects], self.image_space)

    def read(self, index: int) -> Sample:
        """Decode an image, its annotation and its objects.

        Raises:
            SegfolioError: a file that cannot be decoded, sizes that differ, an id outside the label space.
        """
        sample = super().read(index)
        if self.objects and sample.target and sample.target.semantic is not None:
            sample.target.segments = self._segments(index, sample.target.semantic.numpy())
        return sample

    def _segments(self, index: int, semantic: npt.NDArray[np.integer]) -> Segments:
        path = self.objects[index]
        category, number, _ = np.moveaxis(read_image(path), -1, 0)
        if category.shape != semantic.shape:
            raise SegfolioError(
                f"{path} is {category.shape[1]}x{category.shape[0]} pixels, its image {semantic.shape[1]}x"
                f"{semantic.shape[0]}; copy both again"
            )
        is_object = number > 0
        found = category[is_object]
        if found.size and not 1 <= found.min() <= found.max() <= len(_THINGS):
            raise SegfolioError(
                f"{path} has objects of category {found.min()} to {found.max()}, expected 1 to {len(_THINGS)} in red "
                "and the object's number in green; copy it again"
            )
        classes = semantic.copy()
        classes[is_object] = (_THINGS - 1)[found - 1]
        return numbered_segments(classes, number, self.labels)
