"""SceneParse150: `ADEChallengeData2016/{images,annotations,annotations_instance}/{training,validation}/`."""

from pathlib import Path

import numpy as np

from segfolio.data.datasets.ade20k import ADE20K
from segfolio.data.formats.images import write_id_map, write_image
from tests.fake import blocks, noisy

CATEGORIES = {20: 8, 21: 9}  # of the instance benchmark: chair and car


def write(root: Path, train: int = 4, val: int = 2, size: tuple[int, int] = (64, 96), objects: bool = True) -> None:
    """Every block of chair or car is one object."""
    rng = np.random.default_rng(0)
    colors = np.array([(0, 0, 0), *ADE20K.labels.palette])
    root = root / "ADEChallengeData2016"
    for split, folder, count in (("train", "training", train), ("val", "validation", val)):
        for name in (f"ADE_{split}_{i:08d}" for i in range(1, count + 1)):
            ids = blocks(rng, [0, 1, 3, 20, 21], size)
            write_image(root / f"images/{folder}/{name}.jpg", noisy(rng, colors[ids]))
            write_id_map(root / f"annotations/{folder}/{name}.png", ids)
            if objects:
                write_image(root / f"annotations_instance/{folder}/{name}.png", objects_of(ids))


def objects_of(ids: np.ndarray, side: int = 16) -> np.ndarray:
    """The annotation of objects: category in red, number in green."""
    number = np.arange(1, ids.size // side**2 + 1, dtype=np.uint8).reshape(ids.shape[0] // side, -1)
    number = np.kron(number, np.ones((side, side), np.uint8))
    category = np.array([CATEGORIES.get(i, 0) for i in range(256)], np.uint8)[ids]
    return np.stack([category, number * (category > 0), np.zeros_like(ids)], -1)
