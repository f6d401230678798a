"""Cityscapes: `leftImg8bit/<split>/<city>/` and beside it `gtFine` and `gtCoarse`, label ids and instance ids."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from segfolio.data.datasets.cityscapes import Cityscapes
from segfolio.data.formats.images import write_id_map, write_image
from tests.fake import blocks, noisy

OBJECTS = (24000, 24001, 26000, 33, 29000)
"""In the top strip, from the left: two persons, a car, a group of bicycles, a caravan."""


def street(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.uint16]:
    """Instance ids `[H, W]`: blocks of stuff and void, and `OBJECTS` in the upper 16 rows."""
    ids = blocks(rng, [0, 4, 7, 8, 11, 21, 23], size).astype(np.uint16)
    ids[:16] = np.array(OBJECTS)[np.arange(size[1]) * len(OBJECTS) // size[1]]
    return ids


def class_ids(instances: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint8]:
    return np.where(instances < 1000, instances, instances // 1000).astype(np.uint8)


def picture(rng: np.random.Generator, ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    labels = Cityscapes.labels
    return noisy(rng, labels.colors()[labels.encode(ids, "fake")].astype(int))


def write(
    root: Path, train: int = 3, val: int = 2, test: int = 1, train_extra: int = 0, size: tuple[int, int] = (64, 80)
) -> None:
    """Cities of two images; the test's annotations are blank, as distributed."""
    rng = np.random.default_rng(0)
    for split, count in {"train": train, "val": val, "test": test, "train_extra": train_extra}.items():
        for i in range(count):
            city = f"{split}burg{i // 2}"
            name = f"{city}_{i:06d}_000019"
            instances = street(rng, size)
            write_image(
                root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", picture(rng, class_ids(instances))
            )
            for kind in {"test": ["gtFine"], "train_extra": ["gtCoarse"]}.get(split, ["gtFine", "gtCoarse"]):
                truth = instances * (split != "test")
                if kind == "gtCoarse":
                    truth[-16:] = 0
                stem = root / kind / split / city / f"{name}_{kind}"
                write_id_map(stem.with_name(f"{stem.name}_labelIds.png"), class_ids(truth))
                write_id_map(stem.with_name(f"{stem.name}_instanceIds.png"), truth)
