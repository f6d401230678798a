"""DAVIS 2017 (Pont-Tuset et al., arXiv 1704.00675): videos in which one or more objects are followed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import DatasetInfo, PairedFiles, RemoteFile
from segfolio.data.formats.images import read_id_map
from segfolio.data.instance_maps import id_map_segments
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

_VOID = 255


class DAVIS2017(PairedFiles):
    """Frames in the order of their sequences; an image's id is `<sequence>/<frame>`.

    All objects are of one class. In the files an object keeps its id throughout a sequence: segment i of a frame is
    the object `object_ids(index)[i]`, which is its track. Of the test sequences the first frame alone is annotated; the
    others have no target.

    Args:
        root: the folder that holds `JPEGImages`, `Annotations` and `ImageSets`, or the folder `DAVIS` with these.
        split: train, val, or whatever list `ImageSets/2017` holds, as test-dev.
        resolution: 480p or Full-Resolution.
        videos: whether a sequence is a clip, or each frame an image by itself.

    Attributes:
        sequences: the places of each sequence's frames, by name.

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
    labels = LabelSpace(
        names=("object", "background"),
        ids=(1, 0),
        void_ids=(_VOID,),
        things=("object",),
        background="background",
        palette=((128, 0, 0), (0, 0, 0)),
    )

    def __init__(self, root: str | Path, split: str, resolution: str = "480p", videos: bool = False) -> None:
        if root and (Path(root) / "DAVIS").is_dir():
            root = Path(root) / "DAVIS"  # as the archive unpacks
        images, masks = f"JPEGImages/{resolution}", f"Annotations/{resolution}"
        root = self.expect_files(root, "ImageSets/2017", images, masks)
        lists = {path.stem: path for path in (root / "ImageSets/2017").glob("*.txt")}
        self.expect_split(split, lists)
        self.pairs, self.sequences = [], dict[str, range]()
        for sequence in dict.fromkeys(lists[split].read_text().split()):
            frames = sorted((root / images / sequence).glob("[!.]*.jpg"))
            if not frames:
                raise SegfolioError(f"{lists[split]} names {sequence}, but {root / images / sequence} holds no frame")
            first = len(self.pairs)
            self.sequences[sequence] = range(first, first + len(frames))
            for frame in frames:
                mask = root / masks / sequence / f"{frame.stem}.png"
                known = not split.startswith("test") or mask.is_file()
                self.pairs.append(FilePair(f"{sequence}/{frame.stem}", frame, mask if known else None))
        if not self.pairs:
            raise SegfolioError(f"{lists[split]} is empty, expected the name of a sequence per line")
        self.expect_pairs(lists[split])
        if videos:
            self.clips = list(self.sequences.values())

    def read_ids(self, path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        ids = read_id_map(path)
        return np.where(ids == _VOID, ids, ids > 0).astype(np.uint8)

    def read(self, index: int) -> Sample:
        """As `PairedFiles`, and the objects in the order of their ids."""
        sample, mask = super().read(index), self.pairs[index].mask
        if sample.target is not None and mask is not None:
            sample.target.segments = objects(read_id_map(mask))
        return sample

    def object_ids(self, index: int) -> list[int]:
        """The id within the sequence of each segment of a frame, in the order of the segments."""
        mask = self.pairs[index].mask
        return [] if mask is None else _object_ids(read_id_map(mask)).tolist()


def objects(ids: npt.NDArray[np.integer]) -> Segments:
    """A map `[H, W]` of object ids, 0 where there is none and 255 where nobody knows, to one segment for each."""
    numbers = _object_ids(ids)
    segments = id_map_segments(ids, numbers, torch.zeros(len(numbers), dtype=torch.int64))
    return replace(segments, tracks=torch.from_numpy(numbers))


def _object_ids(ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    found = np.flatnonzero(np.bincount(ids.ravel()))
    return found[(found > 0) & (found != _VOID)]
