"""Penn-Fudan: `PennFudanPed/{PNGImages,PedMasks}`, a map of 1 to N for each image."""

from pathlib import Path

import numpy as np

from segfolio.data.formats.images import write_id_map, write_image
from tests.fake import noisy


def write(root: Path, fudan: int = 4, penn: int = 6, size: tuple[int, int] = (48, 64)) -> None:
    """Pedestrians of 8x24 pixels, 1 to 3 of them on an image in turn."""
    rng = np.random.default_rng(0)
    names = [f"FudanPed{i:05d}" for i in range(1, fudan + 1)] + [f"PennPed{i:05d}" for i in range(1, penn + 1)]
    for place, name in enumerate(names):
        ids = np.zeros(size, np.uint8)
        for number in range(1, place % 3 + 2):
            ids[12:36, 16 * number : 16 * number + 8] = number
        pixels = np.repeat((60 + 150 * (ids > 0))[..., None], 3, 2)
        write_image(root / "PennFudanPed" / "PNGImages" / f"{name}.png", noisy(rng, pixels))
        write_id_map(root / "PennFudanPed" / "PedMasks" / f"{name}_mask.png", ids)
