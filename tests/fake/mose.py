"""MOSE: `<split>/JPEGImages/<video>/*.jpg`, `<split>/Annotations/<video>/*.png`; all frames."""

from pathlib import Path

from tests.fake import youtube_vos


def write(root: Path) -> None:
    """As YouTube-VOS, with every frame, and of `valid` with the masks of the first alone; the training videos in two
    lists, too."""
    youtube_vos.write(root, step=1, later=False)
    for name, video in zip(("train", "val"), youtube_vos.VIDEOS["train"], strict=True):
        (root / f"MOSE_sample_{name}_list.txt").write_text(f"{video}\n")
