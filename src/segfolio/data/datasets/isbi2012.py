"""ISBI 2012 EM segmentation challenge (Arganda-Carreras et al., 2015): membranes in electron microscopy."""

from pathlib import Path

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import DatasetInfo, PairedFiles
from segfolio.data.image_space import GREY
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError

_SLICES = range(30)


class ISBI2012(PairedFiles):
    """The 30 labelled slices, 512x512, grey.

    The labels of the challenge's test stack are not public, so that the labelled stack is split: validation
    and test are the same slices, and figures on them are no figures of the challenge.

    Args:
        root: the folder that holds `image/` and `label/`.
        split: train, val or test.
        val: the slices of validation and test; all others train.

    Raises:
        SegfolioError: an unknown split, another folder, missing slices, a `val` that leaves a split empty.
    """

    info = DatasetInfo(
        title="ISBI 2012 EM",
        url="https://github.com/zhixuhao/unet",
        licence="challenge terms",
        splits={"train": 24, "val": 6, "test": 6},
        adjustable=True,
        layout="image/N.png and label/N.png, N from 0 to 29",
        disk="10 MB",
        access="The folder data/membrane/train/ of the page's repository is the root.",
    )
    labels = LabelSpace(names=("membrane", "cell"), ids=(0, 255))
    image_space = GREY

    def __init__(self, root: str | Path, split: str, val: tuple[int, ...] = (24, 25, 26, 27, 28, 29)) -> None:
        self.expect_split(split, self.info.splits)
        root = self.expect_files(root, "image", "label")
        if not 0 < len(set(val)) < len(_SLICES) or not set(val) <= set(_SLICES):
            raise SegfolioError(f"val is {list(val)}, expected some, not all, of the slices 0 to 29")
        chosen = (f"{n}.png" for n in _SLICES if (n in val) == (split != "train"))
        self.pairs = [FilePair(name[:-4], root / "image" / name, root / "label" / name) for name in chosen]
        self.expect_pairs(root)
