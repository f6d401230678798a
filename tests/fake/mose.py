"""MOSE: `<split>/JPEGImages/<video>/*.jpg`, `<split>/Annotations/<video>/*.png`; all frames."""

import shutil
from pathlib import Path

from tests.fake import youtube_vos


def write(root: Path) -> None:
    """As YouTube-VOS, with every frame, and of `valid` with the masks of the first alone; of `train` with one video
    more, and divided by two lists."""
    youtube_vos.write(root, step=1, later=False)
    for folder in (root / "train" / "JPEGImages", root / "train" / "Annotations"):
        shutil.copytree(folder / "0a1b", folder / "3f4a")
    for name, videos in (("train", "1c2d 3f4a"), ("val", "0a1b")):
        (root / f"MOSE_sample_{name}_list.txt").write_text("\n".join(videos.split()))
