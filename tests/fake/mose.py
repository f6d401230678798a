"""MOSE: `<split>/JPEGImages/<video>/*.jpg`, `<split>/Annotations/<video>/*.png`; all frames."""

from pathlib import Path

from tests.fake import youtube_vos


def write(root: Path) -> None:
    """As YouTube-VOS, with every frame, and of `valid` with the masks of the first alone."""
    youtube_vos.write(root, step=1, later=False)
