"""YouTube-VOS: `<split>/JPEGImages/<video>/*.jpg`, `<split>/Annotations/<video>/*.png`; every fifth frame."""

from pathlib import Path

import numpy as np

from segfolio.data.formats.images import write_image, write_palette
from tests.fake import noisy
from tests.fake.davis2017 import COLORS

VIDEOS = {"train": {"0a1b": 3, "1c2d": 2}, "valid": {"2e3f": 4}}
STEP = 5


def write(root: Path, step: int = STEP, later: bool = True, size: tuple[int, int] = (48, 64)) -> None:
    """Object 1 moves to the right, object 2 comes in the second frame; of `valid` that in which each comes is
    annotated.

    Args:
        step: between the numbers of frames.
        later: of `valid`, object 2 is annotated, too.
    """
    rng = np.random.default_rng(0)
    for split, videos in VIDEOS.items():
        for name, frames in videos.items():
            for frame in range(frames):
                ids = np.zeros(size, np.uint8)
                ids[4:12, 4 * frame : 4 * frame + 8] = 1
                if frame:
                    ids[16:24, 40:56] = 2
                file = f"{frame * step:05d}"
                write_image(root / split / "JPEGImages" / name / f"{file}.jpg", noisy(rng, 40 + COLORS[ids] // 2))
                if split == "train" or frame <= later:
                    write_palette(root / split / "Annotations" / name / f"{file}.png", ids, COLORS)
