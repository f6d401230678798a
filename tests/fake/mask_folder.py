"""A user's folder: `images/<split>/*.jpg`, `masks/<split>/*.png` and `classes.yaml`."""

from pathlib import Path

import numpy as np

from segfolio.data.formats.images import write_image, write_palette
from tests.fake import blocks, noisy

CLASSES = """\
names: [ground, tree, car]
void: [255]
things: [car]
palette: [[120, 110, 100], [40, 140, 60], [60, 80, 200]]
"""


def write(root: Path, train: int = 4, val: int = 2, test: int = 2, size: tuple[int, int] = (64, 96)) -> None:
    rng = np.random.default_rng(0)
    colors = np.zeros((256, 3), np.uint8)
    colors[:3] = [(120, 110, 100), (40, 140, 60), (60, 80, 200)]
    for split, count in {"train": train, "val": val, "test": test}.items():
        for i in range(count):
            ids = blocks(rng, [0, 1, 2, 255], size)
            write_image(root / "images" / split / f"{i}.jpg", noisy(rng, colors[ids].astype(int)))
            write_palette(root / "masks" / split / f"{i}.png", ids, colors)
    (root / "classes.yaml").write_text(CLASSES)
