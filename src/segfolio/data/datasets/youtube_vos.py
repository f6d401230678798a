"""YouTube-VOS (Xu et al., arXiv 1809.03327), of 2018 or 2019: videos in which objects of 94 classes are followed."""

from pathlib import Path

from segfolio.data.dataset import DatasetInfo
from segfolio.data.object_videos import ObjectVideos


class YouTubeVOS(ObjectVideos):
    """Each video a clip of every fifth frame, or of all, see `ObjectVideos`.

    Of the training videos every fifth frame is annotated; of the others the frame in which an object is first seen, for
    the publisher's server to evaluate.

    Args:
        root: the folder that holds `train`, `valid` and `test`, as the archives unpack.
        split: train, valid or test.
        all_frames: of the archives `<split>_all_frames`, beside the annotation of `<split>`.

    Raises:
        SegfolioError: another folder, a video without frames or annotation, a frame for training without its mask.
    """

    info = DatasetInfo(
        title="YouTube-VOS",
        url="https://youtube-vos.org/dataset/vos",
        licence="CC BY 4.0 of the annotations; the videos are their authors'",
        tasks=("semantic", "instance"),
        layout="<split>/JPEGImages/<video>/*.jpg and <split>/Annotations/<video>/*.png",
        access="Register at the page; unpack train.zip, valid.zip and test.zip into the root, each to its folder.",
    )

    def __init__(self, root: str | Path, split: str, all_frames: bool = False) -> None:
        frames = f"{split}_all_frames" if all_frames else split
        self.find_split(root, split, frames, partly=all_frames or split != "train")
