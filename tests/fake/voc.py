"""PASCAL VOC: `VOCdevkit/VOC<year>/` with palette PNGs, a border of 255 around each object, and the lists."""

from pathlib import Path

import cv2
import numpy as np

from segfolio.data.datasets.voc import voc_palette
from segfolio.data.formats.images import write_image, write_palette
from tests.fake import Ids, noisy

PALETTE = np.array(voc_palette(256), np.uint8)


def names(year: int, split: str, count: int) -> list[str]:
    """As in the year's lists; of 2007 without a year."""
    first = {"train": 0, "val": 500, "test": 800}[split]
    prefix = "" if year == 2007 else f"{year}_"
    return [f"{prefix}{first + i:06d}" for i in range(count)]


def maps(rng: np.random.Generator, size: tuple[int, int], objects: int) -> tuple[Ids, Ids]:
    """Classes and objects, both `[H, W]`: rectangles side by side with a border of 2 pixels around each."""
    classes, ids = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    width = size[1] // max(objects, 1)
    for number, kind in enumerate(rng.choice(np.arange(1, 21), objects, replace=False), 1):
        box = slice(8, size[0] - 8), slice((number - 1) * width + 4, number * width - 4)
        for image, value in ((classes, kind), (ids, number)):
            image[box] = 255
            image[box][2:-2, 2:-2] = value
    return classes, ids


def write(root: Path, year: int = 2012, train: int = 3, val: int = 2, size: tuple[int, int] = (48, 96)) -> None:
    """Each image has 2 objects, but the first of a split has none."""
    rng = np.random.default_rng(year)
    folder = root / "VOCdevkit" / f"VOC{year}"
    lists = {"train": names(year, "train", train), "val": names(year, "val", val)}
    if year == 2007:
        lists["test"] = names(year, "test", 1)
    for split, found in (lists | {"trainval": sorted(lists["train"] + lists["val"])}).items():
        for kind in ("Segmentation", "Main"):
            (folder / "ImageSets" / kind).mkdir(parents=True, exist_ok=True)
            (folder / "ImageSets" / kind / f"{split}.txt").write_text("".join(f"{name}\n" for name in found))
    for found in lists.values():
        for place, name in enumerate(found):
            classes, ids = maps(rng, size, objects=2 * (place > 0))
            (folder / "JPEGImages").mkdir(exist_ok=True)
            write_image(folder / "JPEGImages" / f"{name}.jpg", noisy(rng, PALETTE[classes], 5))
            write_palette(folder / "SegmentationClass" / f"{name}.png", classes, PALETTE)
            write_palette(folder / "SegmentationObject" / f"{name}.png", ids, PALETTE)


def to_rgb(path: Path) -> None:
    """What a careless tool does to a palette PNG."""
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_COLOR))
