"""PASCAL-Context as its authors distribute it: `trainval/*.mat`, `labels.txt`, over VOC 2010."""

from pathlib import Path

import numpy as np
from scipy.io import savemat

from segfolio.data.datasets.pascal_context import CLASSES_59
from tests.fake import blocks, voc

IDS = [0, 1, 2, 9, 397, 459]
"""In the maps: none, a class that is not among the 59, aeroplane, bicycle, table, and again none of the 59."""


def write(root: Path, train: int = 3, val: int = 2, size: tuple[int, int] = (48, 96)) -> None:
    """Over `voc.write`, whose images have nothing to do with these maps."""
    voc.write(root, 2010, train, val, size)
    rng = np.random.default_rng(2)
    (root / "labels.txt").write_text("".join(f"{number}: {name}\n" for number, name in names().items()))
    (root / "trainval").mkdir()
    for image in (root / "VOCdevkit" / "VOC2010" / "JPEGImages").iterdir():
        ids = np.array(IDS, np.uint16)[blocks(rng, list(range(len(IDS))), size)]
        ids[0, : len(IDS)] = IDS  # each occurs
        savemat(root / "trainval" / f"{image.stem}.mat", {"LabelMap": ids}, do_compression=True)


def names() -> dict[int, str]:
    """459 of them, where the real file has `aeroplane`, `bicycle` and `table`; the others of the 59 from 100 on."""
    spelt = {"diningtable": "table", "clothes": "cloth", "bedcloth": "bedclothes"}
    found = {number: f"some thing {number}" for number in range(1, 460)}
    others = [spelt.get(name, name) for name in CLASSES_59 if name not in ("aeroplane", "bicycle", "diningtable")]
    return found | {2: "aeroplane", 9: "bicycle", 397: "table"} | dict(enumerate(others, 100))
