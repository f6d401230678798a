"""MOSE (Ding et al., arXiv 2302.01872): objects that are hidden and come back, among others like them."""

from pathlib import Path

from segfolio.data.dataset import DatasetInfo
from segfolio.data.object_videos import ObjectVideos


class MOSE(ObjectVideos):
    """Each video a clip, see `ObjectVideos`. Of the training videos all frames are annotated, of the others the first,
    for the publisher's server to evaluate.

    Args:
        root: the folder that holds `train` and `valid`, as the archives unpack.
        split: train, valid or test.

    Raises:
        SegfolioError: another folder, a video without frames or annotation, a frame for training without its mask.
    """

    info = DatasetInfo(
        title="MOSE",
        url="https://henghuiding.github.io/MOSE",
        licence="CC BY-NC-SA 4.0",
        tasks=("semantic", "instance"),
        layout="<split>/JPEGImages/<video>/*.jpg and <split>/Annotations/<video>/*.png",
        access="Follow the links of the page; unpack train.tar.gz and valid.tar.gz into the root.",
    )

    def __init__(self, root: str | Path, split: str) -> None:
        self.find_split(root, split, split, partly=split != "train")
