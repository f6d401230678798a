"""ISBI 2012 as PNGs: `image/N.png` and `label/N.png`, both grey, labels 0 and 255."""

from pathlib import Path

import numpy as np

from segfolio.data.formats.images import write_id_map, write_image
from tests.fake import blocks, noisy


def write(root: Path, size: tuple[int, int] = (128, 128)) -> None:
    rng = np.random.default_rng(0)
    for n in range(30):
        ids = blocks(rng, [0, 255, 255, 255], size)
        write_image(root / "image" / f"{n}.png", noisy(rng, 60 + ids[..., None] // 2))
        write_id_map(root / "label" / f"{n}.png", ids)
