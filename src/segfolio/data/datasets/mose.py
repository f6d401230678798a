"""MOSE (Ding et al., arXiv 2302.01872): objects that are hidden and come back, among others like them."""

from pathlib import Path

from segfolio.data.dataset import DatasetInfo
from segfolio.data.object_videos import ObjectVideos

_SAMPLES = ("sample_train", "sample_val")


class MOSE(ObjectVideos):
    """Each video a clip, see `ObjectVideos`. Of the training videos all frames are annotated, of the others the first,
    for the publisher's server to evaluate.

    The release of SAM 2 divides the training videos in two, one to train on and one to be tested on: `sample_train` and
    `sample_val`, by lists that it holds as `training/assets/MOSE_sample_train_list.txt` and `MOSE_sample_val_list.txt`.

    Args:
        root: the folder that holds `train` and `valid`, as the archives unpack, and those lists.
        split: train, valid, test, sample_train or sample_val.

    Raises:
        SegfolioError: another folder, a video without frames or annotation, a frame for training without its mask.
    """

    info = DatasetInfo(
        title="MOSE",
        url="https://henghuiding.github.io/MOSE",
        licence="CC BY-NC-SA 4.0",
        tasks=("semantic", "instance"),
        layout="<split>/JPEGImages/<video>/*.jpg and <split>/Annotations/<video>/*.png; for the two samples of train "
        "MOSE_sample_train_list.txt and MOSE_sample_val_list.txt",
        access="Follow the links of the page; unpack train.tar.gz and valid.tar.gz into the root. The lists are in "
        "training/assets of https://github.com/facebookresearch/sam2.",
    )

    def __init__(self, root: str | Path, split: str) -> None:
        if split not in _SAMPLES:
            self.find_split(root, split, split, partly=split != "train")
            return
        names, images, masks = f"MOSE_{split}_list.txt", "train/JPEGImages", "train/Annotations"
        root = self.expect_files(root, names, images, masks)
        self.find((root / names).read_text().split(), root / images, root / masks, root / names)
