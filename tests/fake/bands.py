"""A user's folder of images of several bands: the class of a pixel is the band that is bright there."""

from pathlib import Path

import numpy as np

from segfolio.data.formats.images import write_id_map
from tests.fake import blocks, tiff

RANGE = (0, 10_000)


def write(root: Path, channels: int = 4, suffix: str = ".tif", size: tuple[int, int] = (32, 48)) -> None:
    rng = np.random.default_rng(0)
    for split, count in {"train": 4, "val": 2, "test": 2}.items():
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            ids = blocks(rng, [0, 1], size)
            pixels = rng.integers(500, 3000, (*size, channels)).astype(np.uint16)
            np.put_along_axis(pixels, (channels - 1 - ids.astype(np.int64))[..., None], 9000, 2)
            path = root / "images" / split / f"{i}{suffix}"
            if suffix == ".npy":
                np.save(path, pixels)
            else:
                path.write_bytes(tiff.encode(pixels, deflate=True, predictor=True))
            write_id_map(root / "masks" / split / f"{i}.png", ids)
    (root / "classes.yaml").write_text("names: [field, water]\n")
