"""The 2018 Data Science Bowl: `stage1_train/<id>/images/<id>.png` (RGBA), `stage1_train/<id>/masks/*.png`."""

from pathlib import Path

import cv2
import numpy as np

from segfolio.data.formats.images import write_id_map


def write(root: Path, images: int = 10, size: tuple[int, int] = (64, 80), nuclei: int = 5) -> None:
    """Bright squares of 8 pixels on a grid of 16; `images` folders a00, a01, ..."""
    rng = np.random.default_rng(0)
    rows, columns = size[0] // 16, size[1] // 16
    for name in (f"a{i:02d}" for i in range(images)):
        folder = root / "stage1_train" / name
        pixels = rng.integers(10, 40, (*size, 4), dtype=np.uint8)
        for place in rng.choice(rows * columns, nuclei, replace=False):
            y, x = 16 * (place // columns) + 4, 16 * (place % columns) + 4
            mask = np.zeros(size, np.uint8)
            mask[y : y + 8, x : x + 8] = 255
            pixels[mask > 0] += 160
            write_id_map(folder / "masks" / f"{name}-{place:03d}.png", mask)
        pixels[..., 3] = 255
        (folder / "images").mkdir()
        cv2.imwrite(str(folder / "images" / f"{name}.png"), pixels)
