"""PASCAL-Context (Mottaghi et al., 2014): every pixel of VOC 2010's images, objects and surroundings."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from segfolio.data.checks.headers import FilePair, header_problems
from segfolio.data.checks.problems import Problem
from segfolio.data.dataset import DatasetInfo, PairedFiles, listed
from segfolio.data.datasets.voc import ARCHIVES, VOC, voc_folder
from segfolio.data.formats.matlab import as_ids, read_mat
from segfolio.data.labels import LabelSpace
from segfolio.errors import SegfolioError

CLASSES_59 = (  # in the order of the distribution's 59_labels.txt: VOC's 20, then the surroundings
    *VOC.labels.things,
    *("bag", "bed", "bench", "book", "building", "cabinet", "ceiling", "clothes", "computer", "cup", "door", "fence"),
    *("floor", "flower", "food", "grass", "ground", "keyboard", "light", "mountain", "mouse", "curtain", "platform"),
    *("sign", "plate", "road", "rock", "shelves", "sidewalk", "sky", "snow", "bedcloth", "track", "tree", "truck"),
    *("wall", "water", "window", "wood"),
)
_IN_LABELS_TXT = {"diningtable": "table", "clothes": "cloth", "bedcloth": "bedclothes"}
_LAST_ID = 459


class PascalContext(PairedFiles):
    """The annotation as its authors distribute it, one MATLAB file per image with 459 ids.

    Which ids the 59 classes have is read from `labels.txt`. All other ids are void with 59 classes, background
    with 60 (the first class), classes of their own with 459. Figures of 59 and 60 classes are not comparable.

    Args:
        root: the folder that holds `trainval/` and `labels.txt`.
        split: train or val, of VOC 2010.
        classes: 59, 60 or 459.
        root_voc: the folder that holds `VOCdevkit/`; `root` if not given.

    Raises:
        SegfolioError: an unknown split, another folder, files missing, a `labels.txt` that lacks a class.
    """

    info = DatasetInfo(
        title="PASCAL-Context",
        url="https://cs.stanford.edu/~roozbeh/pascal-context",
        licence="research use; images of Flickr under their own terms",
        splits={"train": 4998, "val": 5105},
        layout="trainval/*.mat, labels.txt and VOCdevkit/VOC2010/{JPEGImages/*.jpg, ImageSets/Main/<split>.txt}",
        disk="2 GB",
        files=ARCHIVES[2010],
        access="Unpack trainval.tar.gz, from the authors' page, into root (root/trainval/*.mat), labels.txt beside it.",
    )

    def __init__(
        self, root: str | Path, split: str, classes: Literal[59, 60, 459] = 59, root_voc: str | Path | None = None
    ) -> None:
        self.expect_split(split, self.info.splits)
        root = self.expect_files(root, "trainval", "labels.txt")
        self.labels, self._ids = _label_space(root / "labels.txt", classes)
        listing = f"ImageSets/Main/{split}.txt"
        voc = self.expect_files(voc_folder(self, root_voc or root, 2010), listing, "JPEGImages")
        names = (voc / listing).read_text().split()
        if not names:
            raise SegfolioError(f"{voc / listing} is empty, expected the name of an image per line")
        self.pairs = [
            FilePair(name, voc / "JPEGImages" / f"{name}.jpg", root / "trainval" / f"{name}.mat") for name in names
        ]
        self.expect_pairs(voc / listing)

    def problems(self) -> Iterable[Problem]:
        """Of the images; MATLAB files have no header to look at."""
        return header_problems([pair._replace(mask=None) for pair in self.pairs], self.image_space)

    def read_ids(self, path: Path) -> npt.NDArray[np.uint16]:
        """The ids of a file, those without a class as 0."""
        return self._ids[as_ids(read_mat(path, "LabelMap")["LabelMap"], path)]


def _label_space(path: Path, classes: int) -> tuple[LabelSpace, npt.NDArray[np.uint16]]:
    """The classes, and `[65536]` what each id of a file is read as: itself, or 0 where it has no class."""
    known = _read_names(path)
    if classes == _LAST_ID:
        ids = tuple(known)
        labels = LabelSpace(tuple(known.values()), ids, void_ids=(0,), ignore_index=max(255, len(known)))
    else:
        numbers = {name.replace(" ", ""): number for number, name in known.items()}
        wanted = [_IN_LABELS_TXT.get(name, name) for name in CLASSES_59]
        if missing := [name for name in wanted if name not in numbers]:
            raise SegfolioError(f"{path} lacks {listed(missing)}; expected the names of the distribution")
        ids = tuple(numbers[name] for name in wanted)
        if classes == 60:
            labels = LabelSpace(("background", *CLASSES_59), (0, *ids), background="background")
        elif classes == 59:
            labels = LabelSpace(CLASSES_59, ids, void_ids=(0,))
        else:
            raise SegfolioError(f"classes of PASCAL-Context is {classes}, expected 59, 60 or 459")
    table = np.arange(0x10000, dtype=np.uint16)
    table[list(known.keys() - set(ids))] = 0
    return labels, table


def _read_names(path: Path) -> dict[int, str]:
    """The names of `labels.txt`, lines like `3: air conditioner`, by id."""
    names = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        before, _, name = line.partition(":")
        if not before.strip().isdecimal() or not name.strip():
            raise SegfolioError(f"{path} line {number} is {line!r}, expected an id and a name like `2: aeroplane`")
        names[int(before)] = name.strip()
    if names.keys() != set(range(1, _LAST_ID + 1)):
        raise SegfolioError(f"{path} names {len(names)} ids, expected 1 to {_LAST_ID}; copy it again")
    return names
