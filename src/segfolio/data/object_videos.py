"""`ObjectVideos`: videos as folders of frames, with a PNG of object ids beside each frame that is annotated."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from segfolio.data.checks.headers import FilePair
from segfolio.data.dataset import PairedFiles
from segfolio.data.formats.images import read_id_map
from segfolio.data.instance_maps import id_map_segments
from segfolio.data.labels import LabelSpace
from segfolio.data.sample import Sample, Target
from segfolio.data.segments import Segments
from segfolio.errors import SegfolioError

VOID = 255


class ObjectVideos(PairedFiles):
    """The reading that DAVIS and its successors share; an image's id is `<video>/<frame>`.

    All objects are of one class. In the files an object keeps its id throughout a video, which is its track. In a clip,
    a frame that is not annotated has a target without segments; a frame that is an image by itself has none.

    A subclass calls `find`.

    Attributes:
        sequences: the places of each video's frames, by name.
    """

    labels = LabelSpace(
        names=("object", "background"),
        ids=(1, 0),
        void_ids=(VOID,),
        things=("object",),
        background="background",
        palette=((128, 0, 0), (0, 0, 0)),
    )
    sequences: dict[str, range]

    def find(
        self, names: Iterable[str], images: Path, masks: Path, source: Path, partly: bool = False, videos: bool = True
    ) -> None:
        """Fill `pairs`, `sequences` and `clips` with the frames `<name>/*.jpg` and the masks `<name>/*.png`.

        Args:
            source: what names the videos.
            partly: some frames alone are annotated.
            videos: whether a video is a clip, or each frame an image by itself.

        Raises:
            SegfolioError: no video, one without frames or annotation, a frame without its mask.
        """
        self.pairs, self.sequences = [], {}
        for name in dict.fromkeys(names):
            frames = sorted((images / name).glob("[!.]*.jpg"))
            if not frames:
                raise SegfolioError(f"{source} names {name}, but {images / name} holds no frame")
            first = len(self.pairs)
            self.sequences[name] = range(first, first + len(frames))
            for frame in frames:
                mask = masks / name / f"{frame.stem}.png"
                known = not partly or mask.is_file()
                self.pairs.append(FilePair(f"{name}/{frame.stem}", frame, mask if known else None))
            if all(pair.mask is None for pair in self.pairs[first:]):
                raise SegfolioError(f"{source} names {name}, but {masks / name} holds no mask of any of its frames")
        if not self.pairs:
            raise SegfolioError(f"{source} is empty, expected the name of a sequence per line")
        self.expect_pairs(source)
        if videos:
            self.clips = list(self.sequences.values())

    def find_split(self, root: str | Path | None, split: str, frames: str, partly: bool) -> None:
        """`find` of a split that is a folder with `JPEGImages` and `Annotations`, whose folders are the videos.

        Args:
            frames: the folder whose `JPEGImages` are read.
            partly: see `find`.
        """
        images, masks = f"{frames}/JPEGImages", f"{split}/Annotations"
        root = self.expect_files(root, images, masks)
        names = sorted(path.name for path in (root / images).iterdir() if path.is_dir() and path.name[0] != ".")
        if not names:
            raise SegfolioError(f"{root / images} holds no video, expected {self.info.layout}")
        self.find(names, root / images, root / masks, root / images, partly)

    def read_ids(self, path: Path) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        ids = read_id_map(path)
        return np.where(ids == VOID, ids, ids > 0).astype(np.uint8)

    def read(self, index: int) -> Sample:
        """As `PairedFiles`, and the objects in the order of their ids."""
        sample, mask = super().read(index), self.pairs[index].mask
        if sample.target is not None and mask is not None:
            sample.target.segments = objects(read_id_map(mask))
        elif self.clips is not None:
            sample.target = Target()
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
    return found[(found > 0) & (found != VOID)]
