"""DAVIS 2017: `ImageSets/2017/<split>.txt`, `JPEGImages/480p/<sequence>/`, `Annotations/480p/<sequence>/`."""

from pathlib import Path

import numpy as np

from segfolio.data.formats.images import write_image, write_palette
from tests.fake import noisy

SEQUENCES = {"train": {"bear": 3, "dogs-jump": 2}, "val": {"camel": 3}, "test-dev": {"girl": 3}}
COLORS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), *[(255, 255, 255)] * 252], np.uint8)


def write(root: Path, resolution: str = "480p", size: tuple[int, int] = (48, 64)) -> None:
    """Object 1 moves to the right by 4 pixels each frame, object 3 is gone after the first, void lies at the bottom."""
    rng = np.random.default_rng(0)
    for split, sequences in SEQUENCES.items():
        (root / "ImageSets" / "2017").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "2017" / f"{split}.txt").write_text("".join(f"{name}\n" for name in sequences))
        for name, frames in sequences.items():
            for frame in range(frames):
                ids = np.zeros(size, np.uint8)
                ids[4:12, 4 * frame : 4 * frame + 8] = 1
                ids[16:24, 40:56] = 2
                if frame == 0:
                    ids[28:36, 10:20] = 3
                ids[-4:] = 255
                write_image(
                    root / "JPEGImages" / resolution / name / f"{frame:05d}.jpg", noisy(rng, 40 + COLORS[ids] // 2)
                )
                if split != "test-dev" or frame == 0:
                    write_palette(root / "Annotations" / resolution / name / f"{frame:05d}.png", ids, COLORS)
