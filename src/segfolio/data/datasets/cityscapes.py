"""Cityscapes (Cordts et al., 2016, arXiv 1604.01685): 19 classes of street scenes, 8 of them with instances."""

from itertools import zip_longest
from pathlib import Path

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import DatasetInfo
from segfolio.data.formats import instance_ids
from segfolio.data.instance_maps import PairedInstances
from segfolio.data.labels import LabelSpace
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

_CLASSES = {  # id in the files and colour; cityscapesscripts, helpers/labels.py
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
_VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255)  # 255: the license plate's -1 in 8 bits


class Cityscapes(PairedInstances):
    """Images of 2048x1024 from 50 cities, with the label ids as distributed; no trainIds are to be made.

    The labels of the test images are not public: they have no target. A group of things that nobody told apart is
    a crowd.

    Args:
        root: the folder that holds `leftImg8bit` and `gtFine` or `gtCoarse`.
        split: train, val or test; with coarse annotation train, val or train_extra.
        coarse: read `gtCoarse` in place of `gtFine`.
        instances: False to read semantic maps alone, at a quarter of the annotation's cost.

    Raises:
        SegfolioError: an unknown split, another folder, an image without its annotation.
    """

    info = DatasetInfo(
        title="Cityscapes",
        url="https://www.cityscapes-dataset.com",
        licence="non-commercial research and teaching, upon registration",
        splits={"train": 2975, "val": 500, "test": 1525, "train_extra": 19998},
        tasks=("semantic", "instance", "panoptic"),
        layout=(
            "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png and "
            "*_gtFine_instanceIds.png (or gtCoarse)"
        ),
        disk="12 GB, with train_extra 57 GB",
        access=(
            "Register at https://www.cityscapes-dataset.com/downloads, then unpack leftImg8bit_trainvaltest.zip and "
            "gtFine_trainvaltest.zip (coarse: leftImg8bit_trainextra.zip and gtCoarse.zip) into the root folder."
        ),
    )
    labels = LabelSpace(
        names=tuple(_CLASSES),
        ids=tuple(number for number, _ in _CLASSES.values()),
        void_ids=_VOID,
        things=("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
        palette=tuple(color for _, color in _CLASSES.values()),
    )

    def __init__(self, root: str | Path, split: str, coarse: bool = False, instances: bool = True) -> None:
        self.expect_split(split, self.info.splits)
        if split == ("test" if coarse else "train_extra"):
            found, wanted = ("coarse", "false") if coarse else ("fine", "true")
            raise SegfolioError(f"Cityscapes {split} has no {found} annotation; set coarse: {wanted}")
        kind = "gtCoarse" if coarse else "gtFine"
        annotated = split != "test"
        root = self.expect_files(root, f"leftImg8bit/{split}", *([f"{kind}/{split}"] if annotated else []))
        folder = root / "leftImg8bit" / split
        images = {
            path.name.removesuffix("_leftImg8bit.png"): path for path in folder.glob("[!.]*/[!.]*_leftImg8bit.png")
        }
        if not images:
            raise SegfolioError(f"{folder} holds no image, expected {self.info.layout}")
        names = sorted(images)
        masks, self.instance_maps = (
            [root / kind / split / images[name].parent.name / f"{name}_{kind}_{ids}.png" for name in names]
            if read
            else []
            for ids, read in (("labelIds", annotated), ("instanceIds", annotated and instances))
        )
        self.pairs = [FilePair(name, images[name], mask) for name, mask in zip_longest(names, masks)]
        self.expect_pairs(folder)

    def segments(self, path: Path) -> Segments:
        return instance_ids.read(path, self.labels)
