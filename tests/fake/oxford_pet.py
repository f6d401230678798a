"""Oxford-IIIT Pet: `images/*.jpg`, `annotations/trimaps/*.png` (1 pet, 2 background, 3 border) and the lists."""

from pathlib import Path

import cv2
import numpy as np

from segfolio.data.datasets.oxford_pet import BREEDS
from segfolio.data.formats.images import write_id_map, write_image
from tests.fake import noisy

GREY = np.array([0, 220, 30, 130])


def write(root: Path, trainval: int = 4, test: int = 2, size: tuple[int, int] = (48, 64)) -> None:
    """A bright disc of 10 pixels on each image, breeds in turn from both ends; the border is 2 pixels wide."""
    rng = np.random.default_rng(0)
    for split, count in {"trainval": trainval, "test": test}.items():
        lines = []
        for i in range(count):
            breed = i if i % 2 == 0 else -i
            name = f"{BREEDS[breed]}_{i + 1 + 100 * (split == 'test')}"
            trimap = np.full(size, 2, np.uint8)
            centre = (24 + i, 24)
            cv2.circle(trimap, centre, 12, 3, -1)
            cv2.circle(trimap, centre, 10, 1, -1)
            write_image(root / "images" / f"{name}.jpg", noisy(rng, np.repeat(GREY[trimap][..., None], 3, 2)))
            write_id_map(root / "annotations" / "trimaps" / f"{name}.png", trimap)
            lines.append(f"{name} {breed % len(BREEDS) + 1} {1 + BREEDS[breed][0].islower()} 1\n")
        (root / "annotations" / f"{split}.txt").write_text("".join(lines))
