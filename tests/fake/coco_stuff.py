"""COCO-Stuff: `{split}2017/`, `stuffthingmaps/{split}2017/`; and 10k: `images/`, `annotations/`, `imageLists/`."""

from pathlib import Path

import numpy as np
import scipy.io

from segfolio.data.formats.images import write_id_map, write_image
from tests.fake import blocks, noisy
from tests.fake.matlab import write_hdf5

_PNG_IDS = [0, 2, 91, 181, 255]  # person, car, banner, wood, unlabelled
_MAT_IDS = {"1.0": [2, 4, 82, 172, 1], "1.1": [1, 3, 92, 182, 0]}  # the same


def write(root: Path, train: int = 4, val: int = 2, size: tuple[int, int] = (64, 96)) -> None:
    rng = np.random.default_rng(0)
    for split, count, first in (("train", train, 1), ("val", val, 1001)):
        for name in (f"{i:012d}" for i in range(first, first + count)):
            places = blocks(rng, [0, 1, 2, 3, 4], size)
            write_image(root / f"{split}2017/{name}.jpg", _image(rng, places))
            write_id_map(root / f"stuffthingmaps/{split}2017/{name}.png", np.array(_PNG_IDS, np.uint8)[places])


def write_10k(
    root: Path, train: int = 4, test: int = 2, size: tuple[int, int] = (64, 96), version: str = "1.1"
) -> None:
    rng = np.random.default_rng(0)
    (root / "imageLists").mkdir(parents=True)
    names = [f"COCO_train2014_{i:012d}" for i in range(train + test)]
    for name in names:
        places = blocks(rng, [0, 1, 2, 3, 4], size)
        write_image(root / f"images/{name}.jpg", _image(rng, places))
        write_map(root / f"annotations/{name}.mat", np.array(_MAT_IDS[version], np.uint8)[places], version)
    (root / "imageLists/train.txt").write_text("\n".join(names[:train]))
    (root / "imageLists/test.txt").write_text("\n".join(names[train:]))


def write_map(path: Path, ids: np.ndarray, version: str = "1.1") -> None:
    path.parent.mkdir(exist_ok=True)
    if version == "1.0":
        write_hdf5(path, {"S": ids})
    else:
        scipy.io.savemat(path, {"S": ids})


def _image(rng: np.random.Generator, places: np.ndarray) -> np.ndarray:
    return noisy(rng, np.array([(200, 40, 40), (40, 40, 200), (40, 160, 40), (160, 120, 60), (0, 0, 0)])[places])
