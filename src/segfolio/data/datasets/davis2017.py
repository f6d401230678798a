"""DAVIS 2017 (Pont-Tuset et al., arXiv 1704.00675): videos in which one or more objects are followed."""

from pathlib import Path

from segfolio.data.dataset import DatasetInfo, RemoteFile
from segfolio.data.object_videos import ObjectVideos


class DAVIS2017(ObjectVideos):
    """Frames in the order of their sequences, see `ObjectVideos`. Of the test sequences the first frame alone is
    annotated.

    Args:
        root: the folder that holds `JPEGImages`, `Annotations` and `ImageSets`, or the folder `DAVIS` with these.
        split: train, val, or whatever list `ImageSets/2017` holds, as test-dev.
        resolution: 480p or Full-Resolution.
        videos: whether a sequence is a clip, or each frame an image by itself.

    Raises:
        SegfolioError: an unknown split, another folder, a sequence without frames, a frame without its mask.
    """

    info = DatasetInfo(
        title="DAVIS 2017",
        url="https://davischallenge.org/davis2017/code.html",
        licence="research use",
        splits={"train": 4209, "val": 1999, "test-dev": 2086},
        tasks=("semantic", "instance"),
        layout=(
            "ImageSets/2017/<split>.txt, JPEGImages/480p/<sequence>/*.jpg and Annotations/480p/<sequence>/*.png (or "
            "Full-Resolution)"
        ),
        disk="0.9 GB",
        files=(
            RemoteFile(  # checksum: tensorflow/datasets, video/davis/checksums.tsv
                "https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip",
                "sha256:e3d0b5b77c3d031b000a19e0e25e3e2cac65d183755601bc2cf066df1a2aa492",
            ),
        ),
        access="The test sequences and the full resolution are archives of the page, to be unpacked into the root.",
    )

    def __init__(self, root: str | Path, split: str, resolution: str = "480p", videos: bool = False) -> None:
        if root and (Path(root) / "DAVIS").is_dir():
            root = Path(root) / "DAVIS"  # as the archive unpacks
        images, masks = f"JPEGImages/{resolution}", f"Annotations/{resolution}"
        root = self.expect_files(root, "ImageSets/2017", images, masks)
        lists = {path.stem: path for path in (root / "ImageSets/2017").glob("*.txt")}
        self.expect_split(split, lists)
        partly, names = split.startswith("test"), lists[split].read_text().split()
        self.find(names, root / images, root / masks, lists[split], partly, videos)
